"""The trials of a search, read from its directory."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial as Assignment
from keras_tuner.engine.trial import TrialStatus

from keras_alexnet.training.config import TrainConfig
from keras_alexnet.tuning.space import SearchSpace
from keras_alexnet.tuning.trials import Trial


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
        rounds.setdefault(first_round(oracle.get_trial, assignment), []).append(
            assignment
        )
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
    except ValueError:  # It has failed for that reason.
        values = {k: v for k, v in hp.values.items() if not k.startswith("tuner/")}
    history = read_history(run_dir / "trials" / name)
    status = {TrialStatus.RUNNING: "running", TrialStatus.COMPLETED: "completed"}.get(
        last.status, "failed"
    )
    if status == "completed" and len(history) < config.epochs:
        status = "stopped"
    scored = [one for one in rounds if one.status == TrialStatus.COMPLETED]
    error = read_error(run_dir, last.trial_id) if status == "failed" else None
    return Trial(
        name=name,
        values=values,
        config=config,
        status=status,
        objective=_last(scored[-1], objective) if scored else None,
        metrics=_metrics(run_dir / "trials" / name, history) if scored else {},
        history=tuple(history),
        seconds=sum(_last(one, "seconds") for one in scored),
        error=error and error["error"],
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
    return [
        {name: _number(name, text) for name, text in row.items() if text}
        for row in rows
    ]


def _number(name: str, text: str) -> float:
    return int(text) if name in ("epoch", "step") else float(text)


def _metrics(run_dir: Path, history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns a run's metrics after its last epoch."""
    try:
        result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
        return result["metrics"]
    except OSError:  # Not of all epochs.
        row = history[-1] if history else {}
        return {
            name.removeprefix("val_"): value
            for name, value in row.items()
            if name.startswith("val_")
        }


def _last(assignment: Assignment, metric: str) -> float:
    """Returns what was last reported of a metric."""
    history = assignment.metrics.get_history(metric)
    # Reported twice by a search that was killed between the two.
    return float(history[-1].value[-1])
