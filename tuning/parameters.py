"""Hyperparameters of a search: ranges and choices, and those that presets search.

The values of the 2012 system lie in the middle of the usual ranges; in the geometric
middle where equal factors are equally likely.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner

from keras_alexnet.errors import UserError, unknown

# What Keras Tuner takes as a value, and what a configuration file can hold.
Value = bool | int | float | str
# The parameter that must have a value for another one to count, and the value.
Needed = tuple[str, Value] | None


def _condition(needed: Needed) -> dict[str, Any]:
    """Returns arguments of Keras Tuner's hyperparameters."""
    return dict(parent_name=needed[0], parent_values=[needed[1]]) if needed else {}


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers between two.

    Attributes:
        low: The lowest.
        high: The highest.
        log: Whether equal factors, rather than equal differences, are equally likely.
        whole: Whether only whole numbers count.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise UserError(f"{name} must be a finite number. Received: {value!r}")
        received = f"Received: low={self.low}, high={self.high}"
        if self.low >= self.high:
            raise UserError(f"low must be below high. {received}")
        if self.log and self.low <= 0:
            raise UserError(f"low must be positive with log. {received}")
        if self.whole and not all(float(end).is_integer() for end in self.corners):
            raise UserError(
                f"low and high must be whole numbers with whole. {received}"
            )

    @property
    def middle(self) -> float:
        """The middle: geometric where equal factors are equally likely."""
        middle = (self.low + self.high) / 2
        if self.log:
            middle = math.sqrt(self.low * self.high)
        # The digits beyond are rounding errors of the logarithms.
        return round(middle) if self.whole else float(f"{middle:.12g}")

    @property
    def corners(self) -> tuple[float, float]:
        """The values at which a mistake in the range would show."""
        return self.low, self.high

    def declare(
        self, hp: keras_tuner.HyperParameters, name: str, needed: Needed = None
    ) -> Value | None:
        """Declares the parameter, and returns its value, None where it is inactive."""
        kind, number = (hp.Int, int) if self.whole else (hp.Float, float)
        sampling = "log" if self.log else "linear"
        ends = map(number, self.corners)
        options = {"sampling": sampling, "default": self.middle}
        return kind(name, *ends, **options, **_condition(needed))


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values.

    Attributes:
        values: The values, all of one type, none of them twice; the usual one first.
    """

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.values, Sequence) or isinstance(self.values, str):
            raise UserError(f"A choice is a list of values. Received: {self.values!r}")
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values:
            raise UserError("There is nothing to choose from: the list is empty.")
        types = {type(value) for value in self.values}
        if len(types) > 1 or not types <= {bool, int, float, str}:
            raise UserError(
                "A choice is between values of one type: texts, whole numbers, numbers "
                f"or truth values. Received: {list(self.values)}"
            )
        if len(set(self.values)) < len(self.values):
            raise UserError(f"A value is given twice. Received: {list(self.values)}")

    @property
    def middle(self) -> Value:
        """The usual value."""
        return self.values[0]

    @property
    def corners(self) -> tuple[Value, ...]:
        """All values."""
        return self.values

    def declare(
        self, hp: keras_tuner.HyperParameters, name: str, needed: Needed = None
    ) -> Value | None:
        """Declares the parameter, and returns its value, None where it is inactive."""
        # A Bayesian search takes numbers that stand beside each other for near.
        options = {"default": self.middle, **_condition(needed)}
        value = hp.Choice(name, sorted(self.values), **options)
        # Keras Tuner keeps truth values as numbers.
        return None if value is None else type(self.middle)(value)


Parameter = Range | Choice


def read_parameter(name: str, written: Any) -> Parameter | Value:
    """Makes a parameter from JSON.

    Args:
        name: The parameter's name, for messages.
        written: A list of values, such as `["lrn", "none"]`; a range, such as
            `{"low": 1, "high": 9, "whole": true}`; or one value, which is fixed.

    Raises:
        UserError: It is none of these, or the parameter makes no sense.
    """
    try:
        if isinstance(written, (Range, Choice, bool, int, float, str)):
            return written
        if isinstance(written, (list, tuple)):
            return Choice(tuple(written))
        if not isinstance(written, Mapping):
            raise UserError(
                "a parameter is a value, a list of values, or a range such as "
                f'{{"low": 0.001, "high": 0.1, "log": true}}. Received: {written!r}'
            )
        known = [field.name for field in dataclasses.fields(Range)]
        for key in written:
            if key not in known:
                raise UserError(unknown(str(key), "attribute of a range", known))
        for key in ("low", "high"):
            if key not in written:
                raise UserError(f"the range has no {key}. Received: {dict(written)}")
        return Range(**written)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


# === Presets ===

# A parameter called KIND.NAME counts for that kind only.
LEARNING_RATE: Mapping[str, Parameter] = {
    "kind": Choice(
        ("step", "constant", "exponential", "dexp", "linear", "cosine", "plateau")
    ),
    # The rate of 2012 for batches of 128 is 0.01.
    "value": Range(0.001, 0.1, log=True),
    # Divided by ten, three times (paper section 5). The boundaries are evenly spaced:
    # drops at 2/7, 4/7 and 6/7 of the run come close to those of the logged run.
    "step.factor": Range(0.03, 1 / 3, log=True),
    "step.drops": Range(1, 5, whole=True),
    # By how much the rate falls in the course of the run: 250 in cuda-convnet2.
    "exponential.fall": Range(25.0, 2500.0, log=True),
    "dexp.fall": Range(25.0, 2500.0, log=True),
    "dexp.levels": Range(3, 5, whole=True),
    # Ours: the end as a part of the start, and the recipe digits's warm-up.
    "linear.end": Range(0.0, 0.2),
    "cosine.warmup": Range(0.0, 0.1),
    # Our stand-in for the drops by hand. Its patience is a fraction of the run: 5 of 90
    # epochs.
    "plateau.factor": Range(0.03, 1 / 3, log=True),
    "plateau.patience": Range(0.02, 0.15, log=True),
}
# Of half of the units, says the paper; 10 is the curriculum's own default. How far a
# schedule falls, or rises, no source says.
DROPOUT: Mapping[str, Parameter] = {
    "kind": Choice(("constant", "linear", "step", "cosine", "curriculum")),
    "value": Range(0.2, 0.8),
    "linear.end": Range(0.0, 0.8),
    "step.factor": Range(0.25, 0.75),
    "step.boundary": Range(0.3, 0.9),
    "cosine.end": Range(0.0, 0.8),
    "curriculum.gamma": Range(2.5, 40.0, log=True),
}
SCHEDULES: Mapping[str, Parameter] = {
    **{f"learning_rate.{name}": one for name, one in LEARNING_RATE.items()},
    **{f"dropout.{name}": one for name, one in DROPOUT.items()},
}
RECIPE: Mapping[str, Parameter] = {
    **SCHEDULES,
    "momentum": Range(0.82, 0.98),
    "weight_decay": Range(5e-5, 5e-3, log=True),
    "global_batch_size": Choice((128, 32, 64, 256, 512)),
    # What crop_padding, rotation, zoom and color_noise are multiplied by.
    "augmentation_magnitude": Range(0.0, 2.0),
}
EVERYTHING: Mapping[str, Parameter] = {
    **RECIPE,
    "norm": Choice(("default", "batch_normalization", "none")),
    "groups": Choice((2, 1)),
    "width": Range(0.5, 2.0, log=True),
}
PRESETS: Mapping[str, Mapping[str, Parameter]] = {
    "schedules": SCHEDULES,
    "recipe": RECIPE,
    "everything": EVERYTHING,
}
