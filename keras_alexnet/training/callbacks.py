"""Callbacks: schedules, damaged images, a loss that stays flat, the progress bar.

They work in `fit` and in `loop.run`.
"""

from __future__ import annotations

import functools
import math
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_alexnet.data.dataset import Dataset
from keras_alexnet.errors import UserError, unknown
from keras_alexnet.layers import ScheduledDropout
from keras_alexnet.schedules import Plateau, Schedule

# Learning rates are copied to the device for so many steps at once. A copy to a GPU
# waits for the steps that the GPU has still to do, so one copy a step would leave the
# GPU idle while the host prepares the next.
STEPS_AHEAD = 256


class ScheduleCallback(keras.callbacks.Callback):
    """Sets learning rate, dropout rates and rate multipliers before every step.

    Progress is counted from the optimizer's own
    number of steps, so a restored model goes on where it stopped. A value is set at the
    first step and whenever it changes.

    Args:
        total_steps: Length of the whole run.
        learning_rate: A schedule, or None to leave the optimizer's as it is. A
            `Plateau` follows `history` and the logs at the end of each epoch.
        dropout: A schedule for all layers, schedules by layer name for some, or None to
            leave the layers' rates as they are.
        multipliers: Schedules of the learning rate's multipliers, by the names that the
            optimizer's `set_multiplier` knows.
        history: What the epochs before brought, one row each: those that the model's
            training so far consisted of. Needed for a `Plateau` in a continued run.

    Raises:
        ValueError: `total_steps` is not positive, a `Plateau` is given for anything but
            the learning rate, or `history` lacks what it watches.
    """

    def __init__(
        self,
        total_steps: int,
        learning_rate: Schedule | None = None,
        dropout: Schedule | Mapping[str, Schedule] | None = None,
        *,
        multipliers: Mapping[str, Schedule] = types.MappingProxyType({}),
        history: Sequence[Mapping[str, float]] = (),
    ):
        super().__init__()
        if total_steps < 1:
            raise UserError(f"total_steps must be positive. Received: {total_steps}")
        self.total_steps = total_steps
        self.learning_rate = learning_rate
        self.dropout = dropout
        self.multipliers = dict(multipliers)
        rates = dropout.values() if isinstance(dropout, Mapping) else (dropout,)
        if any(isinstance(one, Plateau) for one in (*rates, *multipliers.values())):
            raise UserError("Only the learning rate may follow a plateau.")
        self._plateau = learning_rate if isinstance(learning_rate, Plateau) else None
        self._errors: list[float] = []
        for row in history:
            self._watch(row)
        self._step = 0
        self._settings: list[_Setting] = []
        self._rates: dict[float, tf.Tensor] = {}

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Finds out at which step training begins, and what there is to set.

        Raises:
            ValueError: `dropout` names a layer that is no dropout layer of the model.
        """
        optimizer = self.model.optimizer
        self._step = int(optimizer.iterations.numpy())
        self._settings = []
        if self._plateau is not None:
            self._settings.append(_Setting(self._plateau_rate, self._set_rate))
        elif self.learning_rate is not None:
            self._settings.append(_Setting(self.learning_rate, self._set_rate))
        for layer, schedule in self._dropouts():
            assign = functools.partial(setattr, layer, "rate")
            self._settings.append(_Setting(schedule, assign))
        for name, schedule in self.multipliers.items():
            assign = functools.partial(optimizer.set_multiplier, name)
            self._settings.append(_Setting(schedule, assign))
        if self._step:
            # Of the step before, for a run that has no more steps to do.
            self._follow(self._step - 1)

    def on_train_batch_begin(
        self, batch: int, logs: Mapping[str, float] | None = None
    ) -> None:
        """Sets everything for the step that follows."""
        self._follow(self._step)
        self._step += 1

    def _follow(self, step: int) -> None:
        for setting in self._settings:
            # A run that was made shorter may be beyond its end.
            setting.follow(min(step / self.total_steps, 1.0))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Takes note of what a plateau watches.

        Raises:
            ValueError: It is not among the logs.
        """
        self._watch(logs or {})

    def _watch(self, row: Mapping[str, float]) -> None:
        if self._plateau is None:
            return
        monitor = self._plateau.monitor
        if monitor not in row:
            raise UserError(
                f"The plateau watches {monitor!r}, which an epoch did not bring. "
                f"There is: {', '.join(sorted(row)) or 'nothing'}."
            )
        self._errors.append(float(row[monitor]))

    def _plateau_rate(self, progress: float) -> float:
        return self._plateau.after(self._errors)

    def _set_rate(self, value: float) -> None:
        if value not in self._rates:
            rates = {value: None}
            if self._plateau is None:
                last = min(self._step + STEPS_AHEAD, self.total_steps)
                steps = range(self._step, last)
                rates |= {self.learning_rate(s / self.total_steps): None for s in steps}
            scalars = tf.unstack(tf.constant([*rates], keras.backend.floatx()))
            self._rates = dict(zip(rates, scalars, strict=True))
        self.model.optimizer.learning_rate = self._rates[value]

    def _dropouts(self) -> list[tuple[ScheduledDropout, Schedule]]:
        layers = {
            layer.name: layer
            for layer in self.model.layers
            if isinstance(layer, ScheduledDropout)
        }
        if self.dropout is None:
            return []
        if not isinstance(self.dropout, Mapping):
            return [(layer, self.dropout) for layer in layers.values()]
        for name in self.dropout:
            if name not in layers:
                raise UserError(unknown(name, "dropout layer", layers))
        return [(layers[name], schedule) for name, schedule in self.dropout.items()]


