"""The schedules of the 2012 program (its `lr.cu`), under the names that it gave them.

They came after the paper's network, whose rate was lowered by hand, and became the
standard of cuda-convnet2. Its `linear` is `Linear(value, target_factor=...)`; its
optional noise is left out.
"""

from __future__ import annotations

import dataclasses
import math

from keras_alexnet.schedules.checks import check_count, check_positive


@dataclasses.dataclass(frozen=True)
class Exp:
    """An exponential curve: the value times target_factor^-progress.

    Attributes:
        value: The value at the start.
        target_factor: What the value is divided by in the course of the run.
    """

    value: float
    target_factor: float

    def __post_init__(self):
        check_positive("target_factor", self.target_factor)

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        return self.value * self.target_factor**-progress


@dataclasses.dataclass(frozen=True)
class Dexp:
    """Equally long levels, each lower than the one before by the same factor.

    Level i of N is the value times target_factor^(-i / (N - 1)) and lasts while
    progress <= (i + 1) / N.

    Attributes:
        value: The first level.
        target_factor: What the last level is smaller by; the default is that of
            cuda-convnet2's network (0.01, 0.0016, 0.00025, 0.00004).
        levels: How many levels there are, at least 2 (the program's `numSteps`).
    """

    value: float
    target_factor: float = 250.0
    levels: int = 4

    def __post_init__(self):
        check_positive("target_factor", self.target_factor)
        check_count("levels", self.levels, 2)

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        return self._height(self._level(progress))

    def _level(self, progress: float) -> int:
        for level in range(self.levels):
            if progress <= (level + 1) / self.levels:
                return level
        return self.levels - 1

    def _height(self, level: int) -> float:
        return self.value * self.target_factor ** (-level / (self.levels - 1))


@dataclasses.dataclass(frozen=True)
class Jdexp(Dexp):
    """`Dexp` that jumps half-way back up in the second half of its levels.

    The value of all levels but the first is, in their second half and while progress is
    between 0.2 and 0.9, the geometric mean of the level's and that of the one before.
    """

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        level = self._level(progress)
        second_half = progress > (level + 0.5) / self.levels
        if level and second_half and 0.2 < progress < 0.9:
            return math.sqrt(self._height(level) * self._height(level - 1))
        return self._height(level)
