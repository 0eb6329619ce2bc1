"""Interleaved timing: candidates take turns for several rounds; medians, ratios.

A machine that slows down half-way slows all of them down.
"""

from __future__ import annotations

import contextlib
import fnmatch
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.workers import Local, Process, Work, summary

# Of one execution in each round, by candidate.
Seconds = Mapping[str, Sequence[float]]

# Of the largest output: rounding alone stays under it.
TOLERANCES = {"float32": 1e-4, "TF32": 0.05, "bfloat16": 0.05}
MOST_EXECUTIONS = 1000
# The processes of TensorFlow's candidates.
TENSORFLOW, EXACT = "TensorFlow", "TensorFlow without TF32"


class Comparison:
    """Candidates that are timed in turn; close it, or use it in a `with`.

    Attributes:
        skipped: Why some candidates are left out, by name.
    """

    def __init__(self, options: Options):
        self.options = options
        self.skipped: dict[str, str] = {}
        self._processes: dict[str, Local | Process] = {}
        self._where: dict[str, Local | Process] = {}

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.close()

    def clear(self) -> None:
        """Lets go of all candidates, not of the processes."""
        for process in self._processes.values():
            process.clear()
        self._where.clear()
        self.skipped.clear()

    def process(self, name: str) -> Local | Process:
        """Returns the process of a name, "" for this one; the first call starts it."""
        if name not in self._processes:
            self._processes[name] = Process() if name else Local()
        return self._processes[name]

    def add(
        self,
        name: str,
        make: Callable[..., Work],
        process: str = "",
        limit: bool = False,
        **arguments: object,
    ) -> None:
        """Prepares a candidate, if the user wants it; where that fails, says so.

        Args:
            name: Of the candidate.
            make: Makes the work to be timed.
            process: Where: candidates with the same name share a process, "" is this.
            limit: Whether it is one of the machine's limits, which always take part.
            **arguments: For `make`.
        """
        patterns = self.options.candidates
        if patterns and not limit:
            if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                return
        with self.optional(name):
            self.options.check_time()
            where = self.process(process)
            where.prepare(name, make, arguments)
            self._where[name] = where

    @contextlib.contextmanager
    def optional(self, name: str) -> Iterator[None]:
        """Turns any failure inside into one line, and goes on."""
        try:
            yield
        # A peer is not ours: it may raise anything.
        except Exception as error:
            self._where.pop(name, None)
            self.skipped[name] = summary(error)
            print(f"{name} is left out: {self.skipped[name]}", flush=True)

    def run(self) -> dict[str, list[float]]:
        """Returns the seconds of one execution in each round, by candidate.

        Each candidate executes as often in a round as fills `Options.min_seconds`. When
        the time is up, the round is finished.
        """
        counts = {}
        for name, where in list(self._where.items()):
            with self.optional(name):
                where.seconds(name, 1)
                once = where.seconds(name, 1)
                count = math.ceil(self.options.min_seconds / max(once, 1e-9))
                counts[name] = min(count, MOST_EXECUTIONS)
        found: dict[str, list[float]] = {name: [] for name in self._where}
        for number in range(self.options.repetitions):
            if number and self.options.time_is_up:
                break
            for name, where in list(self._where.items()):
                with self.optional(name):
                    found[name].append(where.seconds(name, counts[name]))
        return {name: found[name] for name in self._where}


def times_faster(seconds: Seconds, name: str, baseline: str) -> float:
    """Returns how many times as fast one candidate is as another.

    The median of pairs, because neighbours in time ran on the same machine.

    Args:
        seconds: From `Comparison.run`.
        name: The one.
        baseline: The other.
    """
    pairs = zip(seconds[baseline], seconds[name], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def fastest(seconds: Seconds, pattern: str = "*") -> str | None:
    """Returns the candidate with the smallest median, or None if there is none.

    Args:
        seconds: From `Comparison.run`.
        pattern: Of the candidates to choose from, of the shell's kind.
    """
    names = fnmatch.filter(seconds, pattern)
    return min(names, key=lambda name: statistics.median(seconds[name]), default=None)


def check_outputs(outputs: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    """Makes sure that a candidate computes what is expected.

    Args:
        outputs: The candidate's.
        expected: In float32.
        dtype: A key of `TOLERANCES`: what the candidate computes in.

    Raises:
        ArithmeticError: They differ by more than rounding.
    """
    difference = np.abs(outputs - expected).max() / np.abs(expected).max()
    if not difference <= TOLERANCES[dtype]:  # NaN is not.
        raise ArithmeticError(
            f"its outputs differ from ours by {difference:.1e} of the largest, more "
            f"than {TOLERANCES[dtype]:.0e}"
        )
