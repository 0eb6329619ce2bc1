"""What a trial does besides training: it compares itself, and tells TensorBoard."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from keras_alexnet.tuning.reading import read_history

# With fewer others there is no telling what is usual.
FEWEST_OTHERS = 4


class MedianRule(keras.callbacks.Callback):
    """Stops a run that is worse than most others were at the same epoch.

    The best objective so far is compared with the median of the others' best so far
    (the rule of Google Vizier, Golovin et al. 2017, section 3.2.1, with the best in
    place of the average). Others are the runs in the directories beside this one's.

    Args:
        run_dir: The run's directory.
        objective: A column of history.csv.
        largest: Whether a larger objective is better.
        grace_epochs: How many epochs a run has in any case.
    """

    def __init__(self, run_dir: Path, objective: str, largest: bool, grace_epochs: int):
        super().__init__()
        self.run_dir = run_dir
        self.objective = objective
        self.best = max if largest else min
        self.grace_epochs = grace_epochs
        # Those of a continued run.
        self._values = read_objective(self.run_dir, objective)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Compares."""
        self._values = [*self._values[:epoch], logs[self.objective]]
        if epoch + 1 < self.grace_epochs:
            return
        others = [
            self.best(values[: epoch + 1])
            for path in self.run_dir.parent.iterdir()
            if path.name != self.run_dir.name
            if len(values := read_objective(path, self.objective)) > epoch
        ]
        if len(others) < FEWEST_OTHERS:
            return
        own, median = self.best(self._values), statistics.median(others)
        if own != median and self.best(own, median) == median:
            print(f"\nStopped: {self.objective} {own:.4g}; of the others {median:.4g}.")
            self.model.stop_training = True


class HParams(keras.callbacks.Callback):
    """Writes a trial's hyperparameters where TensorBoard's HParams plugin finds them.

    They stand beside the run's scalars, which are the metrics of the plugin's tables.

    Args:
        run_dir: The run's directory.
        values: The hyperparameters.
    """

    def __init__(self, run_dir: Path, values: Mapping[str, Any]):
        super().__init__()
        self.run_dir = run_dir
        self.values = dict(values)

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Writes them, once for a run."""
        logs_dir, suffix = self.run_dir / "logs", ".hparams"
        if any(logs_dir.glob(f"*{suffix}")):
            return
        writer = tf.summary.create_file_writer(str(logs_dir), filename_suffix=suffix)
        with writer.as_default():
            hparams.hparams(self.values, trial_id=self.run_dir.name)


def read_objective(run_dir: Path, objective: str) -> list[float]:
    """Reads a column of a run's history; empty where there is none yet."""
    return [row[objective] for row in read_history(run_dir) if objective in row]
