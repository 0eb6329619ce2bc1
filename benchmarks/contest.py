"""Who takes part in a comparison, and who cannot."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator

import numpy as np

from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.timing import in_turn
from keras_alexnet.errors import UserError

Candidate = Callable[[], object]

# Of the largest output: rounding alone stays under it.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05}


class Contest:
    """Candidates of one comparison, timed in turn.

    Attributes:
        candidates: What is timed, by name; each returns when its work is done.
        skipped: Why others are not, by name.
    """

    def __init__(self, options: Options):
        self.options = options
        self.candidates: dict[str, Candidate] = {}
        self.skipped: dict[str, str] = {}

    def enter(self, name: str, candidate: Candidate) -> None:
        """Adds a candidate, and runs it once, to warm up."""
        candidate()
        self.candidates[name] = candidate

    def invite(self, name: str, prepare: Callable[[], Candidate]) -> None:
        """Adds a peer if the user wants it and it works; says so where it does not.

        Args:
            name: Of the peer, and its mode.
            prepare: Makes the candidate.
        """
        patterns = self.options.candidates
        if patterns and not any(fnmatch.fnmatch(name, one) for one in patterns):
            return
        with self.optional(name):
            self.enter(name, prepare())

    @contextlib.contextmanager
    def optional(self, name: str) -> Iterator[None]:
        """Turns any failure inside into one line, and goes on."""
        try:
            yield
        # A peer is not ours: it may raise anything.
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.skipped[name] = lines[0]
            print(f"{name} is left out: {lines[0]}", flush=True)

    def run(self) -> dict[str, list[float]]:
        """Returns the seconds of each repetition, by candidate."""
        return in_turn(self.candidates, self.options.repetitions, warm_up=0)


def check_outputs(outputs: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    """Makes sure that a peer computes what we do.

    Args:
        outputs: The peer's.
        expected: Ours, in float32.
        dtype: `"float32"` or `"bfloat16"`: what the peer computes in.

    Raises:
        ValueError: They differ by more than rounding.
    """
    difference = np.abs(outputs - expected).max() / np.abs(expected).max()
    if not difference <= TOLERANCES[dtype]:  # NaN is not.
        raise UserError(
            f"its outputs differ from ours by {difference:.1e} of the largest, more "
            f"than {TOLERANCES[dtype]:.0e}"
        )
