"""The command line, as a person uses it."""

import subprocess
import sys

import pytest

COMMANDS = [
    "train",
    "evaluate",
    "export",
    "predict",
    "features",
    "import-weights",
    "tune",
    "inspect",
    "tune",
    "list",
    "benchmark",
]


def run(*arguments):
    program = "import sys; from keras_alexnet.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("arguments", [(), *[(command,) for command in COMMANDS]])
def test_help_needs_no_tensorflow(arguments):
    program = f"""
import sys
from keras_alexnet.cli import main
try:
    main({[*arguments, "--help"]!r})
except SystemExit as stop:
    assert not stop.code
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "usage: keras-alexnet" in result.stdout


def test_a_run_is_trained_evaluated_exported_and_asked(tmp_path):
    run_dir = tmp_path / "run"
    trained = run(
        *("train", "--run-dir", run_dir, "--epochs", 1),
        *("--global-batch-size", 128, "--replicas", 2, "--xla", "on"),
    )
    assert trained.returncode == 0, trained.stderr
    assert "CPU:0, CPU:1" in trained.stdout and "XLA on" in trained.stdout
    assert "top-1 error" in trained.stdout

    evaluated = run("evaluate", run_dir)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "360 images" in evaluated.stdout
    assert (run_dir / "figures" / "confusion.png").exists()

    exported = run("export", run_dir)
    assert exported.returncode == 0, exported.stderr
    assert (run_dir / "export" / "saved_model.pb").exists()

    asked = run("predict", run_dir, "examples/images/digit-3.png", "--top", 2)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.count("%") == 2

    again = run("train", "--run-dir", run_dir, "--resume")
    assert again.returncode == 0 and "finished already" in again.stdout


@pytest.mark.slow
def test_ablations_are_printed_written_and_not_repeated(tmp_path):
    arguments = ("tune", "--ablation", "--run-dir", tmp_path, "--seeds", 1)
    first = run(*arguments, "--epochs", 1)
    assert first.returncode == 0, first.stderr
    assert "alexnet_mini on digits, seeds 0, epochs 1" in first.stdout
    assert "not applicable: the images are grey" in first.stdout
    assert (tmp_path / "ablation.csv").exists()

    again = run(*arguments, "--epochs", 1)
    assert again.returncode == 0 and "Epoch" not in again.stdout
    table = first.stdout.index("alexnet_mini on digits")
    assert again.stdout.endswith(first.stdout[table:])

    other = run(*arguments, "--epochs", 2)
    assert other.returncode == 2
    assert "base-0 holds another run: its epochs is 1, not 2" in other.stderr
