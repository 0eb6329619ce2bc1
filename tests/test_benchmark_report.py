"""What a benchmark writes: lines, a JSON file."""

import importlib.metadata
import json

from keras_alexnet.benchmarks.machine import machine
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report

SECONDS = {"keras_alexnet": [1.0, 2.0, 2.5], "peer": [4.0, 4.0, 5.0]}


def test_the_answer_holds_what_was_measured_and_what_follows(tmp_path, capsys):
    report = Report("question", Options(out=tmp_path / "new"))
    report.settings["batch_size"] = 10
    report.add("one", SECONDS, 10, baseline="peer", limits={"peer": 20})
    report.skipped["another"] = "not installed"
    report.save()
    assert capsys.readouterr().out.splitlines() == [
        "one | keras_alexnet | 5 images/s | 2.00 s (1.00 s - 2.50 s) | 2.00 x peer",
        "one | peer | 2.5 images/s | 4.00 s (4.00 s - 5.00 s) | 12.5% of peer product"
        " | 1.00 x peer",
    ]
    written = json.loads((tmp_path / "new" / "question.json").read_text())
    ours = {"seconds": [1.0, 2.0, 2.5], "rate": 5.0, "unit": "images/s", "ratio": 2.0}
    peer = {"seconds": [4.0, 4.0, 5.0], "rate": 2.5, "unit": "images/s", "ratio": 1.0}
    peer |= {"share": 0.125, "share_of": "peer product"}
    assert written["results"] == {"one": {"keras_alexnet": ours, "peer": peer}}
    assert written["settings"] == {"batch_size": 10}
    assert written["skipped"] == {"another": "not installed"}
    assert written["quick"] is False


def test_the_machine_is_described_by_versions_and_processor():
    found = machine()
    for library in ("tensorflow", "keras", "numpy", "keras-alexnet"):
        assert found["versions"][library] == importlib.metadata.version(library)
    assert isinstance(found["cpu"], str)
    assert all(flag[:3] in ("avx", "amx", "fma") for flag in found["cpu_flags"])
    json.dumps(found)
