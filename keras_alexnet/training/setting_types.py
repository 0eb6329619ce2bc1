"""Settings of the type that they are declared with, from JSON or from Python.

The type hints of a dataclass are the only list of its types.
"""

from __future__ import annotations

import functools
import math
import numbers
import types
import typing
from typing import Annotated, Any, Literal, Union

from keras_alexnet.errors import UserError

# The written form of a schedule; a number is one too.
ScheduleText = Annotated[str, "schedule"]

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    ScheduleText: "a number or the text of a schedule",
    tuple[str, ...]: "a list of texts",
    type(None): "null",
}
_WRONG = object()


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """Returns the type of each field of a dataclass."""
    return typing.get_type_hints(cls, include_extras=True)


def conform(name: str, value: Any, hint: Any) -> Any:
    """Returns a setting as a plain value of its declared type.

    Numbers of NumPy become Python's, lists become tuples, and numbers that stand for a
    schedule become its text, so that equal settings are equal values.

    Raises:
        ValueError: The value is of another type.
    """
    converted = _convert(value, hint)
    if converted is _WRONG:
        raise UserError(f"{name} must be {_describe(hint)}. Received: {value!r}")
    return converted


def _convert(value: Any, hint: Any) -> Any:
    """Returns the value as the type asks for it, or `_WRONG`."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        converted = (_convert(value, option) for option in typing.get_args(hint))
        return next((one for one in converted if one is not _WRONG), _WRONG)
    if origin is Literal:
        # True == 1, but is not meant by it.
        choices = typing.get_args(hint)
        same = (one for one in choices if (type(one), one) == (type(value), value))
        return next(same, _WRONG)
    if hint == tuple[str, ...]:
        texts = isinstance(value, (list, tuple)) and all(
            isinstance(text, str) for text in value
        )
        return tuple(value) if texts else _WRONG
    if hint is type(None):
        return value if value is None else _WRONG
    if isinstance(value, bool):
        return value if hint is bool else _WRONG
    if isinstance(value, str):
        return value if hint in (str, ScheduleText) else _WRONG
    if isinstance(value, numbers.Integral) and hint is int:
        return int(value)
    if isinstance(value, numbers.Real) and hint in (float, ScheduleText):
        number = int(value) if isinstance(value, numbers.Integral) else float(value)
        return str(number) if hint == ScheduleText else _as_float(number)
    return _WRONG


def _as_float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _describe(hint: Any) -> str:
    """Says in words what a type allows."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    if origin is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    return _WORDS[hint]
