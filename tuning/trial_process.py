"""One trial in a process of its own.

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
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from keras_alexnet.errors import TrainingFailed, UserError
from keras_alexnet.registry import get_layer, list_layers
from keras_alexnet.training.config import TrainConfig

# No trial would fare better with these.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
# How often a trial whose process was killed is continued.
CONTINUATIONS = 2


@dataclasses.dataclass(frozen=True)
class Task:
    """What a process is to do.

    Attributes:
        config: What to train.
        run_dir: Where; a run that is there already is continued.
        until_epoch: Pause after this epoch; None for all.
        values: The trial's hyperparameters, for TensorBoard.
        log: File for what the run prints.
        grace_epochs: From which epoch on the median rule may stop the run; None where
            there is no such rule.
        objective: What the median rule looks at.
        largest: Whether a larger objective is better.
        modules: What to import first, for the layers registered there.
        only_check: Whether to find out no more than whether data and layers exist.
    """

    config: TrainConfig
    run_dir: Path
    until_epoch: int | None
    values: Mapping[str, Any]
    log: Path
    grace_epochs: int | None = None
    objective: str = "val_top1_error"
    largest: bool = False
    modules: tuple[str, ...] = ()
    only_check: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        metrics: Loss, top-1 and top-5 error on the test images after the last epoch.
        history: One row per epoch.
        seconds: How long training took.
        error: What failed, in one line; None where nothing did.
        by_user: Whether that was a mistake in the configuration.
        ends_search: Whether no other trial would fare better, as on a full disk.
        signal_number: The signal that interrupted the run, after a checkpoint.
    """

    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    history: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    error: str | None = None
    by_user: bool = False
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
        for _ in range(CONTINUATIONS + 1):
            outcome = self._run_once(task)
            if isinstance(outcome, Outcome):
                return outcome
            if self._stopping.is_set():
                return Outcome(signal_number=signal.SIGTERM)
        reason = f"with exit code {outcome}"
        if outcome < 0:
            reason = f"by {signal.Signals(-outcome).name}"
            if outcome == -signal.SIGKILL:
                reason += ", which may mean that memory ran out"
        return Outcome(
            error=f"Its process was ended {CONTINUATIONS + 1} times, at last {reason}."
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
        context = multiprocessing.get_context("forkserver")
        # Heeded by the server's start, which the first process brings about.
        quietly = "keras_alexnet.tuning.preloaded"
        context.set_forkserver_preload(
            [quietly, __name__, "keras_alexnet.training.train"]
        )
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


def check_in_process(config: TrainConfig) -> None:
    """Opens the data of a configuration, in a process of its own.

    In this one, TensorFlow would take memory of GPUs that the trials need.

    Raises:
        UserError: There are no such data.
        OSError: They cannot be read.
    """
    nowhere = Path(os.devnull)
    task = Task(
        *(config, nowhere, None, {}, nowhere),
        modules=modules_of_layers(),
        only_check=True,
    )
    outcome = TrialProcess(threading.Event()).run(task)
    if outcome.error is not None:
        raise (UserError if outcome.by_user else OSError)(outcome.error)


def modules_of_layers() -> tuple[str, ...]:
    """Returns the modules that have registered layers, outside of this package."""
    modules = {get_layer(name).__module__ for name in list_layers()}
    own = {name for name in modules if name.split(".")[0] == "keras_alexnet"}
    return tuple(sorted(modules - own - {"__main__", "__mp_main__"}))


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


def _outcome(task: Task) -> Outcome:
    """Trains, whatever happens."""
    try:
        return _train(task)
    except Exception as error:  # A plugin may fail in any way it likes.
        from keras_alexnet.training.loop import Interrupted

        if isinstance(error, Interrupted):
            return Outcome(signal_number=error.signal_number)
        traceback.print_exc()
        kind = type(error).__name__
        text = " ".join(str(error).split())
        known = isinstance(error, (ValueError, TrainingFailed)) and text
        return Outcome(
            error=text if known else f"{kind}: {text}",
            by_user=isinstance(error, ValueError),
            ends_search=isinstance(error, OSError) and error.errno in DISK_ERRORS,
        )


def _train(task: Task) -> Outcome:
    """Trains.

    Raises:
        Exception: Whatever training raises.
    """
    from keras_alexnet.data.sources import open_source
    from keras_alexnet.training.run_directory import RunDirectory
    from keras_alexnet.training.train import train
    from keras_alexnet.tuning.callbacks import HParams, MedianRule

    for module in task.modules:
        importlib.import_module(module)
    config = task.config
    if task.only_check:
        open_source(
            config.data,
            seed=config.seed,
            test_fraction=config.test_fraction,
            channels=config.channels,
        )
        return Outcome()
    callbacks = [HParams(task.run_dir, task.values)]
    if task.grace_epochs is not None:
        rule = MedianRule(task.run_dir, task.objective, task.largest, task.grace_epochs)
        callbacks.append(rule)
    begin = time.monotonic()
    result = train(
        config,
        task.run_dir,
        resume=RunDirectory(task.run_dir).holds_run(),
        callbacks=callbacks,
        until_epoch=task.until_epoch,
    )
    if result.failures:
        # A disk that is full now is full for the next trial too.
        return Outcome(error=result.failures[-1], ends_search=True)
    return Outcome(
        result.metrics, tuple(result.history), seconds=time.monotonic() - begin
    )


def _die_with_parent() -> None:
    """Ends this process when the search is killed: its trial is continued later."""
    wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
