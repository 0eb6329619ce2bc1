"""Trials of a search: what was tried and what came of it, read from its directory."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from keras_tuner.engine.trial import Trial as Assignment

from keras_alexnet.training.config import TrainConfig

# That many different trials in a row with the same error end a search.
SAME_ERRORS = 3


@dataclasses.dataclass(frozen=True)
class Trial:
    """One configuration that a search has tried.

    Attributes:
        name: The tuner's name for it, such as `"0007"`.
        values: The hyperparameters that were active, by name.
        config: What was trained.
        status: `"completed"`, `"stopped"` (by Hyperband, before its last epoch),
            `"failed"` or `"running"`.
        objective: What the search minimises; None where there is none.
        metrics: Loss, top-1 and top-5 error on the validation split after the last
            epoch.
        history: One row per epoch, as in a run's history.csv.
        seconds: How long it took.
        error: What failed, in one line.
    """

    name: str
    values: Mapping[str, Any]
    config: TrainConfig
    status: Literal["completed", "stopped", "failed", "running"]
    objective: float | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    history: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    error: str | None = None

    @property
    def has_result(self) -> bool:
        """Whether there is an objective to rank it by."""
        return (
            self.status in ("completed", "stopped")
            and self.objective is not None
            and math.isfinite(self.objective)
        )


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials that have a result, the best first.

    Trials that were stopped early come after all that were trained to the end: their
    result is that of a shorter training, and their configuration alone, trained again,
    would not give it. Of equal results the first is the better one.
    """
    return sorted(
        (trial for trial in trials if trial.has_result),
        key=lambda trial: (trial.status != "completed", trial.objective),
    )


def line_of(ended: Trial, best_first: Sequence[Trial], objective: str) -> str:
    """Returns what came of a trial, and the best so far, in one line."""
    outcome = {
        "failed": f"failed: {ended.error}",
        "stopped": f"stopped after epoch {len(ended.history)}, ",
    }.get(ended.status, "")
    if ended.has_result:
        best = best_first[0]
        outcome += f"{objective} {ended.objective:.4g}"
        outcome += f" (best {best.objective:.4g}, trial {best.name})"
    seconds = f", {ended.seconds:.0f} s" if ended.seconds else ""
    schedules = f"learning rate {ended.config.learning_rate}, dropout "
    schedules += ", ".join(ended.config.dropout_by_layer) or ended.config.dropout
    return f"trial {ended.name} {outcome}{seconds}; {schedules}"


def repeated_error(errors: Sequence[Mapping[str, Any] | None]) -> Mapping | None:
    """Returns the error that the last trials have in common, if enough of them have.

    Trials that run out of memory say nothing of smaller networks or batches: they end
    no search in which another trial has succeeded.

    Args:
        errors: Of each trial that has ended, in that order; None where it succeeded.
    """
    last = errors[-SAME_ERRORS:]
    if len(last) < SAME_ERRORS or None in last:
        return None
    if None in errors and all(one.get("out_of_memory") for one in last):
        return None
    # The step or the size of something may differ.
    kinds = {re.sub(r"[\d.]+", "#", one["error"]) for one in last}
    return last[-1] if len(kinds) == 1 else None


# === Reading ===


def first_round(get_trial: Callable[[str], Assignment], assignment: Assignment) -> str:
    """Returns the name of the trial that an assignment begins or continues.

    Args:
        get_trial: Returns an assignment by its name.
        assignment: A trial of Keras Tuner's; Hyperband has one for each round.
    """
    while before := assignment.hyperparameters.values.get("tuner/trial_id"):
        assignment = get_trial(before)
    return assignment.trial_id


def read_error(run_dir: Path, name: str) -> dict[str, Any]:
    """Reads why a trial failed."""
    try:
        text = (run_dir / f"trial_{name}" / "error.json").read_text(encoding="utf-8")
        return json.loads(text)
    except (OSError, ValueError):
        return {"error": "It failed for an unknown reason.", "by_user": False}
