"""Schedules: pure functions of progress, for rates, their factors and colour noise.

A schedule maps progress, the fraction of the whole run that is done (0 at the first
step, 1 at the end), to a value. It knows nothing of steps, epochs or history, so a
continued run passes through the same values as one that never stopped, and a schedule
can be drawn before a run. The one that must know how training went, `Plateau`, is a
function of the validation history, which every checkpoint holds.
"""

from keras_alexnet.schedules.curves import (
    Constant,
    Cosine,
    Curriculum,
    Dexp,
    Exp,
    Exponential,
    Jdexp,
    Linear,
    Piecewise,
    Schedule,
    Step,
)
from keras_alexnet.schedules.parsing import SCHEDULES, parse_schedule, per_epoch
from keras_alexnet.schedules.plateau import Plateau

__all__ = [
    "SCHEDULES",
    "Constant",
    "Cosine",
    "Curriculum",
    "Dexp",
    "Exp",
    "Exponential",
    "Jdexp",
    "Linear",
    "Piecewise",
    "Plateau",
    "Schedule",
    "Step",
    "parse_schedule",
    "per_epoch",
]
