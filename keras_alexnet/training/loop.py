"""The loop: one for any number of devices, with Keras's callbacks and progress bar."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.errors import TrainingFailed
from keras_alexnet.training.callbacks import Logs, ProgressBar
from keras_alexnet.training.hosts import Hosts
from keras_alexnet.training.strategy import MULTIPLE


class Interrupted(Exception):
    """Training was asked to stop, and did so after finishing its step.

    Attributes:
        signal_number: The signal that asked.
    """

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


def epoch_ends(
    examples: int, batch_size: int, epochs: int, steps: int | None = None
) -> list[int]:
    """Returns, for each epoch, the number of steps after which it is over.

    Batches run on from epoch to epoch, so epochs of one run may differ by a step. With
    a number of steps, in place of epochs, the last epoch may be shorter.
    """
    if steps is not None:
        epochs = -(-steps * batch_size // examples)
    ends = [-(-(epoch + 1) * examples // batch_size) for epoch in range(epochs)]
    return ends if steps is None else [*ends[:-1], steps]


class Diverged(TrainingFailed):
    """Too many steps in a row had gradients that are not finite."""


class HostLost(TrainingFailed):
    """Another of the hosts that train together no longer answers."""


class OutOfMemory(TrainingFailed):
    """A device has too little memory for a step."""


def run(
    model: keras.Model,
    batches: Callable[[], tf.data.Dataset],
    *,
    strategy: tf.distribute.Strategy,
    ends: list[int] | Callable[[float], list[int]],
    first_step: int = 0,
    callbacks: list[keras.callbacks.Callback] | None = None,
    prepare: Callable[[Any], Any] | None = None,
    validate: Callable[[], dict[str, float]] | None = None,
    is_due: Callable[[int], bool] | None = None,
    save: Callable[[int, int, dict[str, Any] | None], None] | None = None,
    most_skipped: int = 20,
    quiet: bool = False,
) -> tuple[int, float | None]:
    """Trains a compiled model.

    With several hosts, each calls this with the same arguments.

    Args:
        model: A model compiled in the strategy's scope, its metrics given as objects.
        batches: Makes this host's batches, beginning with those of `first_step`: for
            each step one for each of the host's replicas.
        strategy: The devices.
        ends: For each epoch, the number of steps after which it is over; or a function
            that returns it, called with the seconds that a step takes, which are
            measured first, without a trace in the model.
        first_step: Number of steps already done.
        callbacks: Keras callbacks, called as `fit` calls them.
        prepare: Changes a batch on the device, before the step.
        validate: Called at the end of each epoch; its values join the epoch's logs.
        is_due: Asked on the chief after each step whether to save within an epoch.
        save: Called as `save(step, epoch, logs)` at the end of each epoch, and with
            `logs=None` within one, where `is_due` says so or training is interrupted.
        most_skipped: How many steps in a row may have gradients that are not finite.
        quiet: Whether one line is printed for each epoch instead of a progress bar.

    Returns:
        The number of steps done, and how many were done per second, without the first,
        which is traced and compiled; None where there was no second.

    Raises:
        Interrupted: SIGINT or SIGTERM came, to any host; the step was finished and
            saved.
        Diverged: More than `most_skipped` steps in a row were skipped.
    """
    hosts = Hosts.of(strategy)
    train_step = _traced_step(model, strategy, prepare)
    if callable(ends):
        with _unchanged(model):
            timed = _on_devices(batches, strategy)
            ends = ends(_seconds_per_step(train_step, timed, hosts))
    callbacks = keras.callbacks.CallbackList(
        [*(callbacks or []), *([ProgressBar(quiet)] if hosts.is_chief else [])],
        add_history=True,
        model=model,
        epochs=len(ends),
        steps=None,
        verbose=1,
    )
    epochs = _Epochs(
        train_step, _on_devices(batches, strategy), callbacks, hosts, is_due, save
    )
    epochs.skipped = SkippedSteps(hosts, most_skipped)
    step, logs = first_step, {}
    model.stop_training = False
    with _deferred_signals() as epochs.received, contextlib.ExitStack() as cleanup:
        callbacks.on_train_begin()
        cleanup.callback(lambda: callbacks.on_train_end(logs))
        for epoch, (begin, end) in enumerate(itertools.pairwise([0, *ends])):
            if step >= end:
                continue
            if step == begin:  # Otherwise the metrics of a stopped epoch go on.
                model.reset_metrics()
            callbacks.set_params({**callbacks.params, "steps": end - begin})
            callbacks.on_epoch_begin(epoch)
            logs = epochs.train(epoch, step, begin, end)
            step = end
            logs["learning_rate"] = float(model.optimizer.learning_rate.numpy())
            if validate:
                logs.update(_validated(validate, callbacks))
            callbacks.on_epoch_end(epoch, logs)
            if save:
                save(step, epoch + 1, logs)
            if stopped_by := _agreed(hosts, epochs.received, False)[0]:
                raise Interrupted(stopped_by)
            if model.stop_training:
                break
    return step, epochs.speed.steps_per_second


def _validated(
    validate: Callable[[], dict[str, float]], callbacks: keras.callbacks.CallbackList
) -> dict[str, float]:
    """Evaluates; callbacks get the metrics by the names that `fit` gives them there."""
    callbacks.on_test_begin()
    found = validate()
    callbacks.on_test_end({name.removeprefix("val_"): found[name] for name in found})
    return found


class _Epochs:
    """The steps of epochs, one iterator for all of them; arguments are those of `run`.

    Attributes:
        received: The signals that this process has received.
        skipped: Reports the steps that were not applied.
        speed: Of the steps.
    """

    received: list[int]
    skipped: SkippedSteps

    def __init__(
        self,
        train_step: Callable,
        iterator: Iterator[Any],
        callbacks: keras.callbacks.CallbackList,
        hosts: Hosts,
        is_due: Callable[[int], bool] | None,
        save: Callable[[int, int, dict[str, Any] | None], None] | None,
    ):
        self.train_step, self.iterator, self.callbacks = train_step, iterator, callbacks
        self.hosts, self.is_due, self.save = hosts, is_due, save
        self.speed = Speed()

    def train(self, epoch: int, step: int, begin: int, end: int) -> dict[str, float]:
        """Takes the steps from `step` to `end` of an epoch; returns its metrics.

        Raises:
            Interrupted: A signal came before the last step; the state is saved.
        """
        stopped_by, logs = None, {}
        while step < end and not stopped_by:
            self.callbacks.on_train_batch_begin(step - begin)
            logs, *outcome = self.train_step(next(self.iterator))
            for callback in self.callbacks.callbacks:
                # Not by the list, which waits for the device to make numbers.
                callback.on_train_batch_end(step - begin, logs=Logs(logs))
            step += 1
            self.skipped.check(step, *outcome)
            self.speed.tick()
            due = bool(self.is_due and self.hosts.is_chief and self.is_due(step))
            stopped_by, due = _agreed(self.hosts, self.received, due)
            if due and self.save and not stopped_by and step < end:
                self._wait()
                self.save(step, epoch, None)
        self._wait()
        if stopped_by and step < end:
            if self.save:
                self.save(step, epoch, None)
            raise Interrupted(stopped_by)
        return {name: float(value) for name, value in logs.items()}

    def _wait(self) -> None:
        """Waits for the steps that the device has still to do."""
        self.skipped.check_all()
        self.speed.pause()


@contextlib.contextmanager
def noticing_lost_hosts(hosts: Hosts) -> Iterator[None]:
    """Turns the errors that a host which has died brings into `HostLost`."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        if hosts.count == 1:
            raise
        raise HostLost(
            f"Host {hosts.index} stops, because another host no longer answers. Run "
            "the same command with --resume on all hosts: it goes on from the last "
            "checkpoint."
        ) from error


