"""What a benchmark writes: a table, a JSON file, a picture."""

import importlib.metadata
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from keras_alexnet.benchmarks.machine import machine, peak_memory
from keras_alexnet.benchmarks.processes import call_in_a_process
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report, duration

SECONDS = {"keras_alexnet": [1.0, 2.0, 2.5], "peer": [4.0, 4.0, 5.0]}


def test_the_answer_holds_what_was_measured_and_what_follows(tmp_path, capsys):
    report = Report("question", Options(out=tmp_path / "new"), batch_size=10)
    report.add("one", SECONDS, 10, "peer", {"another": "not installed"})
    report.say("ours, times peer", 2.0)
    report.write()
    printed = capsys.readouterr().out
    assert "question: one" in printed and "1.00 s - 2.50 s" in printed
    assert "ours, times peer: 2.00" in printed

    written = json.loads((tmp_path / "new" / "question.json").read_text())
    assert written["results"] == {
        "one": {
            "keras_alexnet": {
                "images_per_second": 5.0,
                "ratio": 2.0,
                "seconds": [1.0, 2.0, 2.5],
            },
            "peer": {
                "images_per_second": 2.5,
                "ratio": 1.0,
                "seconds": [4.0, 4.0, 5.0],
            },
        }
    }
    assert written["settings"] == {"batch_size": 10}
    assert written["ratios"] == {"ours, times peer": 2.0}
    assert written["skipped"] == {"another": "not installed"}
    assert written["quick"] is False


@pytest.mark.parametrize("axis", [None, "batch size"])
def test_a_picture_is_drawn_of_any_number_of_cases(tmp_path, axis):
    for count in (1, 5):
        report = Report(f"of_{count}", Options(out=tmp_path))
        for case in range(1, count + 1):
            rows = SECONDS if case > 1 else {"peer": SECONDS["peer"]}
            report.add(str(case), rows, 10, "peer")
        report.write(axis)
        with Image.open(tmp_path / f"of_{count}.png") as picture:
            assert picture.format == "PNG" and min(picture.size) > 100


def test_the_machine_is_described_by_versions_processor_and_threads():
    found = machine()
    for library in ("tensorflow", "keras", "numpy", "keras-alexnet"):
        assert found["versions"][library] == importlib.metadata.version(library)
    assert "no such library" not in found["versions"]
    assert found["cores"] >= 1
    assert set(found["threads"]) == {
        "tensorflow_intra_op",
        "tensorflow_inter_op",
        "peers",
    }
    assert isinstance(found["cpu"], str)
    assert all(flag[:3] in ("avx", "amx", "fma") for flag in found["cpu_flags"])
    json.dumps(found)


def test_the_peak_of_memory_is_what_the_system_says_in_bytes():
    peak = peak_memory()
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        assert peak == pytest.approx(1024 * int(line), rel=0.02)
    else:  # Python alone takes ten million bytes, and no test takes a billion of them.
        assert 1e7 < peak < 1e12


def test_times_are_written_with_three_digits():
    assert [duration(x) for x in (12.3456, 1.0, 0.0456, 0.00123)] == [
        "12.35 s",
        "1.00 s",
        "45.6 ms",
        "1.23 ms",
    ]


def test_a_call_in_a_process_returns_its_value_or_tells_why_not():
    # `json.loads` is a function of a module that takes no time to import.
    assert call_in_a_process(json.loads, '{"a": [1, 2]}') == {"a": [1, 2]}
    with pytest.raises(RuntimeError, match="(?s)loads.* failed .*Expecting value"):
        call_in_a_process(json.loads, "nonsense")
