"""Interleaved timing: who takes part, in which order, and what is made of it."""

import os
import time

import numpy as np
import pytest

from keras_alexnet.benchmarks.comparison import (
    Comparison,
    check_outputs,
)
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report, fastest, times_faster

ORDER = []
CLOCK = [0.0]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes only where work takes some."""
    ORDER.clear()
    monkeypatch.setattr("time.perf_counter", lambda: CLOCK[0])


def compared(**options):
    return Comparison(Report("question", Options(**{"quick": True, **options})))


def working(label="", seconds=0.0, fails=None, dies=None):
    """Makes work that fails or ends its process at the given execution."""
    done = []

    def work(count):
        done.append(count)
        ORDER.append((label, count))
        if len(done) == fails:
            raise RuntimeError("no such kernel\nand a page of details")
        if len(done) == dies:
            os._exit(7)
        CLOCK[0] += count * seconds

    return work


def test_candidates_take_turns_and_fill_the_time_of_a_round(in_this_process):
    with compared() as comparison:  # 10 ms, two rounds.
        comparison.add("slow", working, label="slow", seconds=0.02)
        comparison.add("fast", working, label="fast", seconds=0.0024)
        seconds = comparison.run()
    # Prepared, and executed twice to see how long it takes; then in turn.
    assert ORDER[6:] == [("slow", 1), ("fast", 5)] * 2
    assert seconds == {
        "slow": pytest.approx([0.02] * 2),
        "fast": pytest.approx([0.0024] * 2),
    }


def test_what_fails_at_any_time_is_left_out_with_one_line(capsys, in_this_process):
    with compared() as comparison:
        comparison.add("ours", working)
        for execution in (1, 2, 4, 5):  # Prepared, tried, first and second round.
            comparison.add(f"fails {execution}", working, fails=execution)
        assert list(comparison.run()) == ["ours"]

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fails 1 is left out: RuntimeError: no such kernel"
    assert len(lines) == 4


def test_a_process_that_dies_takes_only_its_own_candidates_with_it():
    with compared() as comparison:
        assert comparison.call("other", dict, a=[1, 2]) == {"a": [1, 2]}
        comparison.add("here", working)
        comparison.add("dies", working, "other", dies=2)
        comparison.add("beside it", working, "other")
        comparison.add("fails", working, "other", fails=1)
        assert list(comparison.run()) == ["here"]
        assert comparison._skipped == {
            "dies": "its process died",
            "beside it": "KeyError: 'beside it'",
            "fails": "RuntimeError: no such kernel",
        }
        comparison.begin("again")
        comparison.add("again", working, "other")
        assert list(comparison.run()) == ["again"]


def test_only_those_that_fit_a_pattern_take_part_and_all_limits(in_this_process):
    with compared(candidates=("PyTorch*", "OpenVINO float32")) as comparison:
        comparison.add("limit: product", working, limit=True)
        for name in ("PyTorch eager", "OpenVINO bfloat16", "OpenVINO float32", "ours"):
            comparison.add(name, working)
        assert list(comparison.run()) == [
            *("limit: product", "PyTorch eager", "OpenVINO float32")
        ]


def test_when_the_time_is_up_nothing_is_begun_and_the_round_is_finished(
    capsys, in_this_process, monkeypatch
):
    begun = time.monotonic() - CLOCK[0]
    monkeypatch.setattr("time.monotonic", lambda: begun + CLOCK[0])
    with compared(time_limit=0.05, quick=False) as comparison:
        comparison.add("first", working, seconds=0.3)
        comparison.add("late", working)
        assert len(comparison.run()["first"]) == 1
    assert "late is left out: TimeoutError: the limit of" in capsys.readouterr().out


def test_a_ratio_is_the_median_of_neighbours_in_time():
    # The machine was ten times slower in the second round: 2, 3 and 4 times faster.
    seconds = {"ours": [1.0, 10.0, 1.0], "theirs": [2.0, 30.0, 4.0]}
    assert times_faster(seconds, "ours", "theirs") == 3
    assert times_faster(seconds, "theirs", "ours") == pytest.approx(1 / 3)


def test_the_fastest_has_the_smallest_median_among_those_that_fit():
    seconds = {"us one": [5, 5, 5], "us two": [4, 4, 90], "them": [1, 1, 1]}
    assert fastest(seconds) == "them"
    assert fastest(seconds, "us*") == "us two"
    assert fastest(seconds, "nobody*") is fastest({}) is None


@pytest.mark.parametrize("dtype, allowed", [("float32", 1e-4), ("bfloat16", 0.05)])
def test_outputs_may_differ_by_rounding_only(dtype, allowed):
    expected = np.array([[0.5, 0.25], [0.125, 2.0]], "float32")
    near, far = expected.copy(), expected.copy()
    near[0, 0] += 0.9 * allowed * 2
    far[0, 0] += 1.1 * allowed * 2
    check_outputs(near, expected, dtype)
    for other in (far, np.full_like(expected, np.nan)):
        with pytest.raises(ArithmeticError, match="its outputs differ from ours by"):
            check_outputs(other, expected, dtype)
