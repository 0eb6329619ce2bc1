"""Schedules from their written form, and as one value per epoch."""

from __future__ import annotations

import ast
import dataclasses
import math

from keras_alexnet.errors import UserError, unknown
from keras_alexnet.schedules import curves
from keras_alexnet.schedules.curves import Constant, Schedule
from keras_alexnet.schedules.plateau import Plateau

SCHEDULES = {
    kind.__name__.lower(): kind
    for kind in (
        *(Constant, curves.Step, curves.Piecewise, curves.Linear, curves.Exponential),
        *(curves.Cosine, curves.Exp, curves.Dexp, curves.Jdexp, Plateau),
        curves.Curriculum,
    )
}


def parse_schedule(text: str | float) -> Schedule:
    """Makes a schedule from its written form.

    Args:
        text: A number for a constant, or a kind and its attributes as in a call:
            `"cosine(0.05, end=0.001, warmup=0.1)"`.

    Returns:
        A function of progress.

    Raises:
        ValueError: The text is not of that form, names an unknown kind or attribute, or
            an attribute has a value that it cannot have.
    """
    try:
        return Constant(float(text))
    except ValueError:
        pass
    try:
        call = ast.parse(text.strip(), mode="eval").body
        kind = call.func.id
        arguments = [ast.literal_eval(value) for value in call.args]
        options = {item.arg: ast.literal_eval(item.value) for item in call.keywords}
    except (SyntaxError, ValueError, AttributeError, RecursionError, MemoryError):
        raise UserError(
            "A schedule is a number or a call, such as 'cosine(0.05, end=0.001)'. "
            f"Received: {text!r}"
        ) from None
    if kind not in SCHEDULES:
        raise UserError(unknown(kind, "schedule", SCHEDULES))
    schedule = SCHEDULES[kind]
    known = [field.name for field in dataclasses.fields(schedule)]
    for option in options:
        if option not in known:
            raise UserError(unknown(str(option), f"attribute of {kind}", known))
    try:
        made = schedule(*arguments, **options)
        # Attributes of a wrong type show when a value is asked for: not in mid-run.
        points = (0.0, *getattr(made, "boundaries", ()), 1.0)
        finite = all(math.isfinite(made(point)) for point in points)
    except (TypeError, ArithmeticError) as error:
        raise UserError(f"Invalid schedule {text!r}: {error}") from None
    if not finite:
        raise UserError(f"Invalid schedule {text!r}: its values are not finite.")
    return made


def per_epoch(schedule: Schedule, epochs: int) -> tuple[float, ...]:
    """Returns the value with which each epoch of a run begins.

    Args:
        schedule: A function of progress.
        epochs: Length of the run.
    """
    return tuple(schedule(epoch / epochs) for epoch in range(epochs))
