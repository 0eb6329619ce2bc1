"""`keras-alexnet benchmark`: what it lists, refuses, measures and writes."""

import importlib.util
import json
import subprocess
import sys

import pytest

from keras_alexnet import benchmarks, cli
from keras_alexnet.benchmarks import comparison
from keras_alexnet.benchmarks.questions import OTHER, USUAL, Options, ask

# What each question writes, one of its rows, and who takes part.
QUICK = {
    "training_step": ("alexnet_mini, batch 8", "keras_alexnet bfloat16", "*bfloat16*"),
    "inference": (
        "alexnet_mini, batch 4",
        "keras_alexnet float32, SavedModel",
        "*32, S*",
    ),
    "lrn": ("norm1, bfloat16, gradient", "keras_alexnet xla, XLA", "*XLA"),
    "grouped_conv": (
        "conv2, float32, forward",
        "keras_alexnet split, channels first",
        "*split*",
    ),
    "engine": ("alexnet_mini, bfloat16, XLA, batch 8", "loop", "*"),
    "limits": ("limits", "limit: bfloat16 product of 128", "*"),
}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Tests share the time that importing TensorFlow takes."""
    monkeypatch.setattr(comparison, "Process", comparison.Local)


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


@pytest.mark.parametrize("questions", [["lrn"], ["limits", "lrn"]])
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
    assert set(written["skipped"]) <= {f"{case}: PyTorch"}
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
    options = Options(tmp_path, True, ("*float32, t*",), batch_sizes=(2, 3))
    ask("inference", options)
    written = json.loads((tmp_path / "inference.json").read_text())
    for size in (2, 3):
        rows = written["results"][f"alexnet_mini, batch {size}"]
        assert all(name.startswith("keras_alexnet") for name in rows)


def test_lines_of_the_table_of_choices_are_compared_with_the_fastest(tmp_path, capsys):
    from keras_alexnet.benchmarks.choices import KINDS
    from keras_alexnet.layers.implementations import CHOICES

    ask("choices", Options(out=tmp_path, quick=True))
    written = json.loads((tmp_path / "choices.json").read_text())
    chosen = {
        (row["operation"], written["device"], row["kind"]): row["chosen"]
        for row in written["results"]
    }
    here = {
        key: name
        for key, name in CHOICES.items()
        if key[1] == written["device"] and key[0] in KINDS
    }
    assert chosen == here
    for row in written["results"]:
        # A plain graph contains nothing compiled.
        assert row["kind"] != "plain" or not row["fastest"].startswith("xla")
        assert row["times_faster"] == 1 or row["fastest"] != row["chosen"]
    assert f"of {2 * len(here)} would be faster" in capsys.readouterr().out


def test_a_question_without_an_answer_does_not_end_the_others(
    tmp_path, monkeypatch, capsys
):
    from keras_alexnet.cli import benchmark

    asked = []

    def process(command):
        asked.append(command[4])
        assert command[5:] == [
            *("--quick", "--candidates", "torch*", "O*", "--batch-sizes", "2", "3"),
            *("--time-limit", "60.0", "--out", str(tmp_path)),
        ]
        return subprocess.CompletedProcess(command, len(asked) == 1)

    monkeypatch.setattr(benchmark.subprocess, "run", process)
    flags = ("--quick", "--out", tmp_path, "--candidates", "torch*", "O*")
    flags += ("--batch-sizes", "2", "3", "--time-limit", "60")
    code, printed = run(capsys, *flags)
    assert code == 1 and asked == list(USUAL)
    assert printed.err == "Without an answer: training_step.\n"


@pytest.mark.slow
def test_candidates_run_in_processes_of_their_own(tmp_path):
    program = "from keras_alexnet.cli import main; main()"
    command = [sys.executable, "-c", program, "benchmark", "lrn", "data_pipeline"]
    command += ["--quick", "--out", tmp_path, "--time-limit", "600"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    for question in ("lrn", "data_pipeline"):
        assert json.loads((tmp_path / f"{question}.json").read_text())["quick"] is True


def test_every_question_has_a_program():
    for name in {**USUAL, **OTHER}:
        assert importlib.util.find_spec(f"keras_alexnet.benchmarks.{name}")
