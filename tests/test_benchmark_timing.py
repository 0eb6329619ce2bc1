"""Timing in turn and what is made of it, on clocks that do not tick by themselves."""

import pytest

from keras_alexnet.benchmarks.timing import fastest, in_turn, summed, times_faster


class Clock:
    """Stands still, until a candidate works for some seconds."""

    def __init__(self):
        self.now = 100.0
        self.worked = []

    def working(self, name, *seconds):
        durations = iter(seconds)

        def work():
            self.now += next(durations)
            self.worked.append(name)

        return work


def test_candidates_take_turns_and_warming_up_does_not_count():
    clock = Clock()
    candidates = {
        "a": clock.working("a", 50, 1, 2, 3),
        "b": clock.working("b", 60, 4, 5, 6),
    }
    seconds = in_turn(candidates, 3, clock=lambda: clock.now)
    assert seconds == {"a": [1, 2, 3], "b": [4, 5, 6]}
    assert clock.worked == ["a", "b"] * 4


def test_no_warm_up_is_possible():
    clock = Clock()
    seconds = in_turn({"a": clock.working("a", 7)}, 1, 0, clock=lambda: clock.now)
    assert seconds == {"a": [7]}


def test_a_ratio_is_the_median_of_neighbours_in_time():
    # The machine was ten times slower in the second round: 2, 3 and 4 times faster.
    seconds = {"ours": [1.0, 10.0, 1.0], "theirs": [2.0, 30.0, 4.0]}
    assert times_faster(seconds, "ours", "theirs") == 3
    assert times_faster(seconds, "theirs", "ours") == pytest.approx(1 / 3)


def test_the_fastest_has_the_least_median_among_those_that_fit():
    seconds = {"us one": [5, 5, 5], "us two": [4, 4, 90], "them": [1, 1, 1]}
    assert fastest(seconds) == "them"
    assert fastest(seconds, "us*") == "us two"
    assert fastest(seconds, "nobody*") is None
    assert fastest({}) is None


def test_sums_are_of_those_that_took_part_everywhere():
    first = {"a": [1, 2], "b": [3, 4]}
    second = {"a": [10, 20], "c": [5, 6]}
    assert summed([first, second]) == {"a": [11, 22]}
