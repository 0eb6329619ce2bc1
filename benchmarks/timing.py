"""Fair timing on machines that are shared: in turn, several times, medians, ratios."""

from __future__ import annotations

import fnmatch
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Seconds = Mapping[str, Sequence[float]]


def in_turn(
    candidates: Mapping[str, Callable[[], object]],
    repetitions: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times each candidate once, then each again, and so on.

    A machine that slows down half-way slows all of them down.

    Args:
        candidates: What to time, by name; each returns when its work is done.
        repetitions: How often each is timed.
        warm_up: How often each is run before, untimed.
        clock: Returns the time in seconds.

    Returns:
        The seconds of each repetition.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(-warm_up, repetitions):
        for name, candidate in candidates.items():
            started = clock()
            candidate()
            if repetition >= 0:
                seconds[name].append(clock() - started)
    return seconds


def times_faster(seconds: Seconds, name: str, baseline: str) -> float:
    """Returns how many times as fast one candidate is as another.

    The median of pairs, because neighbours in time ran on the same machine.

    Args:
        seconds: From `in_turn`.
        name: The one.
        baseline: The other.
    """
    pairs = zip(seconds[baseline], seconds[name], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def fastest(seconds: Seconds, pattern: str = "*") -> str | None:
    """Returns the candidate with the least median, or None if there is none.

    Args:
        seconds: From `in_turn`.
        pattern: Of the candidates to choose from, of the shell's kind.
    """
    names = fnmatch.filter(seconds, pattern)
    return min(names, key=lambda name: statistics.median(seconds[name]), default=None)


def summed(measured: Sequence[Seconds]) -> dict[str, list[float]]:
    """Adds up several measurements, of the candidates that took part in all.

    Args:
        measured: From `in_turn`, each with as many repetitions.
    """
    return {
        name: [sum(times) for times in zip(*(x[name] for x in measured), strict=True)]
        for name in measured[0]
        if all(name in seconds for seconds in measured)
    }
