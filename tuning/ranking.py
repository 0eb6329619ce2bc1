"""Which trial is better than which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from keras_alexnet.tuning.trials import Trial

Direction = Literal["min", "max"]


def ranked(trials: Sequence[Trial], direction: Direction) -> list[Trial]:
    """Returns the trials that have a result, the best first.

    Trials that were stopped early come after all that were trained to the end: their
    result is that of a shorter training, and their configuration alone, trained again,
    would not give it.

    Args:
        trials: All trials, in the order in which they were made. That order decides
            between equal results.
        direction: Whether low or high objectives are good.
    """
    sign = {"min": 1, "max": -1}[direction]
    with_result = [trial for trial in trials if has_result(trial)]
    return sorted(
        with_result,
        key=lambda trial: (trial.status != "completed", sign * trial.objective),
    )


def has_result(trial: Trial) -> bool:
    """Says whether a trial has an objective to be judged by."""
    return (
        trial.status in ("completed", "stopped")
        and trial.objective is not None
        and math.isfinite(trial.objective)
    )
