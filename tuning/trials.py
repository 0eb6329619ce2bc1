"""A trial of a search, as a value: what was tried and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from keras_alexnet.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Trial:
    """One configuration that a search has tried.

    Attributes:
        name: The tuner's name for it, such as `"0007"`.
        values: The hyperparameters that were active, by name.
        config: What was trained.
        status: `"completed"`, `"stopped"` (early, by a rule), `"failed"`, `"running"`.
        objective: What the search minimises or maximises; None where there is none.
        metrics: Loss, top-1 and top-5 error on the test images after the last epoch.
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