class _Setting:
    """A value that follows a schedule; assigned only when it changes.

    An assignment to a variable costs more than the value, and most schedules stay as
    they are for many steps.
    """

    def __init__(self, schedule: Schedule, assign: Callable[[float], None]):
        self._schedule = schedule
        self._assign = assign
        self._value: float | None = None

    def follow(self, progress: float) -> None:
        value = self._schedule(progress)
        if value != self._value:
            self._assign(value)
            self._value = value


class DamageReport(keras.callbacks.Callback):
    """Writes the names of damaged images to a file, and raises when there are many.

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


# A constant output has this many times the loss of chance at least, and random weights
# rarely less than 1.
FLAT = 0.99


class FlatLossHint(keras.callbacks.Callback):
    """Points out a network that has learned nothing.

    Caffe's AlexNet sometimes did not with the paper's biases of 1, which is why its
    authors took 0.1; the loss then stays at the logarithm of the number of classes.
    Looks at the epoch in which the rate has risen, after `warmup`, a fraction of the
    run.
    """

    def __init__(self, warmup: float = 0.0):
        super().__init__()
        self._warmup = warmup

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Looks at the losses of one epoch."""
        risen = max(math.ceil(self._warmup * self.params["epochs"]) - 1, 0)
        chance = math.log(self.model.output_shape[-1])
        losses = [logs[name] for name in ("loss", "val_loss") if name in (logs or {})]
        if epoch == risen and losses and min(losses) >= FLAT * chance:
            print(
                f"\nThe loss is still that of guessing, {chance:.2f}. If it stays "
                "there, try a smaller learning rate that rises first, such as "
                '--learning-rate "cosine(0.005, warmup=0.1)", or '
                "--norm batch_normalization."
            )


# Seconds between two looks at the metrics, for each of which the device is waited for.
INTERVAL = 0.2


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras's progress bar, which looks at the metrics a few times a second.

    `quiet`, or where standard output is no terminal, it prints one line an epoch. After
    each epoch it says how much time is left for the whole run.
    """

    def __init__(self, quiet: bool = False):
        super().__init__()
        self._one_line = quiet or not sys.stdout.isatty()
        self._last = 0.0
        self._durations: list[float] = []

    def set_params(self, params: dict) -> None:
        """Takes note of the number of epochs and steps."""
        super().set_params({**params, "verbose": 2 if self._one_line else 1})

    def on_epoch_begin(self, epoch: int, logs: Mapping | None = None) -> None:
        """Begins a bar, and the clock."""
        self._began = time.monotonic()
        if not self._one_line:
            super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        """Shows the metrics, if it is time."""
        self.seen = batch + 1
        now = time.monotonic()
        if not self._one_line and now - self._last >= INTERVAL:
            self._last = now
            super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        """Shows the metrics of an epoch, and the time that is left."""
        self._durations.append(time.monotonic() - self._began)
        epochs = self.epochs
        # The first one of a process traces, too.
        usual = statistics.mean(self._durations[1:] or self._durations)
        left = (epochs - epoch - 1) * usual
        text = f"{_spelled(left)} left" if left else ""
        if not self._one_line:
            super().on_epoch_end(epoch, logs)
            if text:
                print(f"{text.capitalize()}.")
            return
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in logs.items())
        took = _spelled(self._durations[-1])
        print(f"Epoch {epoch + 1}/{epochs}: {metrics}; {took}{text and ', ' + text}")


def _spelled(seconds: float) -> str:
    """Writes a duration to two digits or so."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


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
