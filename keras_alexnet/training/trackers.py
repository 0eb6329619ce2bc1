"""Experiment trackers, each by its own Keras callback: Weights & Biases, MLflow."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras

from keras_alexnet.errors import UserError
from keras_alexnet.training.config import TrainConfig


def trackers(
    config: TrainConfig, run_dir: str | Path, wandb: bool = False, mlflow: bool = False
) -> list[keras.callbacks.Callback]:
    """Begins a run in each tracker, and returns what logs the epochs to it.

    Where to, and as whom, is the tracker's own matter: its environment variables say.

    Raises:
        ValueError: A tracker is not installed.
    """
    name, settings = Path(run_dir).name, dataclasses.asdict(config)
    callbacks: list[keras.callbacks.Callback] = []
    try:
        if wandb:
            from wandb import init
            from wandb.integration.keras import WandbMetricsLogger

            init(name=name, config=settings)
            callbacks.append(WandbMetricsLogger())
        if mlflow:
            from mlflow import log_params, start_run
            from mlflow.tensorflow import MlflowCallback

            start_run(run_name=name)
            log_params(settings)
            callbacks.append(MlflowCallback())
    except ModuleNotFoundError as error:
        if error.name not in ("wandb", "mlflow"):
            raise
        raise UserError(
            f'{error.name} is not installed: pip install "keras-alexnet[{error.name}]"'
        ) from None
    return callbacks
