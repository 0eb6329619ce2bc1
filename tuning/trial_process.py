"""Trial processes: each training of a search runs in a process of its own.

TensorFlow gives back little of what a run took: within one process, thirty runs of a
tiny network took a fifth more memory at the end than after the fifth. A process gives
everything back, and what kills it, such as a lack of memory, kills nothing else.

The processes are forked from one that has imported TensorFlow and not used it
(`multiprocessing`'s fork server), so that a trial does not wait for imports. A program
that searches must therefore do so under `if __name__ == "__main__":`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import multiprocessing
import os
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from keras_alexnet.errors import TrainingFailed, UserError
from keras_alexnet.registry import get_layer, list_layers
from keras_alexnet.training.choices import Facts, choose, open_images
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.loop import Interrupted
from keras_alexnet.training.run_directory import RunDirectory
from keras_alexnet.training.train import train
from keras_alexnet.tuning.trials import read_history

# No trial would fare better with these.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
# How often a trial whose process was killed is continued.
CONTINUATIONS = 2
# How TensorFlow, XLA and cuDNN say that memory ran out, besides their own exception.
OUT_OF_MEMORY = (
    *("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY", "ALLOC_FAILED", "Out of memory"),
    "Dst tensor is not initialized",
)
# With fewer others the median rule cannot tell what is usual.
MIN_OTHERS = 4


class SearchInterrupted(Exception):
    """A search was asked to stop; the runs under way have saved their state.

    Attributes:
        signal_number: The signal that asked.
    """

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


@dataclasses.dataclass(frozen=True)
class Task:
    """What a process is to do.

    Attributes:
        config: What to train.
        run_dir: The run's directory; a run that is there is continued.
        log: File for what the run prints.
        until_epoch: Pause after this epoch; None for all.
        values: The trial's hyperparameters, for TensorBoard.
        grace_epochs: From which epoch on the median rule may stop the run; None where
            there is no such rule.
        objective: What the median rule looks at.
        direction: Whether a low or a high objective is good.
        modules: What to import first, for the layers registered there.
        only_check: Whether to find out no more than whether data and layers exist.
    """

    config: TrainConfig
    run_dir: Path
    log: Path
    until_epoch: int | None = None
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    grace_epochs: int | None = None
    objective: str = "val_top1_error"
    direction: str = "min"
    modules: tuple[str, ...] = ()
    only_check: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        metrics: Loss, top-1 and top-5 error of the run's final evaluation.
        history: One row per epoch.
        seconds: How long training took.
        channels: Colour channels of the images, where they were only checked.
        config: The configuration then, with nothing left to be chosen.
        error: What failed, in one line; None where nothing did.
        by_user: Whether that was a mistake in the configuration.
        out_of_memory: Whether memory ran out, or a kill makes that likely.
        ends_search: Whether no other trial would fare better, as on a full disk.
        signal_number: The signal that interrupted the run, after a checkpoint.
    """

    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    history: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    channels: int | None = None
    config: TrainConfig | None = None
    error: str | None = None
    by_user: bool = False
    out_of_memory: bool = False
    ends_search: bool = False
    signal_number: int | None = None


class TrialProcess:
    """Carries out tasks, one after the other; others can stop it.

    Args:
        stopping: Set when the whole search shall stop.
    """

    def __init__(self, stopping: threading.Event):
        self._stopping = stopping
        self._process: multiprocessing.Process | None = None

    def run(self, task: Task) -> Outcome:
        """Carries out a task; continues it where its process is killed.

        Raises:
            OSError: Processes cannot be started.
        """
        task = dataclasses.replace(task, modules=_modules_of_layers())
        for _ in range(CONTINUATIONS + 1):
            outcome = self._run_once(task)
            if isinstance(outcome, Outcome):
                return outcome
            if self._stopping.is_set():
                return Outcome(signal_number=signal.SIGTERM)
        killed = outcome == -signal.SIGKILL
        reason = f"with exit code {outcome}"
        if outcome < 0:
            reason = f"by {signal.Signals(-outcome).name}"
        reason += ", which may mean that memory ran out" if killed else ""
        return Outcome(
            error=f"Its process was ended {CONTINUATIONS + 1} times, at last {reason}.",
            out_of_memory=killed,
        )

    def stop(self) -> None:
        """Makes the task that is under way save its state and end."""
        process = self._process
        # Without a number until it has started.
        if process is not None and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def _run_once(self, task: Task) -> Outcome | int:
        """Returns the outcome, or the exit code of a process that brought none."""
        _start_server()
        context = multiprocessing.get_context("forkserver")
        receiving, sending = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_main, args=(sending, task), name=task.log.parent.name
        )
        self._process.start()
        sending.close()
        if self._stopping.is_set():  # Since before there was anything to stop.
            self.stop()
        with receiving:
            try:
                outcome = receiving.recv()
            except EOFError:
                outcome = None
        process, self._process = self._process, None  # Its number may be another's.
        process.join()
        return process.exitcode if outcome is None else outcome


