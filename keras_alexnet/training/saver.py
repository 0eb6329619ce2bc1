"""Saving in the background, so that training need not wait for the disk."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import tensorflow as tf

from keras_alexnet.training.checkpoint import CheckpointStore, snapshot


class Saver:
    """Writes checkpoints while training goes on.

    A write that fails - a full disk, a directory taken away - is reported and does not
    end the training: the last good checkpoint stays, and the next one may succeed.

    Args:
        store: Where they go.
        every_steps: Number of steps between two checkpoints; None for no such rule.
        every_seconds: Time between two checkpoints; None for no such rule.
        writes: Whether this host writes, or only takes part in what all hosts must do.

    Attributes:
        seconds_waited: How long training has stood still for checkpoints.
        failures: What could not be written, in words, in order.
    """

    def __init__(
        self,
        store: CheckpointStore,
        every_steps: int | None = None,
        every_seconds: float | None = None,
        writes: bool = True,
    ):
        self.store = store
        self.every_steps = every_steps
        self.every_seconds = every_seconds
        self.writes = writes
        self.seconds_waited = 0.0
        self.failures: list[str] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future | None = None
        self._last_time = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Says whether steps or time since the last checkpoint call for another."""
        by_steps = self.every_steps is not None and step % self.every_steps == 0
        elapsed = time.monotonic() - self._last_time
        by_time = self.every_seconds is not None and elapsed >= self.every_seconds
        return by_steps or (by_time and not self._is_writing())

    def save(
        self,
        step: int,
        model: keras.Model,
        record: dict[str, Any],
        best_step: int | None = None,
    ) -> None:
        """Takes a model's state and has it written, with JSON values.

        Waits for the checkpoint before it, so that at most one copy is in memory.
        """
        begin = time.perf_counter()
        self.wait()
        values = snapshot(model)
        if self.writes:
            self._pending = self._thread.submit(
                self._write, step, values, record, best_step
            )
        self._last_time = time.monotonic()
        self.seconds_waited += time.perf_counter() - begin

    def attempt(self, what: str, write: Callable[[], None]) -> bool:
        """Writes something else in the same spirit; says whether it could."""
        try:
            write()
        except OSError as error:
            self._report(what, error)
            return False
        return True

    def wait(self) -> None:
        """Returns when everything has been written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Ends the background thread, after what it has to do."""
        begin = time.perf_counter()
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self.seconds_waited += time.perf_counter() - begin

    def _is_writing(self) -> bool:
        return self._pending is not None and not self._pending.done()

    def _write(
        self,
        step: int,
        values: dict[str, tf.Tensor],
        record: dict[str, Any],
        best_step: int | None,
    ) -> None:
        if self.attempt(
            f"the checkpoint of step {step}",
            lambda: self.store.save(step, values, record),
        ):
            self.attempt(
                "the directory of checkpoints",
                lambda: self.store.prune(step, best_step),
            )

    def _report(self, what: str, error: OSError) -> None:
        failure = f"{what} could not be written: {error.strerror or error}"
        self.failures.append(failure)
        print(f"\nWarning: {failure}.", file=sys.stderr)
