"""The Keras callback that sets what schedules say, before every step."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from keras_alexnet.errors import UserError, unknown
from keras_alexnet.layers import ScheduledDropout
from keras_alexnet.schedules import Plateau, Schedule

# Learning rates are copied to the device for so many steps at once. A copy to a GPU
# waits for the steps that the GPU has still to do, so one copy a step would leave the
# GPU idle while the host prepares the next.
STEPS_AHEAD = 256


class ScheduleCallback(keras.callbacks.Callback):
    """Sets learning rate, dropout rates and rate multipliers before every step.

    Works in `fit` and in `loop.run`. Progress is counted from the optimizer's own
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
