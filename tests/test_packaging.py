"""What people install: the wheel, and plugins beside it."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import keras_alexnet

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


def test_the_wheel_and_a_plugin_work_away_from_the_checkout(environment):
    folder, python = environment
    program = """
import keras_alexnet
from keras_alexnet import benchmarks, layers, tuning
assert benchmarks.find_peers() is None
print(keras_alexnet.__file__)
print(layers.__file__)
model = keras_alexnet.build("alexnet_mini", norm="divisive_norm")
assert type(model.get_layer("norm1")).__module__ == "divisive_norm"
model.save("plugged.keras")
"""
    result = run(python, "-c", program, cwd=folder)
    assert result.returncode == 0, result.stderr
    package, layers = result.stdout.split()
    assert str(folder) in package and str(folder) in layers
    assert Path(package).with_name("py.typed").exists()

    trained = run(
        python.with_name("keras-alexnet"),
        *("train", "--norm", "divisive_norm", "--run-dir", "run"),
        *("--epochs", "1", "--global-batch-size", "256"),
        cwd=folder,
    )
    assert trained.returncode == 0, trained.stderr

    program = """
import keras_alexnet
from keras_alexnet.cli import main
model = keras_alexnet.load_model("plugged.keras")
assert type(model.get_layer("norm2")).__name__ == "DivisiveNormalization"
for arguments in ("list layers", "evaluate run", "benchmark limits --quick --out out"):
    try:
        main(arguments.split())
    except SystemExit as stop:
        assert not stop.code
"""
    result = run(python, "-c", program, cwd=folder)
    assert result.returncode == 0, result.stderr
    for part in ("divisive_norm", "top-1 error", "limit: bfloat16 product"):
        assert part in result.stdout
    assert (folder / "out" / "limits.json").exists()


@pytest.mark.parametrize("name", ["layers", "tuning", "benchmarks"])
def test_importing_a_folder_at_the_top_says_what_to_import_instead(name):
    result = run(sys.executable, "-c", f"import {name}", cwd=ROOT)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert (
        last.startswith("ImportError") and f"from keras_alexnet import {name}" in last
    )


def test_every_public_name_exists_and_is_listed():
    for name in keras_alexnet.__all__:
        assert getattr(keras_alexnet, name) is not None
    assert set(keras_alexnet.__all__) == set(dir(keras_alexnet))
