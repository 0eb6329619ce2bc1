"""What a search may choose from: ranges of numbers, and lists of values."""

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
        if self.low >= self.high:
            raise UserError(
                f"low must be below high. Received: low={self.low}, high={self.high}"
            )
        if self.log and self.low <= 0:
            raise UserError(f"low must be positive with log. Received: {self.low}")
        if self.whole and not all(
            float(value).is_integer() for value in (self.low, self.high)
        ):
            raise UserError(
                "low and high must be whole numbers with whole. "
                f"Received: low={self.low}, high={self.high}"
            )

    @property
    def middle(self) -> float:
        """The middle: geometric where equal factors are equally likely."""
        if self.log:
            # The digits beyond are rounding errors of the logarithms.
            middle = float(f"{math.sqrt(self.low * self.high):.12g}")
        else:
            middle = float(f"{(self.low + self.high) / 2:.12g}")
        return round(middle) if self.whole else middle

    @property
    def corners(self) -> tuple[Value, ...]:
        """The values at which a mistake in the range would show."""
        ends = (self.low, self.high)
        return tuple(int(end) if self.whole else float(end) for end in ends)

    def declare(self, hp: keras_tuner.HyperParameters, name: str) -> Value | None:
        """Declares the parameter, and returns its value, None where it is inactive."""
        return (hp.Int if self.whole else hp.Float)(
            name,
            *self.corners,
            sampling="log" if self.log else "linear",
            default=self.middle,
        )


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values.

    Attributes:
        values: The values, all of one type, none of them twice.
        default: The one to begin with; the first by default.
    """

    values: tuple[Value, ...]
    default: Value | None = None

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
        if self.default is None:
            object.__setattr__(self, "default", self.values[0])
        if self.default not in self.values:
            raise UserError(
                f"The default {self.default!r} is none of {list(self.values)}."
            )

    @property
    def middle(self) -> Value:
        """The default."""
        return self.default

    @property
    def corners(self) -> tuple[Value, ...]:
        """All values."""
        return self.values

    def declare(self, hp: keras_tuner.HyperParameters, name: str) -> Value | None:
        """Declares the parameter, and returns its value, None where it is inactive."""
        value = hp.Choice(name, list(self.values), default=self.default)
        # Keras Tuner keeps truth values as numbers.
        return None if value is None else type(self.default)(value)


Parameter = Range | Choice


def read_parameter(name: str, written: Any) -> Parameter:
    """Makes a parameter from JSON: a list of values, or the attributes of a range.

    Args:
        name: The parameter's name, for messages.
        written: Such as `["lrn", "none"]` or `{"low": 1, "high": 9, "whole": true}`.

    Raises:
        ValueError: It is neither, or the parameter makes no sense.
    """
    try:
        if isinstance(written, (Range, Choice)):
            return written
        if isinstance(written, (list, tuple)):
            return Choice(tuple(written))
        if not isinstance(written, Mapping):
            raise UserError(
                "a parameter is a list of values, or a range such as "
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
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def written(parameter: Parameter) -> Any:
    """Returns a parameter as JSON values, which `read_parameter` reads."""
    if isinstance(parameter, Choice):
        return list(parameter.values)
    return dataclasses.asdict(parameter)