@contextlib.contextmanager
def naming_lack_of_memory(batch_size: int) -> Iterator[None]:
    """Turns an error of TensorFlow without memory into `OutOfMemory`."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        # A full disk is reported as such an error, too.
        if "memory" not in str(error) and "OOM" not in str(error):
            raise
        raise OutOfMemory(
            f"Out of memory: a step of {batch_size} images does not fit. Choose a "
            "smaller --global-batch-size, more --micro-batches, which train the same "
            "in less memory, or --precision bfloat16."
        ) from error


def _on_devices(
    batches: Callable[[], tf.data.Dataset], strategy: tf.distribute.Strategy
) -> Iterator[Any]:
    """Returns an iterator whose batches are copied to the devices ahead of their step.

    A strategy of several replicas does so by itself.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if isinstance(strategy, MULTIPLE) or not gpus:
        distributed = strategy.distribute_datasets_from_function(lambda _: batches())
        return iter(distributed)
    prefetch = tf.data.experimental.prefetch_to_device(gpus[0].name, buffer_size=2)
    return iter(batches().apply(prefetch))


def _traced_step(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    prepare: Callable[[Any], Any] | None,
) -> Callable[[Any], tuple[dict[str, tf.Tensor], tf.Tensor, Any]]:
    """Returns the step: from a batch to metrics, steps skipped in a row, finiteness."""

    def on_replica(batch):
        model.train_step(prepare(batch) if prepare else batch)
        return tf.convert_to_tensor(getattr(model.optimizer, "own_finite", True))

    @tf.function(autograph=False)
    def train_step(batch):
        finite = strategy.run(on_replica, args=(batch,))
        in_row = getattr(model.optimizer, "skipped_in_row", 0)
        # Outside the replicas, where the metrics of all of them are added up.
        return model.get_metrics_result(), tf.convert_to_tensor(in_row), finite

    return train_step


