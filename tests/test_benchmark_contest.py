"""Who takes part in a benchmark, and who is left out with a line."""

import sys

import numpy as np
import pytest

from keras_alexnet.benchmarks.contest import Contest, check_outputs
from keras_alexnet.benchmarks.questions import Options


def nothing():
    pass


def test_a_peer_that_fails_is_left_out_with_one_line(capsys):
    contest = Contest(Options())

    def broken():
        raise RuntimeError("no such kernel\nand a page of details")

    def broken_when_it_runs():
        return broken

    contest.enter("ours", nothing)
    contest.invite("cannot be made", broken)
    contest.invite("cannot run", broken_when_it_runs)
    contest.invite("can", lambda: nothing)
    assert list(contest.candidates) == ["ours", "can"]
    assert contest.skipped == {
        "cannot be made": "no such kernel",
        "cannot run": "no such kernel",
    }
    assert capsys.readouterr().out == (
        "cannot be made is left out: no such kernel\n"
        "cannot run is left out: no such kernel\n"
    )


def test_a_system_that_is_not_installed_is_left_out_with_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(
        sys.modules, "keras_alexnet.benchmarks.peers.torch_peer", raising=False
    )
    contest = Contest(Options())
    with contest.optional("PyTorch"):
        from keras_alexnet.benchmarks.peers import torch_peer

        contest.enter("never", torch_peer)
    assert not contest.candidates
    assert list(contest.skipped) == ["PyTorch"]
    printed = capsys.readouterr().out
    assert printed.startswith("PyTorch is left out: ") and printed.count("\n") == 1


def test_only_peers_that_fit_a_pattern_are_prepared():
    contest = Contest(Options(candidates=("torch*", "OpenVINO float32")))
    contest.enter("ours", nothing)
    prepared = []

    def preparing(name):
        def prepare():
            prepared.append(name)
            return nothing

        return prepare

    for name in ("torch eager", "OpenVINO bfloat16", "OpenVINO float32", "textbook"):
        contest.invite(name, preparing(name))
    assert prepared == ["torch eager", "OpenVINO float32"]
    assert list(contest.candidates) == ["ours", *prepared]


def test_a_quick_contest_has_two_rounds_and_another_five():
    for quick, rounds in ((True, 2), (False, 5)):
        contest = Contest(Options(quick=quick))
        contest.enter("ours", nothing)
        assert len(contest.run()["ours"]) == rounds


@pytest.mark.parametrize("dtype, allowed", [("float32", 1e-4), ("bfloat16", 0.05)])
def test_outputs_may_differ_by_rounding_only(dtype, allowed):
    expected = np.array([[0.5, 0.25], [0.125, 2.0]], "float32")
    near, far = expected.copy(), expected.copy()
    near[0, 0] += 0.9 * allowed * 2
    far[0, 0] += 1.1 * allowed * 2
    check_outputs(near, expected, dtype)
    with pytest.raises(ValueError, match="its outputs differ from ours by"):
        check_outputs(far, expected, dtype)


def test_outputs_that_are_not_numbers_are_other_outputs():
    with pytest.raises(ValueError, match="differ from ours by nan"):
        check_outputs(np.array([np.nan]), np.array([1.0]), "bfloat16")
