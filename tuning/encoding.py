"""Hyperparameters as columns of numbers."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Positive numbers may be told apart by their order of magnitude if they spread over
# this ratio and more.
LOGARITHMIC_FROM = 10.0


@dataclasses.dataclass(frozen=True)
class Column:
    """What trials have tried of one hyperparameter.

    Attributes:
        name: The hyperparameter's name.
        values: Its value in each trial; None where it was not active or is null.
        active: Whether each trial had it, `(trials,)`.
    """

    name: str
    values: tuple[Any, ...]
    active: np.ndarray

    @property
    def choices(self) -> list[Any]:
        """Different values, in ascending order where they are numbers."""
        found = [v for v, on in zip(self.values, self.active, strict=True) if on]
        if self.is_numeric:
            return sorted(set(found))
        # Texts, because values of a search may be lists, which are not hashable.
        return list(dict.fromkeys(map(str, found)))

    @property
    def varies(self) -> bool:
        """Whether trials differ in it, in its value or in having it at all."""
        return len(self.choices) + (not self.active.all()) > 1

    @property
    def is_numeric(self) -> bool:
        """Whether all values are finite numbers."""
        found = [v for v, on in zip(self.values, self.active, strict=True) if on]
        return bool(found) and all(
            isinstance(value, numbers.Real)
            and not isinstance(value, (bool, np.bool_))
            and math.isfinite(value)
            for value in found
        )

    @property
    def is_logarithmic(self) -> bool:
        """Whether its numbers are told apart by their order of magnitude.

        Then they are positive, spread over a decade or more, and more evenly so by
        their logarithms: their median lies nearer to the middle.
        """
        if not self.is_numeric:
            return False
        lowest, highest = self.choices[0], self.choices[-1]
        if lowest <= 0 or highest < LOGARITHMIC_FROM * lowest:
            return False
        found = [v for v, on in zip(self.values, self.active, strict=True) if on]
        return _off_middle(np.log10(found)) < _off_middle(np.array(found, float))

    def numbers(self) -> np.ndarray:
        """Returns numeric values, or their logarithms, with NaN where not active.

        Values that are no numbers become their places among the choices.
        """
        if self.is_numeric:
            transform = math.log10 if self.is_logarithmic else float
        else:
            places = {choice: place for place, choice in enumerate(self.choices)}

            def transform(value: Any) -> float:
                return float(places[str(value)])

        return np.array(
            [
                transform(value) if on else math.nan
                for value, on in zip(self.values, self.active, strict=True)
            ]
        )

    def encoded(self) -> np.ndarray:
        """Returns numbers that a model can learn from, `(trials, width)`.

        A number is one column, with the median where it is not active; anything else
        is a column of zeros and ones for each choice.
        """
        found = self.numbers()
        if not self.is_numeric:
            places = np.arange(len(self.choices))
            return (found[:, None] == places).astype(float)
        return np.where(self.active, found, np.median(found[self.active]))[:, None]


def _off_middle(values: np.ndarray) -> float:
    """Returns how far the median is from the middle, as a fraction of the range."""
    place = (np.median(values) - values.min()) / (values.max() - values.min())
    return abs(float(place) - 0.5)


def columns_of(settings: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Returns a column for each hyperparameter, in the order of first appearance.

    Args:
        settings: The active hyperparameters of each trial, by name.
    """
    names = dict.fromkeys(name for values in settings for name in values)
    return [
        Column(
            name,
            tuple(values.get(name) for values in settings),
            np.array([name in values for values in settings]),
        )
        for name in names
    ]
