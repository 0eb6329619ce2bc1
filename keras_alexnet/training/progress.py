"""Progress bar and logs that do not make the host wait for the device."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping

import keras
import tensorflow as tf

# Seconds between two looks at the metrics, for each of which the device is waited for.
INTERVAL = 0.2


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras's progress bar, which looks at the metrics a few times a second.

    Where standard output is no terminal it prints one line an epoch.

    Args:
        quiet: Whether to print one line an epoch on a terminal, too.
    """

    def __init__(self, quiet: bool = False):
        super().__init__()
        self._one_line = quiet or not sys.stdout.isatty()
        self._last = 0.0

    def set_params(self, params: dict) -> None:
        """Takes note of the number of epochs and steps."""
        super().set_params({**params, "verbose": 2 if self._one_line else 1})

    def on_train_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        """Shows the metrics, if it is time."""
        self.seen = batch + 1
        now = time.monotonic()
        if not self._one_line and now - self._last >= INTERVAL:
            self._last = now
            super().on_train_batch_end(batch, logs)


class Logs(Mapping):
    """Metrics as numbers, each taken from the device when it is asked for.

    Args:
        tensors: Scalars, by the metrics' names.
    """

    def __init__(self, tensors: Mapping[str, tf.Tensor]):
        self._tensors = tensors

    def __getitem__(self, name: str) -> float:
        return float(self._tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def copy(self) -> dict[str, float]:
        """Returns all of them, as the logs of `fit` are copied."""
        return dict(self)
