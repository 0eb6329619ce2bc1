"""What several commands need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_alexnet.data.examples import Source
    from keras_alexnet.training.run_directory import RunDirectory


def run_source(run: RunDirectory, data: str | None = None) -> Source:
    """Opens a run's own images again, or others."""
    from keras_alexnet.data.sources import open_source

    config = run.config()
    source = open_source(
        data or config.data,
        seed=config.seed,
        test_fraction=config.test_fraction,
        channels=run.preprocessing().channels,
    )
    if data is None:
        source.check_unchanged(run.read_json("data.json")["fingerprint"])
    return source
