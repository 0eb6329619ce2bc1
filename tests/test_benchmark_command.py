"""`keras-alexnet benchmark`: what it lists, refuses, measures and writes."""

import importlib.util
import json
import subprocess
import sys

import pytest
from PIL import Image

from keras_alexnet import cli
from keras_alexnet.benchmarks import memory
from keras_alexnet.benchmarks.questions import OTHER, USUAL, Options, ask

# What each question writes, and one of its cases.
QUICK = {
    "training_step": {"training_step": "batch 8"},
    "inference": {"inference": "batch 4"},
    "batch_size": {"batch_size": "1"},
    "lrn": {"lrn": "norm1 (3, 3, 8), float32, training"},
    "grouped_conv": {
        "grouped_conv": "conv2 (4, 4, 8), bfloat16, inference",
        "first_conv": "conv1 (19, 19, 3), float32, training",
        "max_pool": "pool1 (7, 7, 8), bfloat16, training",
    },
    "size": {"size_images": "28", "size_classes": "20"},
}
# Of these the network has one implementation only.
FIRST = {"first_conv": "tf.nn", "max_pool": "tf.nn"}


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["benchmark", *map(str, arguments)])
    return stop.value.code, capsys.readouterr()


def quick_answers(out, *questions):
    """Asks in a new process; returns what it prints."""
    program = "from keras_alexnet.cli import main; main()"
    result = subprocess.run(
        [
            *(sys.executable, "-c", program, "benchmark", *questions),
            *("--quick", "--out", out),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_all_questions_are_listed(capsys):
    code, printed = run(capsys, "--list")
    assert code == 0
    for name, summary in {**USUAL, **OTHER}.items():
        assert name in printed.out and summary in printed.out


def test_an_unknown_question_is_refused_with_the_nearest(capsys, tmp_path):
    out = tmp_path / "out"
    code, printed = run(capsys, "scaling", "trainingstep", "--out", out)
    assert code == 2 and not printed.out and not out.exists()
    assert printed.err.count("\n") == 1
    assert "Unknown question 'trainingstep'. Did you mean 'training_step'?" in (
        printed.err
    )


@pytest.mark.parametrize("questions", [["lrn"], ["scaling", "lrn"]])
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
def test_a_quick_answer_is_complete(question, tmp_path):
    ask(question, Options(out=tmp_path, quick=True))
    for name, case in QUICK[question].items():
        written = json.loads((tmp_path / f"{name}.json").read_text())
        assert written["quick"] is True
        assert written["machine"]["versions"]["tensorflow"]
        rows = written["results"][case]
        for row in rows.values():
            assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0
        assert any(row.startswith(FIRST.get(name, "keras_alexnet")) for row in rows)
        if name in ("lrn", "first_conv", "max_pool"):
            # All compute the same, or they would have been left out.
            assert not written["skipped"]
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.format == "PNG"


def test_peers_that_are_not_there_are_named_with_the_reason(
    tmp_path, monkeypatch, capsys
):
    # onnx first: it is what OpenVINO and ONNX Runtime read.
    for missing in ("torch", "onnx"):
        monkeypatch.setitem(sys.modules, missing, None)
    for peer in ("torch_peer", "onnx_graph"):
        name = f"keras_alexnet.benchmarks.peers.{peer}"
        monkeypatch.delitem(sys.modules, name, raising=False)
    ask("inference", Options(out=tmp_path, quick=True, candidates=("torch*", "ONNX*")))
    written = json.loads((tmp_path / "inference.json").read_text())
    assert set(written["skipped"]) == {"PyTorch", "ONNX"}
    assert all(row.startswith("keras_") for row in written["results"]["batch 4"])
    assert "PyTorch is left out: " in capsys.readouterr().out


def test_lines_of_the_table_of_choices_are_compared_with_the_fastest(tmp_path, capsys):
    from keras_alexnet.layers.implementations import CHOICES

    ask("choices", Options(out=tmp_path, quick=True))
    written = json.loads((tmp_path / "choices.json").read_text())
    chosen = {
        (row["operation"], written["device"], row["kind"]): row["chosen"]
        for row in written["results"]
    }
    here = {key: name for key, name in CHOICES.items() if key[1] == written["device"]}
    assert chosen == here
    for row in written["results"]:
        # A plain graph contains nothing compiled.
        assert (row["kind"], row["fastest"]) != ("plain", "xla")
        assert row["times_faster"] == 1 or row["fastest"] != row["chosen"]
    assert f"of {2 * len(here)} would be faster" in capsys.readouterr().out


def test_memory_is_compared_with_textbook_keras(tmp_path, monkeypatch, capsys):
    def peak(function, name, batch_size, quick):
        assert function is memory.peak_of_training and quick
        return {"textbook float32": 200, "keras_alexnet float32": 150}.get(
            name, 100
        ) * 2**20

    monkeypatch.setattr(memory, "call_in_a_process", peak)
    ask("memory", Options(out=tmp_path, quick=True))
    written = json.loads((tmp_path / "memory.json").read_text())
    assert written["results"]["batch 8"] == {
        "keras_alexnet float32": 150 * 2**20,
        "keras_alexnet bfloat16": 100 * 2**20,
        "textbook float32": 200 * 2**20,
    }
    printed = capsys.readouterr().out
    assert "0.75" in printed and "0.50" in printed


def test_several_questions_are_answered_in_processes_of_their_own(tmp_path):
    printed = quick_answers(tmp_path, "scaling", "lrn")
    assert "fully connected: 234.5 MB" in printed
    assert (tmp_path / "scaling.json").exists() and (tmp_path / "lrn.json").exists()


def test_a_question_without_an_answer_does_not_end_the_others(
    tmp_path, monkeypatch, capsys
):
    from keras_alexnet.cli import benchmark

    asked = []

    def process(command):
        asked.append(command[4])
        assert command[5:] == [
            *("--out", str(tmp_path), "--quick", "--candidates", "torch*", "O*")
        ]
        return subprocess.CompletedProcess(command, len(asked) == 1)

    monkeypatch.setattr(benchmark.subprocess, "run", process)
    flags = ("--quick", "--out", tmp_path, "--candidates", "torch*", "O*")
    code, printed = run(capsys, *flags)
    assert code == 1 and asked == list(USUAL)
    assert printed.err == "Without an answer: training_step.\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "question",
    [
        *("memory", "engine", "augmentation", "data_pipeline", "many_files"),
        *("damaged_files", "import_time", "tuning"),
    ],
)
def test_a_quick_answer_in_a_process_of_its_own(question, tmp_path):
    quick_answers(tmp_path, question)
    assert json.loads((tmp_path / f"{question}.json").read_text())["quick"] is True


def test_every_question_has_a_program():
    for name in {**USUAL, **OTHER}:
        assert importlib.util.find_spec(f"keras_alexnet.benchmarks.{name}")
