"""Schedules: pure functions of progress, for the learning rate and for dropout.

A schedule maps progress, the fraction of the whole run that is done (0 at the first
step, 1 at the end), to a value. It knows nothing of steps, epochs or history, so a
continued run passes through the same values as one that never stopped, and a schedule
can be drawn before a run.
"""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Callable

from keras_alexnet.errors import unknown

Schedule = Callable[[float], float]


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
class Step:
    """A value that is multiplied by a factor at given points.

    Attributes:
        value: The value at the start.
        factor: What each boundary multiplies the value by.
        boundaries: Progress at which the value drops, ascending, each in [0, 1].
    """

    value: float
    factor: float = 0.1
    boundaries: tuple[float, ...] = (0.28, 0.57, 0.86)

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        passed = sum(progress >= boundary for boundary in self.boundaries)
        return self.value * self.factor**passed


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
            raise ValueError(f"warmup must be in [0, 1). Received: {self.warmup}")

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        if progress < self.warmup:
            return self.value * progress / self.warmup
        done = (progress - self.warmup) / (1 - self.warmup)
        return self.end + (self.value - self.end) * (1 + math.cos(math.pi * done)) / 2


@dataclasses.dataclass(frozen=True)
class Linear:
    """A straight line from the value to `end`.

    Attributes:
        value: The value at the start.
        end: The value at the end of the run.
    """

    value: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        """Returns the value at `progress`."""
        return self.value + (self.end - self.value) * progress


SCHEDULES = {
    "constant": Constant,
    "step": Step,
    "cosine": Cosine,
    "linear": Linear,
}


def parse_schedule(text: str | float) -> Schedule:
    """Makes a schedule from its written form.

    Args:
        text: A number for a constant, or a kind and its attributes as in a call:
            `"cosine(0.05, end=0.001, warmup=0.1)"`.

    Returns:
        A function of progress.

    Raises:
        ValueError: The text is not of that form, or names an unknown kind or attribute.
    """
    try:
        return Constant(float(text))
    except ValueError:
        pass
    try:
        call = ast.parse(text, mode="eval").body
        kind = call.func.id
        arguments = [ast.literal_eval(value) for value in call.args]
        options = {item.arg: ast.literal_eval(item.value) for item in call.keywords}
    except (SyntaxError, ValueError, AttributeError):
        raise ValueError(
            "A schedule is a number or a call, such as 'cosine(0.05, end=0.001)'. "
            f"Received: {text!r}"
        ) from None
    if kind not in SCHEDULES:
        raise ValueError(unknown(kind, "schedule", SCHEDULES))
    schedule = SCHEDULES[kind]
    known = [field.name for field in dataclasses.fields(schedule)]
    for option in options:
        if option not in known:
            raise ValueError(unknown(str(option), f"attribute of {kind}", known))
    try:
        made = schedule(*arguments, **options)
        # Attributes of a wrong type show when a value is asked for: not in mid-run.
        finite = math.isfinite(made(0.0)) and math.isfinite(made(1.0))
    except (TypeError, ArithmeticError) as error:
        raise ValueError(f"Invalid schedule {text!r}: {error}") from None
    if not finite:
        raise ValueError(f"Invalid schedule {text!r}: its values are not finite.")
    return made
