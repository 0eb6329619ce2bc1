"""The learning rate of the 2012 paper, lowered when the validation error stalls."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from keras_alexnet.errors import UserError
from keras_alexnet.schedules.curves import check_count


@dataclasses.dataclass(frozen=True)
class Plateau:
    """A value that drops when the validation error stops falling.

    Paper section 5: divided by ten whenever the validation error no longer fell, three
    times before the end.

    What it remembers is the validation history and nothing else: `after` replays all
    of it, so a continued run goes on with the value that it stopped with. Once the
    drops are used up nothing more happens; the run ends at its last epoch.

    Attributes:
        value: The value at the start.
        factor: What each drop multiplies the value by, in (0, 1).
        patience: Epochs in a row without a new lowest error that bring a drop. The
            count begins again after a drop.
        drops: How many drops there are at most.
        min_delta: How much lower an error must be than the lowest so far to count as
            new, in units of the error.
        monitor: The column of the history (history.csv) that is watched.
    """

    value: float
    factor: float = 0.1
    patience: int = 5
    drops: int = 3
    min_delta: float = 0.001
    monitor: str = "val_top1_error"

    def __post_init__(self):
        if not 0 < self.factor < 1:
            raise UserError(f"factor must be in (0, 1). Received: {self.factor}")
        check_count("patience", self.patience, 1)
        check_count("drops", self.drops, 1)
        if not self.min_delta >= 0:
            raise UserError(
                f"min_delta must not be negative. Received: {self.min_delta}"
            )
        if not isinstance(self.monitor, str):
            raise UserError(
                f"monitor must be the name of a column. Received: {self.monitor!r}"
            )

    def __call__(self, progress: float) -> float:
        """Returns the value at the start: any other depends on the validation."""
        return self.value

    def after(self, errors: Sequence[float]) -> float:
        """Returns the value for the epoch that follows.

        Args:
            errors: The validation error after each epoch so far, in order. One that is
                not a number counts as no improvement.
        """
        lowest = float("inf")
        waited = drops = 0
        for error in errors:
            if error < lowest - self.min_delta:
                lowest = error
                waited = 0
                continue
            waited += 1
            if waited == self.patience and drops < self.drops:
                drops += 1
                waited = 0
        return self.value * self.factor**drops

    def lowest(self, progress: float, epochs: int | None = None) -> float:
        """Returns the lowest value that the validation may have led to.

        Args:
            progress: The fraction of the run that is done.
            epochs: Length of the run. None where it is unknown: any number of epochs
                may be over once the run has begun.
        """
        if epochs is None:
            return self.value * self.factor ** (self.drops if progress > 0 else 0)
        # Whole epochs, in spite of rounding.
        return self.after((1.0,) * math.floor(progress * epochs + 1e-9))