# How long steps are timed for, after those that trace and warm up.
TIMED_SECONDS = 2.0


def _seconds_per_step(
    train_step: Callable, iterator: Iterator[Any], hosts: Hosts
) -> float:
    """Times training steps, batches included; where there are few, those there are."""

    def seconds(count: int) -> tuple[float, int]:
        begin, done = time.perf_counter(), 0
        for batch in itertools.islice(iterator, count):
            logs, *_ = train_step(batch)
            float(logs["loss"])
            done += 1
        return time.perf_counter() - begin, done

    first, _ = seconds(1)  # Traces.
    once, found = seconds(1)
    # All hosts must take as many steps, because each waits for the others in it.
    count = round(TIMED_SECONDS / max(once, 1e-3))
    (count,) = hosts.total([count if hosts.is_chief else 0])
    taken, done = seconds(max(count, 3))
    return taken / done if done else once if found else first


@contextlib.contextmanager
def _unchanged(model: keras.Model) -> Iterator[None]:
    """Puts back at the end what training steps change."""
    variables = [*model.variables, *model.optimizer.variables]
    before = [variable.numpy() for variable in variables]
    yield
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    model.reset_metrics()


def _agreed(hosts: Hosts, received: list[int], due: bool) -> tuple[int | None, bool]:
    """Makes all hosts do the same, at the same step.

    Returns:
        The signal that any host has received, if any, and whether any wants to save.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    wishes = [int(number in received) for number in numbers] + [int(due)]
    *signals, due = hosts.total(wishes)
    for number, count in zip(numbers, signals, strict=True):
        if count:
            return number, bool(due)
    return None, bool(due)


class SkippedSteps:
    """Reports the steps that were not applied, and ends a run that has only such.

    Looks at several steps at once: a number from a GPU arrives when the GPU has done
    all its steps, and is then idle until the host has prepared the next.

    Args:
        hosts: Who trains.
        most_in_row: How many steps in a row may be skipped.
    """

    # All hosts must look after the same step, so this is no matter of time.
    STEPS_AT_ONCE = 16

    def __init__(self, hosts: Hosts, most_in_row: int):
        self.hosts = hosts
        self.most_in_row = most_in_row
        self._unseen: list[tuple[int, tf.Tensor, Any]] = []

    def check(self, step: int, in_row: tf.Tensor, finite: Any) -> None:
        """Takes note of a step, and looks at those before it if there are enough.

        Args:
            step: Number of steps done.
            in_row: How many of them, up to the last, were skipped in a row.
            finite: Whether each replica's own gradients were finite.
        """
        self._unseen.append((step, in_row, finite))
        if len(self._unseen) == self.STEPS_AT_ONCE:
            self.check_all()

    def check_all(self) -> None:
        """Looks at the steps that were not looked at yet."""
        unseen, self._unseen = self._unseen, []
        if not unseen or not np.any(tf.stack([in_row for _, in_row, _ in unseen])):
            return
        for step, in_row, finite in unseen:
            if int(in_row):
                self._report(step, int(in_row), finite)

    def _report(self, step: int, in_row: int, finite: Any) -> None:
        first = self.hosts.index * self.hosts.local_replicas
        finite = self.hosts.strategy.experimental_local_results(finite)
        where = [str(first + index) for index, good in enumerate(finite) if not good]
        print(
            f"\nStep {step} was not applied: gradients were not finite on "
            f"{'replica ' + ', '.join(where) if where else 'other hosts or in sum'}."
        )
        if in_row > self.most_in_row:
            raise Diverged(
                f"The gradients of {in_row} steps in a row, up to step {step}, were "
                "not finite. Weights of earlier checkpoints are good, but what follows "
                "them is not: begin another run with a smaller learning rate, a "
                "warm-up, clipped gradients (--clip-norm 1) or another precision."
            )


class Speed:
    """Counts steps and the time that they take, and no other time."""

    def __init__(self):
        self._steps = 0
        self._seconds = 0.0
        self._last: float | None = None

    def tick(self) -> None:
        """Counts a step, if the one before it has just been counted too."""
        last, self._last = self._last, time.perf_counter()
        if last is not None:
            self._steps += 1
            self._seconds += self._last - last

    def pause(self) -> None:
        """Leaves out the time until the next step. No step may be under way."""
        if self._last is not None:
            self._seconds += time.perf_counter() - self._last
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
        # Not by print, which a signal may have interrupted.
        os.write(2, b"\nStopping after this step, and saving. Again: at once.\n")
        # A second one ends a step that hangs.
        restore()

    with contextlib.suppress(ValueError):  # Only the main thread receives signals.
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, receive)
    try:
        yield received
    finally:
        restore()
