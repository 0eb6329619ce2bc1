"""Experiment trackers, each by its own Keras callback: Weights & Biases, MLflow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_alexnet.errors import UserError, check_packages, unknown
from keras_alexnet.training.config import TrainConfig

TRACKERS = ("wandb", "mlflow")


def check_trackers(names: Sequence[str]) -> None:
    """Raises a ValueError if a tracker is unknown or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise UserError(unknown(name, "tracker", TRACKERS))
        check_packages(name, name)


def begin(
    names: Sequence[str], config: TrainConfig, run_dir: Path
) -> list[keras.callbacks.Callback]:
    """Begins a run in each tracker, and returns what logs the epochs to it.

    Where to, and as whom, is the tracker's own matter: its environment variables say.
    """
    settings = dataclasses.asdict(config)
    callbacks: list[keras.callbacks.Callback] = []
    if "wandb" in names:
        import wandb
        from wandb.integration.keras import WandbMetricsLogger

        wandb.init(name=run_dir.name, config=settings)
        callbacks.append(WandbMetricsLogger())
    if "mlflow" in names:
        import mlflow
        from mlflow.tensorflow import MlflowCallback

        mlflow.start_run(run_name=run_dir.name)
        mlflow.log_params(settings)
        callbacks.append(MlflowCallback())
    return callbacks