def run_task(task: Task) -> Outcome:
    """Carries out one task, which SIGINT and SIGTERM end after a checkpoint.

    Raises:
        SearchInterrupted: SIGINT or SIGTERM came.
    """
    stopping, received = threading.Event(), []
    process = TrialProcess(stopping)

    def stop(number: int) -> None:
        received.append(number)
        stopping.set()
        process.stop()

    with forwarded_signals(stop):
        outcome = process.run(task)
    if outcome.signal_number is not None:
        raise SearchInterrupted(received[0] if received else outcome.signal_number)
    return outcome


def train_in_process(config: TrainConfig, run_dir: Path) -> Outcome:
    """Trains a configuration, or goes on with it, in a process of its own.

    What it prints is beside the run's directory, in a file called like it.

    Raises:
        SearchInterrupted: SIGINT or SIGTERM came; the run has saved its state.
    """
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    return run_task(Task(config, run_dir, run_dir.with_suffix(".txt")))


def check_in_process(config: TrainConfig) -> Outcome:
    """Opens the data of a configuration, in a process of its own.

    In this one, TensorFlow would take memory of GPUs that the trials need.

    Returns:
        The images' colour channels, and the configuration with nothing left to be
        chosen from them.

    Raises:
        UserError: There are no such data.
        OSError: They cannot be read.
    """
    nowhere = Path(os.devnull)
    outcome = run_task(Task(config, nowhere, log=nowhere, only_check=True))
    if outcome.error is not None:
        raise (UserError if outcome.by_user else OSError)(outcome.error)
    return outcome


