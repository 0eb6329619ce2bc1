"""Interleaved timing: candidates take turns for several rounds.

A machine that slows down half-way slows all of them down. Candidates run in worker
processes, whose memory, flags and crashes are their own. On a GPU a step is
asynchronous: executions are queued, and only the last is waited for.
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from keras_alexnet.benchmarks.report import Report

# Executes something so many times, and returns when all of it is done.
Work = Callable[[int], object]

# Of the largest output: rounding alone stays under it.
TOLERANCES = {"float32": 1e-4, "TF32": 0.05, "bfloat16": 0.05}
MAX_EXECUTIONS = 1000
# The process of TensorFlow's candidates.
TENSORFLOW = "TensorFlow"


class WorkFailed(Exception):
    """What failed in a worker process, in one line."""


class Comparison:
    """Candidates that are timed in turn; close it, or use it in a `with`.

    Args:
        report: Has the options, and is told who is left out.
    """

    def __init__(self, report: Report):
        self.options = report.options
        self._skipped, self._case = report.skipped, ""
        self._pools: dict[str, ProcessPoolExecutor] = {}
        # The process of each candidate.
        self._where: dict[str, str] = {}

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)

    def begin(self, case: str) -> None:
        """Lets go of all candidates, not of the processes, for those of a new case."""
        for process in self._pools:
            self.call(process, _clear)
        self._where.clear()
        self._case = f"{case}: "

    def call(self, process: str, function: Callable, **arguments: object) -> object:
        """Calls a function in a process, which the first call starts.

        Args:
            process: Its name. A process that has died is started again, without what
                was prepared in it.
            function: What to call, and its arguments: what can be pickled.
            **arguments: Of the function.

        Raises:
            WorkFailed: It failed, or the process died.
        """
        if process not in self._pools:
            context = multiprocessing.get_context("spawn")
            self._pools[process] = ProcessPoolExecutor(1, context, initializer=_quiet)
        try:
            return self._pools[process].submit(_call, function, arguments).result()
        except BrokenProcessPool:
            del self._pools[process]
            raise WorkFailed("its process died") from None

    def add(
        self,
        name: str,
        make: Callable[..., Work],
        process: str = TENSORFLOW,
        limit: bool = False,
        **arguments: object,
    ) -> None:
        """Prepares a candidate, if the user wants it; where that fails, says so.

        Args:
            name: Of the candidate.
            make: Makes the work to be timed.
            process: Where: candidates with the same name share a process.
            limit: Whether it is one of the machine's limits, which always take part.
            **arguments: For `make`.
        """
        patterns = self.options.candidates
        if patterns and not limit:
            if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                return
        with self.optional(name):
            if self.options.time_is_up:
                limit = self.options.time_limit
                raise TimeoutError(f"the limit of {limit:.0f} s has passed")
            self.call(process, _prepare, name=name, make=make, arguments=arguments)
            self._where[name] = process

    @contextlib.contextmanager
    def optional(self, name: str) -> Iterator[None]:
        """Turns any failure inside into one line, and goes on."""
        try:
            yield
        # A peer is not ours: it may raise anything.
        except Exception as error:
            self._where.pop(name, None)
            self._skipped[self._case + name] = _summary(error)
            print(f"{name} is left out: {_summary(error)}", flush=True)

    def run(self) -> dict[str, list[float]]:
        """Returns the seconds of one execution in each round, by candidate.

        Each candidate executes as often in a round as fills `Options.min_seconds`. When
        the time is up, the round is finished.
        """
        counts = {}
        for name in list(self._where):
            with self.optional(name):
                self._seconds(name, 1)
                once = self._seconds(name, 1)
                count = math.ceil(self.options.min_seconds / max(once, 1e-9))
                counts[name] = min(count, MAX_EXECUTIONS)
        found: dict[str, list[float]] = {name: [] for name in self._where}
        for number in range(self.options.repetitions):
            if number and self.options.time_is_up:
                break
            for name in list(self._where):
                with self.optional(name):
                    found[name].append(self._seconds(name, counts[name]))
        return {name: found[name] for name in self._where}

    def _seconds(self, name: str, count: int) -> float:
        return self.call(self._where[name], _time, name=name, count=count)


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


# === In a worker process ===

_works: dict[str, Work] = {}


def _quiet() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Functions are traced anew for every candidate: TensorFlow would warn of it.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _call(function: Callable, arguments: dict) -> object:
    try:
        return function(**arguments)
    except Exception as error:  # Its class may be of a library that only a peer has.
        raise WorkFailed(_summary(error)) from None


def _prepare(name: str, make: Callable[..., Work], arguments: dict) -> None:
    """Makes work and executes it once, which compiles it."""
    work = make(**arguments)
    work(1)
    _works[name] = work


def _time(name: str, count: int) -> float:
    """Returns the seconds that one execution takes, of so many."""
    started = time.perf_counter()
    _works[name](count)
    return (time.perf_counter() - started) / count


def _clear() -> None:
    _works.clear()


def _summary(error: BaseException) -> str:
    """Returns one line about an error."""
    if isinstance(error, WorkFailed):
        return str(error)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]
