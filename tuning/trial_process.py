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
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from keras_alexnet.errors import TrainingFailed, UserError
from keras_alexnet.registry import get_layer, list_layers
from keras_alexnet.startup import silent_stderr
from keras_alexnet.training.choices import Facts, choose, open_images
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.loop import Interrupted
from keras_alexnet.training.run_directory import RunDirectory
from keras_alexnet.training.train import train

# No trial would fare better with these.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
# How often a trial whose process was killed is continued.
CONTINUATIONS = 2
# How TensorFlow, XLA and cuDNN say that memory ran out, besides their own exception.
OUT_OF_MEMORY = (
    *("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY", "ALLOC_FAILED", "Out of memory"),
    "Dst tensor is not initialized",
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a function in a process.

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
    """Calls functions in processes, one after the other; others can stop it.

    Args:
        stopping: Set when the whole search shall stop.
    """

    def __init__(self, stopping: threading.Event):
        self._stopping = stopping
        self._process: multiprocessing.Process | None = None

    def run(self, log: Path, function: Callable[..., Outcome], *arguments) -> Outcome:
        """Calls a function; calls it again where its process is killed.

        Args:
            log: File for what it prints.
            function: `check` or `train_trial`.
            *arguments: Of the function.

        Raises:
            OSError: Processes cannot be started.
        """
        for _ in range(CONTINUATIONS + 1):
            outcome = self._run_once(log, function, arguments)
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
        """Makes the function that is under way save its state and end."""
        process = self._process
        # Without a number until it has started.
        if process is not None and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def _run_once(self, log: Path, *call: object) -> Outcome | int:
        """Returns the outcome, or the exit code of a process that brought none."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with silent_stderr():  # TensorFlow writes a page on import.
            forkserver.ensure_running()
        receiving, sending = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_main, args=(sending, log, _modules_of_layers(), *call)
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


def run_here(log: Path, function: Callable[..., Outcome], *arguments) -> Outcome:
    """Calls a function in a process, which SIGINT and SIGTERM end after a checkpoint.

    Raises:
        Interrupted: SIGINT or SIGTERM came.
    """
    stopping, received = threading.Event(), []
    process = TrialProcess(stopping)

    def stop(number: int) -> None:
        received.append(number)
        stopping.set()
        process.stop()

    with forwarded_signals(stop):
        outcome = process.run(log, function, *arguments)
    if outcome.signal_number is not None:
        raise Interrupted(received[0] if received else outcome.signal_number)
    return outcome


def train_in_process(config: TrainConfig, run_dir: Path) -> Outcome:
    """Trains a configuration, or goes on with it, in a process of its own.

    What it prints is beside the run's directory, in a file called like it.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the run has saved its state.
    """
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    return run_here(run_dir.with_suffix(".txt"), train_trial, config, run_dir)


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
    outcome = run_here(Path(os.devnull), check, config)
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


def _modules_of_layers() -> tuple[str, ...]:
    """Returns the modules that have registered layers, outside of this package."""
    modules = {get_layer(name).__module__ for name in list_layers()}
    own = {name for name in modules if name.split(".")[0] == "keras_alexnet"}
    return tuple(sorted(modules - own - {"__main__", "__mp_main__"}))


# === In the process ===


def _main(
    sending: Connection,
    log: Path,
    modules: Sequence[str],
    function: Callable[..., Outcome],
    arguments: Sequence[object],
) -> None:
    """What the process does, before and after anything uses a device."""
    # Signals from a terminal reach it once: through the search.
    os.setsid()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        for module in modules:  # For the layers registered there.
            importlib.import_module(module)
        outcome = function(*arguments)
    except Interrupted as error:
        outcome = Outcome(signal_number=error.signal_number)
    except Exception as error:  # A plugin may fail in any way it likes.
        traceback.print_exc()
        outcome = failure(error)
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        sending.send(outcome)


def _die_with_parent() -> None:
    """Ends this process when the search is killed: its trial is continued later."""
    wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def failure(error: Exception) -> Outcome:
    """Classifies what a function raised."""
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


def check(config: TrainConfig) -> Outcome:
    """Opens the data of a configuration.

    Raises:
        UserError: There are no such data.
    """
    source = open_images(config)
    if not config.is_complete:
        config, _ = choose(config, Facts.of(source))
    return Outcome(channels=source.channels, config=config)


def train_trial(
    config: TrainConfig,
    run_dir: Path,
    until_epoch: int | None = None,
    values: Mapping[str, Any] = MappingProxyType({}),
) -> Outcome:
    """Trains a configuration, or goes on with it.

    Args:
        config: What to train.
        run_dir: The run's directory; a run that is there is continued.
        until_epoch: Pause after this epoch; None for all.
        values: The trial's hyperparameters, for TensorBoard.

    Raises:
        Exception: Whatever training raises.
    """

    def write_hparams(logs: object) -> None:
        # Beside the run's scalars, which are the metrics of the plugin's tables; once,
        # also for a run that is continued.
        logs_dir, suffix = run_dir / "logs", ".hparams"
        if values and not any(logs_dir.glob(f"*{suffix}")):
            writer = tf.summary.create_file_writer(
                str(logs_dir), filename_suffix=suffix
            )
            with writer.as_default():
                hparams.hparams(dict(values), trial_id=run_dir.name)

    run = RunDirectory(run_dir)
    if resume := run.holds_run():
        # `train` would make it longer: another experiment than from the start.
        run.check_length(config)
    begin = time.monotonic()
    result = train(
        config,
        run_dir,
        resume=resume,
        callbacks=[keras.callbacks.LambdaCallback(on_train_begin=write_hparams)],
        until_epoch=until_epoch,
    )
    if result.failures:
        # A disk that is full now is full for the next trial too.
        return Outcome(error=result.failures[-1], ends_search=True)
    seconds = time.monotonic() - begin
    return Outcome(result.metrics, tuple(result.history), seconds)
