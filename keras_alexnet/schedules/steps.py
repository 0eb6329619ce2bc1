"""Schedules that jump at given points."""

from __future__ import annotations

import dataclasses

from keras_alexnet.errors import UserError
from keras_alexnet.schedules.checks import check_boundaries, check_positive


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
