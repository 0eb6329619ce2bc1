"""What several commands need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_alexnet.data.dataset import Dataset
    from keras_alexnet.training.run_directory import RunDirectory


def run_dataset(run: RunDirectory) -> Dataset:
    """Opens a run's own images again, in the splits that it was trained with."""
    from keras_alexnet.data.opening import open_dataset

    config = run.config()
    dataset = open_dataset(
        config.data,
        seed=config.seed,
        test_fraction=config.test_fraction,
        validation_fraction=0.0,
        channels=run.preprocessing().channels,
    )
    dataset.check_unchanged(run.read_json("data.json")["fingerprint"])
    return dataset
