"""Damaged images during training: written down as they are found, stopped by many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras

from keras_alexnet.data.dataset import Dataset


class DamageReport(keras.callbacks.Callback):
    """Writes the names of damaged images to a file, and raises when there are many.

    Works in `fit` and in `loop.run`.

    Args:
        source: The images.
        path: The CSV file to write, once there is something to say.
        max_skipped: The largest share of the images that may be damaged.
        attempt: Carries out a write, called as `attempt(what, write)`; may pass over
            one that fails.
    """

    def __init__(
        self,
        source: Dataset,
        path: Path,
        max_skipped: float,
        attempt: Callable[[str, Callable[[], None]], object],
    ):
        super().__init__()
        self.attempt = attempt
        self.source = source
        self.path = path
        self.max_skipped = max_skipped
        self._written = 0

    def update(self) -> None:
        """Writes what has been found since, and checks how much it is.

        Raises:
            ValueError: It is more than `max_skipped`.
        """
        found = len(self.source.skipped)
        if found > self._written:
            self.attempt(self.path.name, lambda: self.source.skipped.write(self.path))
            self._written = found
            self.source.skipped.check(self.source.total, self.max_skipped)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks after every step, which costs nothing where nothing is found."""
        self.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Looks after validation too."""
        self.update()
