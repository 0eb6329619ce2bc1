"""`keras-alexnet benchmark`: what it lists, refuses, measures and writes."""

import importlib.util
import json
import subprocess
import sys

import pytest

from keras_alexnet import benchmarks, cli
from keras_alexnet.benchmarks.questions import OTHER, USUAL, Options
from keras_alexnet.benchmarks.report import ask
from keras_alexnet.cli.benchmark import Benchmark

# What each question writes, one of its rows, and who takes part.
QUICK = {
    "training_step": ("alexnet_mini, batch 8", "keras_alexnet bfloat16", "*bfloat16*"),
    "inference": (
        "alexnet_mini, batch 4",
        "keras_alexnet float32, SavedModel",
        "*32, S*",
    ),
    "engine": ("alexnet_mini, float32, XLA, batch 8", "loop", "*"),
    "limits": ("limits", "limit: bfloat16 product of 128", "*"),
}


@pytest.fixture(autouse=True)
def _in_this_process(in_this_process):
    """Tests share the time that importing TensorFlow takes."""


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["benchmark", *map(str, arguments)])
    return stop.value.code, capsys.readouterr()


def test_all_questions_are_listed(capsys):
    code, printed = run(capsys, "--list")
    assert code == 0
    for name, summary in {**USUAL, **OTHER}.items():
        assert name in printed.out and summary in printed.out


def test_an_unknown_question_is_refused_with_the_nearest(capsys, tmp_path):
    out = tmp_path / "out"
    code, printed = run(capsys, "limits", "trainingstep", "--out", out)
    assert code == 2 and not printed.out and not out.exists()
    assert printed.err.count("\n") == 1
    assert "Unknown question 'trainingstep'. Did you mean 'training_step'?" in (
        printed.err
    )


@pytest.mark.parametrize("questions", [["limits"], ["limits", "inference"]])
def test_results_that_cannot_be_written_are_refused_before_measuring(
    questions, capsys, tmp_path
):
    file = tmp_path / "file"
    file.touch()
    code, printed = run(capsys, *questions, "--quick", "--out", file / "out")
    assert code == 2 and not printed.out
    assert printed.err.count("\n") == 1
    assert f"Results cannot be written to {file / 'out'}: Not a directory." in (
        printed.err
    )


@pytest.mark.parametrize("question", QUICK)
def test_a_quick_answer_is_complete(question, tmp_path, capsys):
    case, name, candidates = QUICK[question]
    ask(question, Options(out=tmp_path, quick=True, candidates=(candidates,)))
    written = json.loads((tmp_path / f"{question}.json").read_text())
    assert written["quick"] is True
    assert written["machine"]["versions"]["tensorflow"]
    assert set(written["skipped"]) <= {f"{case}: PyTorch bfloat16"}
    row = written["results"][case][name]
    assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0
    assert f"{case} | {name} | " in capsys.readouterr().out
    if question == "training_step":
        assert row["share_of"] == "bfloat16 product"


def test_peers_that_are_not_there_are_named_with_the_reason(
    tmp_path, monkeypatch, capsys
):
    for missing in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, missing, None)
        name = f"keras_alexnet.benchmarks.peers.{missing}_peer"
        monkeypatch.delitem(sys.modules, name, raising=False)
    ask("inference", Options(out=tmp_path, quick=True, candidates=("*float32", "O*")))
    written = json.loads((tmp_path / "inference.json").read_text())
    missing = [
        f"alexnet_mini, batch 4: {name}" for name in ("OpenVINO", "ONNX Runtime")
    ]
    assert {f"{name} float32" for name in missing} <= set(written["skipped"])
    assert "OpenVINO float32 is left out: " in capsys.readouterr().out
    assert "textbook float32" in written["results"]["alexnet_mini, batch 4"]


def test_without_the_repository_there_are_no_peers(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "find_peers", lambda: None)
    options = Options(
        out=tmp_path, quick=True, candidates=("*float32, t*",), batch_sizes=(2, 3)
    )
    ask("inference", options)
    written = json.loads((tmp_path / "inference.json").read_text())
    for size in (2, 3):
        rows = written["results"][f"alexnet_mini, batch {size}"]
        assert all(name.startswith("keras_alexnet") for name in rows)


def test_operations_are_timed_and_compared_with_the_table_of_choices(tmp_path, capsys):
    from keras_alexnet.benchmarks.operations import IMPLEMENTATIONS
    from keras_alexnet.layers.implementations import CHOICES

    ask("operations", Options(out=tmp_path, quick=True))
    written = json.loads((tmp_path / "operations.json").read_text())
    assert {"tf.nn", "xla"} <= set(written["results"]["norm1, bfloat16, gradient"])
    row = written["results"]["norm1, bfloat16, gradient"]["xla"]
    assert row["unit"] == "GB/s" and row["share_of"] == "copy"
    assert "split" in written["results"]["conv2, float32, forward"]
    rows = written["settings"]["choices"]
    here = {
        key: name
        for key, name in CHOICES.items()
        if key[1] == rows[0]["device"] and key[0] in IMPLEMENTATIONS
    }
    chosen = {(x["operation"], x["device"], x["kind"]): x["chosen"] for x in rows}
    assert chosen == here
    for row in rows:
        # A plain graph contains nothing compiled.
        assert row["kind"] != "plain" or not row["fastest"].startswith("xla")
        assert row["times_faster"] == 1 or row["fastest"] != row["chosen"]
    assert f"of {2 * len(here)} would be faster" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        ("--batch-sizes", "0"),
        ("--batch-sizes", "8", "-1"),
        ("--time-limit", "0"),
        ("--epochs", "0"),
        ("--minutes", "-2"),
        ("--seeds", "0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(flags, capsys, tmp_path):
    code, printed = run(capsys, "limits", *flags, "--out", tmp_path / "out")
    assert code == 2 and not printed.out and not (tmp_path / "out").exists()
    message = f"keras-alexnet: {flags[0]} must be positive. Received: {flags[-1]}"
    assert printed.err.startswith(message) and printed.err.count("\n") == 1


def test_a_question_without_an_answer_does_not_end_the_others(
    tmp_path, monkeypatch, capsys
):
    asked = []

    def process(self, name):
        asked.append((name, self.batch_sizes))
        return len(asked) == 1

    monkeypatch.setattr(Benchmark, "_in_a_process", process)
    code, printed = run(capsys, "--out", tmp_path, "--batch-sizes", "2", "3")
    assert code == 1 and asked == [(name, (2, 3)) for name in USUAL]
    assert printed.err == "Without an answer: training_step.\n"


@pytest.mark.slow
def test_candidates_run_in_processes_of_their_own(tmp_path):
    program = "from keras_alexnet.cli import main; main()"
    command = [sys.executable, "-c", program, "benchmark", "limits", "data_pipeline"]
    command += ["--quick", "--out", tmp_path, "--time-limit", "600"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    for question in ("limits", "data_pipeline"):
        assert json.loads((tmp_path / f"{question}.json").read_text())["quick"] is True


def test_every_question_has_a_program():
    for name in {**USUAL, **OTHER}:
        assert importlib.util.find_spec(f"keras_alexnet.benchmarks.{name}")
