"""Schedules that stay, rise or fall without steps."""

from __future__ import annotations

import dataclasses
import math

from keras_alexnet.errors import UserError
from keras_alexnet.schedules.checks import check_positive


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
