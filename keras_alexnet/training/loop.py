"""The loop: one for any number of devices, with Keras's callbacks and progress bar."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_alexnet.layers import ScheduledDropout
from keras_alexnet.schedules import Schedule


class Interrupted(Exception):
    """Training was asked to stop, and did so after finishing its step.

    Attributes:
        signal_number: The signal that asked.
    """

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class ScheduleCallback(keras.callbacks.Callback):
    """Sets the learning rate and the dropout rate before every step.

    Works in `fit` and in `run`. Progress is counted from the optimizer's own number of
    steps, so a restored model goes on where it stopped.

    Args:
        total_steps: Length of the whole run.
        learning_rate: A schedule, or None to leave the optimizer's as it is.
        dropout: A schedule, or None to leave the layers' rates as they are.
    """

    def __init__(
        self,
        total_steps: int,
        learning_rate: Schedule | None = None,
        dropout: Schedule | None = None,
    ):
        super().__init__()
        self.total_steps = total_steps
        self.learning_rate = learning_rate
        self.dropout = dropout
        self._step = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Finds out at which step training begins."""
        self._step = int(self.model.optimizer.iterations.numpy())
        self._dropouts = [
            layer for layer in self.model.layers if isinstance(layer, ScheduledDropout)
        ]

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Sets both for the step that follows."""
        progress = self._step / self.total_steps
        if self.learning_rate is not None:
            self.model.optimizer.learning_rate = self.learning_rate(progress)
        if self.dropout is not None:
            for layer in self._dropouts:
                layer.rate = self.dropout(progress)
        self._step += 1


def epoch_ends(examples: int, batch_size: int, epochs: int) -> list[int]:
    """Returns, for each epoch, the number of steps after which it is over.

    Batches run on from epoch to epoch, so epochs of one run may differ by a step.
    """
    return [-(-(epoch + 1) * examples // batch_size) for epoch in range(epochs)]


def run(
    model: keras.Model,
    batches: tf.data.Dataset,
    *,
    strategy: tf.distribute.Strategy,
    ends: list[int],
    first_step: int = 0,
    callbacks: list[keras.callbacks.Callback] | None = None,
    validate: Callable[[], dict[str, float]] | None = None,
    save: Callable[[int, int, dict[str, Any] | None], None] | None = None,
    prepare: Callable[[Any], Any] | None = None,
) -> tuple[int, float | None]:
    """Trains a compiled model.

    Args:
        model: A model compiled in the strategy's scope, its metrics given as objects.
        batches: Global batches, beginning with that of `first_step`.
        strategy: The devices.
        ends: For each epoch, the number of steps after which it is over.
        first_step: Number of steps already done.
        callbacks: Keras callbacks, called as `fit` calls them.
        validate: Called at the end of each epoch; its values join the epoch's logs.
        save: Called as `save(step, epoch, logs)` at the end of each epoch, and with
            `logs=None` when training is interrupted within one.
        prepare: Called on each replica with its share of a batch, and returns what
            `train_step` takes; by default the batch is that.

    Returns:
        The number of steps done, and how many were done per second, without the first,
        which is traced and compiled; None where there was no second.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the step was finished and saved.
    """
    callbacks = keras.callbacks.CallbackList(
        callbacks,
        add_history=True,
        add_progbar=True,
        model=model,
        epochs=len(ends),
        steps=None,
        verbose=1,
    )

    def replica_step(batch):
        return model.train_step(prepare(batch) if prepare else batch)

    @tf.function(autograph=False)
    def train_step(batch):
        strategy.run(replica_step, args=(batch,))
        # Outside the replicas, where the metrics of all of them are added up.
        return model.get_metrics_result()

    iterator = iter(strategy.experimental_distribute_dataset(batches))
    step = first_step
    logs: dict[str, Any] = {}
    speed = Speed()
    model.stop_training = False
    with _deferred_signals() as received, contextlib.ExitStack() as cleanup:
        callbacks.on_train_begin()
        cleanup.callback(lambda: callbacks.on_train_end(logs))
        for epoch, end in enumerate(ends):
            begin = ends[epoch - 1] if epoch else 0
            if step >= end:
                continue
            if step == begin:  # Otherwise the metrics of a stopped epoch go on.
                model.reset_metrics()
            callbacks.set_params({**callbacks.params, "steps": end - begin})
            callbacks.on_epoch_begin(epoch)
            while step < end and not received:
                callbacks.on_train_batch_begin(step - begin)
                logs = train_step(next(iterator))
                callbacks.on_train_batch_end(step - begin, logs)
                step += 1
                speed.tick()
            speed.pause()
            if received and step < end:
                if save:
                    save(step, epoch, None)
                raise Interrupted(received[0])
            logs = {name: float(value) for name, value in logs.items()}
            logs["learning_rate"] = float(model.optimizer.learning_rate.numpy())
            if validate:
                logs.update(validate())
            callbacks.on_epoch_end(epoch, logs)
            if save:
                save(step, epoch + 1, logs)
            if received:
                raise Interrupted(received[0])
            if model.stop_training:
                break
    return step, speed.steps_per_second


class Speed:
    """Counts steps and the time that they take, and no other time."""

    def __init__(self):
        self._steps = 0
        self._seconds = 0.0
        self._last: float | None = None

    def tick(self) -> None:
        """Counts a step, if the one before it has just been counted too."""
        now = time.perf_counter()
        if self._last is not None:
            self._steps += 1
            self._seconds += now - self._last
        self._last = now

    def pause(self) -> None:
        """Leaves out the time until the next step."""
        self._last = None

    @property
    def steps_per_second(self) -> float | None:
        """None where no two steps followed each other."""
        return self._steps / self._seconds if self._steps else None


@contextlib.contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Collects the first SIGINT or SIGTERM instead of letting it end the process."""
    received: list[int] = []
    previous = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def receive(number: int, _) -> None:
        received.append(number)
        # A second one ends a step that hangs.
        restore()

    with contextlib.suppress(ValueError):  # Only the main thread receives signals.
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, receive)
    try:
        yield received
    finally:
        restore()
