"""Trials of a search: what was tried and what came of it, read from its directory."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras_tuner
from keras_tuner.engine.trial import Trial as Assignment
from keras_tuner.engine.trial import TrialStatus

from keras_alexnet.errors import UserError
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.tuning.space import SearchSpace


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


# === Reading ===


def read_trials(
    oracle: keras_tuner.Oracle,
    space: SearchSpace,
    config: TrainConfig,
    run_dir: Path,
) -> list[Trial]:
    """Returns the trials of a search, in the order in which they began.

    The rounds of Hyperband that continue a trial belong to it.

    Args:
        oracle: Knows what was tried.
        space: What was searched.
        config: What the search varies.
        run_dir: The search's directory.
    """
    rounds: dict[str, list[Assignment]] = {}
    for name in list(oracle.start_order):
        assignment = oracle.trials[name]
        first = first_round(oracle.get_trial, assignment)
        rounds.setdefault(first, []).append(assignment)
    return [
        _trial(name, assignments, oracle.objective.name, space, config, run_dir)
        for name, assignments in rounds.items()
    ]


def _trial(
    name: str,
    rounds: Sequence[Assignment],
    objective: str,
    space: SearchSpace,
    config: TrainConfig,
    run_dir: Path,
) -> Trial:
    """Returns a trial, from its rounds and its run."""
    last = rounds[-1]
    hp = rounds[0].hyperparameters.copy()
    try:
        values, config = space.configure(hp, config)
    except UserError:  # It has failed for that reason.
        values = {k: v for k, v in hp.values.items() if not k.startswith("tuner/")}
    history = read_history(run_dir / "trials" / name)
    known = {TrialStatus.RUNNING: "running", TrialStatus.COMPLETED: "completed"}
    status, error = known.get(last.status, "failed"), None
    if status == "completed" and len(history) < config.epochs:
        status = "stopped"
    if status == "failed":
        error = read_error(run_dir, last.trial_id)["error"]
    scored = [one for one in rounds if one.status == TrialStatus.COMPLETED]
    row = history[-1] if scored and history else {}
    return Trial(
        name=name,
        values=values,
        config=config,
        status=status,
        objective=_last(scored[-1], objective) if scored else None,
        metrics={
            column.removeprefix("val_"): value
            for column, value in row.items()
            if column.startswith("val_")
        },
        history=tuple(history),
        seconds=sum(_last(one, "seconds") for one in scored),
        error=error,
    )


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


def read_history(run_dir: Path) -> list[dict[str, float]]:
    """Reads a run's history.csv, one row per epoch; empty where there is none yet."""
    try:
        with open(run_dir / "history.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return []
    kinds = {"epoch": int, "step": int}
    return [
        {name: kinds.get(name, float)(text) for name, text in row.items() if text}
        for row in rows
    ]


def _last(assignment: Assignment, metric: str) -> float:
    """Returns what was last reported of a metric."""
    history = assignment.metrics.get_history(metric)
    # Reported twice by a search that was killed between the two.
    return float(history[-1].value[-1])