@contextlib.contextmanager
def forwarded_signals(stop: Callable[[int], None]) -> Iterator[None]:
    """Calls `stop` with the number of each SIGINT or SIGTERM, in place of an end."""
    previous = {}
    with contextlib.suppress(ValueError):  # Only the main thread receives signals.
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, lambda number, _: stop(number))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _start_server() -> None:
    """Starts the fork server, without the page that TensorFlow writes on import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        forkserver.ensure_running()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _modules_of_layers() -> tuple[str, ...]:
    """Returns the modules that have registered layers, outside of this package."""
    modules = {get_layer(name).__module__ for name in list_layers()}
    own = {name for name in modules if name.split(".")[0] == "keras_alexnet"}
    return tuple(sorted(modules - own - {"__main__", "__mp_main__"}))


# === In the process ===


def _main(sending: Connection, task: Task) -> None:
    """What the process does."""
    # Signals from a terminal reach it once: through the search.
    os.setsid()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    outcome = _outcome(task)
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        sending.send(outcome)


def _die_with_parent() -> None:
    """Ends this process when the search is killed: its trial is continued later."""
    wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _outcome(task: Task) -> Outcome:
    """Trains, whatever happens."""
    try:
        _prepare(task)
        return check(task.config) if task.only_check else _train(task)
    except Interrupted as error:
        return Outcome(signal_number=error.signal_number)
    except Exception as error:  # A plugin may fail in any way it likes.
        traceback.print_exc()
        return failure(error)


def failure(error: Exception) -> Outcome:
    """Classifies what a task raised."""
    text = " ".join(str(error).split())
    out_of_memory = isinstance(
        error, (MemoryError, tf.errors.ResourceExhaustedError)
    ) or any(words in text for words in OUT_OF_MEMORY)
    if out_of_memory:
        text = f"Out of memory: {text.removeprefix('Out of memory: ')[:200]}"
    elif not (isinstance(error, (UserError, TrainingFailed)) and text):
        text = f"{type(error).__name__}: {text}"
    return Outcome(
        error=text,
        by_user=isinstance(error, UserError),
        out_of_memory=out_of_memory,
        ends_search=isinstance(error, OSError) and error.errno in DISK_ERRORS,
    )


def _prepare(task: Task) -> None:
    """Prepares the process, before anything uses a device."""
    for module in task.modules:
        importlib.import_module(module)


def check(config: TrainConfig) -> Outcome:
    """Opens the data of a configuration.

    Raises:
        UserError: There are no such data.
    """
    source = open_images(config)
    if not config.is_complete:
        config, _ = choose(config, Facts.of(source))
    return Outcome(channels=source.channels, config=config)


def _train(task: Task) -> Outcome:
    """Trains.

    Raises:
        Exception: Whatever training raises.
    """
    callbacks = []
    if task.values:
        callbacks.append(
            keras.callbacks.LambdaCallback(
                on_train_begin=lambda logs: _write_hparams(task.run_dir, task.values)
            )
        )
    if task.grace_epochs is not None:
        rule = (task.objective, task.direction, task.grace_epochs)
        callbacks.append(MedianRule(task.run_dir, *rule))
    begin = time.monotonic()
    result = train(
        task.config,
        task.run_dir,
        resume=RunDirectory(task.run_dir).holds_run(),
        callbacks=callbacks,
        until_epoch=task.until_epoch,
    )
    if result.failures:
        # A disk that is full now is full for the next trial too.
        return Outcome(error=result.failures[-1], ends_search=True)
    seconds = time.monotonic() - begin
    return Outcome(result.metrics, tuple(result.history), seconds)


def _write_hparams(run_dir: Path, values: Mapping[str, Any]) -> None:
    """Writes hyperparameters where TensorBoard's HParams plugin finds them.

    They are beside the run's scalars, which are the metrics of the plugin's tables;
    written once, also for a run that is continued.
    """
    logs_dir, suffix = run_dir / "logs", ".hparams"
    if not any(logs_dir.glob(f"*{suffix}")):
        writer = tf.summary.create_file_writer(str(logs_dir), filename_suffix=suffix)
        with writer.as_default():
            hparams.hparams(dict(values), trial_id=run_dir.name)


class MedianRule(keras.callbacks.Callback):
    """Median stopping rule: stops a run that is worse than most others were by then.

    The best objective so far is compared with the median of the others' best so far
    (the rule of Google Vizier, Golovin et al. 2017, section 3.2.1, with the best in
    place of the average). Others are the runs in the directories beside this one's.

    Args:
        run_dir: The run's directory.
        objective: A column of history.csv.
        direction: Whether a low or a high objective is good.
        grace_epochs: How many epochs a run has in any case.
    """

    def __init__(
        self, run_dir: Path, objective: str, direction: str, grace_epochs: int
    ):
        super().__init__()
        self.run_dir = run_dir
        self.objective = objective
        self.best = max if direction == "max" else min
        self.grace_epochs = grace_epochs
        # Those of a continued run.
        self._values = self._read(run_dir)

    def _read(self, run_dir: Path) -> list[float]:
        rows = read_history(run_dir)
        return [row[self.objective] for row in rows if self.objective in row]

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Compares."""
        self._values = [*self._values[:epoch], logs[self.objective]]
        if epoch + 1 < self.grace_epochs:
            return
        others = [
            self.best(values[: epoch + 1])
            for path in self.run_dir.parent.iterdir()
            if path.name != self.run_dir.name
            if len(values := self._read(path)) > epoch
        ]
        if len(others) < MIN_OTHERS:
            return
        own, median = self.best(self._values), statistics.median(others)
        if own != median and self.best(own, median) == median:
            print(f"\nStopped: {self.objective} {own:.4g}; of the others {median:.4g}.")
            self.model.stop_training = True
