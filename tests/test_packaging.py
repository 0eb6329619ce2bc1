"""What people install: the wheel, and plugins beside it."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, cwd):
    return subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh environment, away from the checkout, with our wheel and the plugin's.

    The dependencies are those of the environment that runs the tests: they take
    minutes to install, and whether they install is what `make setup` shows.
    """
    folder = tmp_path_factory.mktemp("installed")
    for project in (ROOT, ROOT / "examples" / "layer_plugin"):
        # From a copy of what is committed or new, so that no build folder is left.
        source = folder / f"source-{project.name}"
        listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=project)
        for name in listed.stdout.splitlines():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((project / name).read_bytes())
        built = run(
            sys.executable,
            *("-m", "build", "--wheel", "--no-isolation"),
            *("--outdir", folder / "wheels", source),
            cwd=folder,
        )
        assert built.returncode == 0, built.stdout + built.stderr
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    installed = run(
        python,
        *("-m", "pip", "install", "--quiet", "--no-deps"),
        *sorted((folder / "wheels").glob("*.whl")),
        cwd=folder,
    )
    assert installed.returncode == 0, installed.stderr
    libraries = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd="/"
    ).stdout.strip()
    # Added at the end of the search path, without its own .pth files: the editable
    # installation of the checkout stays out of sight.
    outside = sysconfig.get_path("purelib")
    (Path(libraries) / "dependencies.pth").write_text(outside + "\n")
    return folder, python


def test_the_wheel_imports_away_from_the_checkout(environment):
    folder, python = environment
    program = """
import keras_alexnet, keras_alexnet.layers, keras_alexnet.tuning
import keras_alexnet.benchmarks.peers
print(keras_alexnet.__file__)
print(keras_alexnet.layers.__file__)
print(keras_alexnet.build("alexnet_mini").count_params())
"""
    result = run(python, "-c", program, cwd=folder)
    assert result.returncode == 0, result.stderr
    package, layers, parameters = result.stdout.split()
    assert str(folder) in package and str(folder) in layers
    assert Path(package).with_name("py.typed").exists()
    assert int(parameters) > 0


def test_benchmarks_run_from_the_wheel(environment):
    folder, python = environment
    command = python.with_name("keras-alexnet")
    result = run(command, "benchmark", "scaling", "--out", "answers", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "fully connected: 234.5 MB" in result.stdout
    assert (folder / "answers" / "scaling.json").exists()


def test_a_plugin_s_layer_is_built_by_name_saved_and_reloaded(environment):
    folder, python = environment
    write = """
import keras_alexnet
model = keras_alexnet.build("alexnet_mini", norm="divisive_norm")
assert type(model.get_layer("norm1")).__module__ == "divisive_norm"
model.save("plugged.keras")
"""
    read = """
import keras_alexnet
model = keras_alexnet.load_model("plugged.keras")
print(type(model.get_layer("norm2")).__name__)
"""
    written = run(python, "-c", write, cwd=folder)
    assert written.returncode == 0, written.stderr
    loaded = run(python, "-c", read, cwd=folder)
    assert loaded.stdout.strip() == "DivisiveNormalization", loaded.stderr


def test_a_plugin_s_layer_is_known_to_the_command_line(environment):
    folder, python = environment
    command = python.with_name("keras-alexnet")
    assert "divisive_norm" in run(command, "list", "layers", cwd=folder).stdout
    trained = run(
        command,
        *("train", "--norm", "divisive_norm", "--run-dir", folder / "run"),
        *("--epochs", "1", "--global-batch-size", "256"),
        cwd=folder,
    )
    assert trained.returncode == 0, trained.stderr
    evaluated = run(command, "evaluate", folder / "run", cwd=folder)
    assert "top-1 error" in evaluated.stdout, evaluated.stderr


@pytest.mark.parametrize("name", ["layers", "tuning", "benchmarks"])
def test_importing_a_folder_at_the_top_says_what_to_import_instead(name):
    result = run(sys.executable, "-c", f"import {name}", cwd=ROOT)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert (
        last.startswith("ImportError") and f"from keras_alexnet import {name}" in last
    )


def test_importing_the_package_does_not_import_tensorflow():
    program = "import sys, keras_alexnet; print('tensorflow' in sys.modules)"
    assert run(sys.executable, "-c", program, cwd="/").stdout.strip() == "False"


def test_every_public_name_exists_and_is_listed():
    program = """
import keras_alexnet
for name in keras_alexnet.__all__:
    getattr(keras_alexnet, name)
assert set(keras_alexnet.__all__) == set(dir(keras_alexnet))
"""
    result = run(sys.executable, "-c", program, cwd="/")
    assert result.returncode == 0, result.stderr
