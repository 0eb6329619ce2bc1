"""What several commands need."""

from __future__ import annotations

import sys

from rich.console import Console

from keras_alexnet.data.sources import Source, open_source
from keras_alexnet.training.run_directory import RunDirectory

# In a file or a pipe there is no width to fit.
console = Console(width=None if sys.stdout.isatty() else 160)


def run_source(run: RunDirectory, data: str | None = None) -> Source:
    """Opens a run's own images again, or others."""
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
