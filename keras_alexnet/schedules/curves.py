"""Schedules that are functions of progress alone.

`Exp`, `Dexp` and `Jdexp` have the names that the 2012 program gave them (its `lr.cu`);
its `linear` is `Linear(value, target_factor=...)`, and its optional noise is left out.
They came after the paper's network, whose rate was lowered by hand, and became the
standard of cuda-convnet2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from keras_alexnet.errors import UserError

Schedule = Callable[[float], float]


def check_positive(name: str, value: float) -> None:
    """Raises a ValueError unless a number is positive."""
    if not value > 0:
        raise UserError(f"{name} must be positive. Received: {value}")


def check_count(name: str, value: int, least: int) -> None:
    """Raises a ValueError unless a value is a whole number of at least `least`."""
    if type(value) is not int or value < least:
        raise UserError(
            f"{name} must be a whole number, at least {least}. Received: {value}"
        )


def check_boundaries(boundaries: tuple[float, ...]) -> None:
    """Raises a ValueError unless boundaries ascend within [0, 1]."""
    ascending = all(
        low < high for low, high in zip(boundaries, boundaries[1:], strict=False)
    )
    if not ascending or not all(0 <= boundary <= 1 for boundary in boundaries):
        raise UserError(
            "boundaries are fractions of the run: they must ascend and lie in [0, 1]. "
            f"Received: {boundaries}"
        )


@dataclasses.dataclass(frozen=True)
class Constant:
    """The same value throughout.

    Attributes:
        value: The value.
    """

    value: float

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        return self.value


@dataclasses.dataclass(frozen=True)
class Linear:
    """A straight line from the value to `end`.

    The 2012 program gave the end as a factor instead (`linear[tgtFactor=...]` of its
    `lr.cu`), and so may you.

    Attributes:
        value: The value at the start.
        end: The value at the end of the run.
        target_factor: What the value is divided by in the course of the run; sets the
            end, which must then be left out.
    """

    value: float
    end: float = 0.0
    target_factor: float | None = None

    def __post_init__(self):
        if self.target_factor is not None:
            check_positive("target_factor", self.target_factor)
            if self.end:
                raise UserError(
                    "Either end or target_factor says where the line ends. "
                    f"Received: end={self.end}, target_factor={self.target_factor}"
                )

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        end = self.value / self.target_factor if self.target_factor else self.end
        return self.value + (end - self.value) * progress


@dataclasses.dataclass(frozen=True)
class Exponential:
    """An exponential curve from the value to `end`: equal factors in equal times.

    Attributes:
        value: The value at the start, positive.
        end: The value at the end of the run, positive.
    """

    value: float
    end: float

    def __post_init__(self):
        check_positive("value", self.value)
        check_positive("end", self.end)

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        return self.value * (self.end / self.value) ** progress


@dataclasses.dataclass(frozen=True)
class Cosine:
    """A linear rise from zero, then half a cosine from the value down to `end`.

    Attributes:
        value: The value at the end of the warm-up.
        end: The value at the end of the run.
        warmup: Fraction of the run that the rise takes, in [0, 1).
    """

    value: float
    end: float = 0.0
    warmup: float = 0.0

    def __post_init__(self):
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup must be in [0, 1). Received: {self.warmup}")

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        if progress < self.warmup:
            return self.value * progress / self.warmup
        done = (progress - self.warmup) / (1 - self.warmup)
        return self.end + (self.value - self.end) * (1 + math.cos(math.pi * done)) / 2


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """A dropout rate that rises from zero to its value, fast at first.

    Curriculum dropout (Morerio et al. 2017, section 3): units are kept with probability

        theta(t) = (1 - theta_bar) * exp(-gamma * t) + theta_bar

    where theta_bar is 1 minus the value, so that the network learns its first, easy
    lessons with all of its units.

    Attributes:
        value: The dropout rate that is approached, in [0, 1).
        gamma: How fast, per run: at the default of 10, 99 % of the value are reached
            before half of the run.
    """

    value: float
    gamma: float = 10.0

    def __post_init__(self):
        if not 0 <= self.value < 1:
            raise UserError(f"value must be in [0, 1). Received: {self.value}")
        check_positive("gamma", self.gamma)

    def __call__(self, progress: float) -> float:
        """Returns the dropout rate at `progress`."""
        return self.value * -math.expm1(-self.gamma * progress)


@dataclasses.dataclass(frozen=True)
class Step:
    """A value that is multiplied by a factor at given points.

    Attributes:
        value: The value at the start.
        factor: What each boundary multiplies the value by, positive.
        boundaries: Progress at which the value drops, ascending, each in [0, 1].
    """

    value: float
    factor: float = 0.1
    boundaries: tuple[float, ...] = (0.28, 0.57, 0.86)

    def __post_init__(self):
        object.__setattr__(self, "boundaries", tuple(self.boundaries))
        check_positive("factor", self.factor)
        check_boundaries(self.boundaries)

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        passed = sum(progress >= boundary for boundary in self.boundaries)
        return self.value * self.factor**passed


@dataclasses.dataclass(frozen=True)
class Piecewise:
    """Any values, one after the other.

    Attributes:
        values: The value before the first boundary, and one from each boundary on.
        boundaries: Progress at which the next value begins, ascending, each in [0, 1].
    """

    values: tuple[float, ...]
    boundaries: tuple[float, ...]

    def __post_init__(self):
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "boundaries", tuple(self.boundaries))
        check_boundaries(self.boundaries)
        if len(self.values) != len(self.boundaries) + 1:
            raise UserError(
                "piecewise needs one value more than boundaries. "
                f"Received: {len(self.values)} values, "
                f"{len(self.boundaries)} boundaries"
            )

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        return self.values[sum(progress >= boundary for boundary in self.boundaries)]


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
