"""Tuner: asks an oracle what to try, and has trial processes try it."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial as Assignment
from keras_tuner.engine.trial import TrialStatus

from keras_alexnet.errors import TrainingFailed, UserError
from keras_alexnet.files import write_whole
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.loop import Interrupted
from keras_alexnet.training.run_directory import RunDirectory
from keras_alexnet.tuning.oracles import DurableOracle, is_chief, is_distributed
from keras_alexnet.tuning.space import SearchSpace
from keras_alexnet.tuning.trial_process import (
    Outcome,
    TrialProcess,
    forwarded_signals,
    train_trial,
)
from keras_alexnet.tuning.trials import (
    Trial,
    first_round,
    line_of,
    ranked,
    read_error,
    repeated_error,
)

IDLE_SECONDS = 0.2
# How often a worker on another host says that it is alive.
HEARTBEAT_SECONDS = 15.0


class ScheduleTuner(BaseTuner):
    """A tuner of Keras Tuner that trains each trial as a run of its own.

    Its directory is that of every tuner; the runs are in `trials/`. Each worker is a
    thread that has one trial after the other carried out by a process.

    Args:
        oracle: Decides what to try.
        config: What the search varies.
        space: How.
        run_dir: Where everything is.
        keep: How many of the best trials keep their weights.
        workers: How many trials run at the same time.
    """

    def __init__(
        self,
        oracle: DurableOracle,
        config: TrainConfig,
        space: SearchSpace,
        run_dir: Path,
        keep: int,
        workers: int,
    ):
        self.config, self.space, self.run_dir = config, space, run_dir
        self.keep, self.workers = keep, workers
        self._state = oracle
        # Redirected while Keras Tuner talks to other hosts.
        self._output = sys.stdout
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._processes: list[TrialProcess] = []
        with contextlib.redirect_stdout(None):
            super().__init__(
                oracle, directory=str(run_dir.parent), project_name=run_dir.name
            )
        oracle.on_end = self._ended
        self.save()

    def save(self) -> None:
        """Writes the state."""
        if not self._is_worker():
            self.oracle.save()
        write_whole(Path(self._get_tuner_fname()), json.dumps(self.get_state()))

    def search(self) -> None:
        """Searches until there is nothing more to try.

        Raises:
            Interrupted: SIGINT or SIGTERM came.
            UserError, keras_alexnet.errors.TrainingFailed: Three different trials in a
                row failed with the same error.
            OSError: The disk is full, or the directory cannot be written.
        """
        with forwarded_signals(self._interrupt), contextlib.ExitStack() as stack:
            if is_distributed():
                # Keras Tuner prints every condition that it sends to another host.
                stack.enter_context(contextlib.redirect_stdout(None))
            if is_chief():
                done = self._every(1.0, self._state.take_back_from_silent)
                stack.callback(done.set)
                super().search()  # Gives out trials to other hosts.
            else:
                self._work_in_threads()
        if self._failure is not None:
            raise self._failure

    def trials(self) -> list[Trial]:
        """Reads all trials, in the order in which they began.

        The rounds of Hyperband that continue a trial belong to it.
        """
        oracle = self._state
        rounds: dict[str, list[Assignment]] = {}
        for name in list(oracle.start_order):
            assignment = oracle.trials[name]
            first = first_round(oracle.get_trial, assignment)
            rounds.setdefault(first, []).append(assignment)
        return [self._trial(name, found) for name, found in rounds.items()]

    def _trial(self, name: str, rounds: Sequence[Assignment]) -> Trial:
        """Reads a trial, from its rounds and its run."""
        last, hp = rounds[-1], rounds[0].hyperparameters.copy()
        try:
            values, config = self.space.configure(hp, self.config)
        except UserError:  # It has failed for that reason.
            config = self.config
            values = {k: v for k, v in hp.values.items() if not k.startswith("tuner/")}
        history = RunDirectory(self.run_dir / "trials" / name).history()
        known = {TrialStatus.RUNNING: "running", TrialStatus.COMPLETED: "completed"}
        status, error = known.get(last.status, "failed"), None
        if status == "completed" and len(history) < config.epochs:
            status = "stopped"
        if status == "failed":
            error = read_error(self.run_dir, last.trial_id)["error"]
        scored = [one for one in rounds if one.status == TrialStatus.COMPLETED]
        row = history[-1] if scored and history else {}
        metrics = {
            column.removeprefix("val_"): value
            for column, value in row.items()
            if column.startswith("val_")
        }
        objective = _last(scored[-1], self._state.objective.name) if scored else None
        seconds = sum(_last(one, "seconds") for one in scored)
        found = objective, metrics, tuple(history), seconds, error
        return Trial(name, values, config, status, *found)

    # === Workers ===

    def _work_in_threads(self) -> None:
        names = [self.tuner_id]
        if not is_distributed():
            names = [f"tuner{index}" for index in range(self.workers)]
        self._processes = [TrialProcess(self._stopping) for _ in names]
        pairs = zip(names, self._processes, strict=True)
        threads = [threading.Thread(target=self._work, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, name: str, process: TrialProcess) -> None:
        """Carries out one trial after the other."""
        try:
            while not self._stopping.is_set():
                with self._oracle_alone():
                    if self._stopping.is_set():
                        return
                    trial = self.oracle.create_trial(name)
                if trial.status == TrialStatus.STOPPED:
                    return
                if trial.status == TrialStatus.IDLE:
                    time.sleep(IDLE_SECONDS)
                    continue
                done = threading.Event()
                if is_distributed():
                    # The chief answers with the trial that is under way.
                    done = self._every(
                        HEARTBEAT_SECONDS, self.oracle.create_trial, name
                    )
                outcome = self.run_trial(trial, process)
                done.set()
                self._report(trial, outcome)
        except BaseException as error:
            self._stop(error)

    def run_trial(self, trial: Assignment, process: TrialProcess) -> Outcome:
        """Has a trial trained.

        Args:
            trial: Its hyperparameters have values.
            process: What trains it.
        """
        hp = trial.hyperparameters
        name = first_round(self.oracle.get_trial, trial)
        try:
            values, config = self.space.configure(hp, self.config)
        except UserError as error:
            return Outcome(error=str(error), by_user=True)
        log = Path(self.get_trial_dir(name)) / "output.txt"
        until = hp.values.get("tuner/epochs")
        run_dir = self.run_dir / "trials" / name
        return process.run(log, train_trial, config, run_dir, until, values)

    @staticmethod
    def _every(seconds: float, call: Callable, *arguments: object) -> threading.Event:
        """Calls something again and again, until the event returned is set."""
        done = threading.Event()

        def repeat() -> None:
            while not done.wait(seconds):
                call(*arguments)

        threading.Thread(target=repeat, daemon=True).start()
        return done

    def _report(self, trial: Assignment, outcome: Outcome) -> None:
        """Tells the oracle what came of a trial."""
        if outcome.signal_number is not None:
            self._stop(Interrupted(outcome.signal_number))
            return
        if outcome.ends_search:
            raise OSError(
                f"Trial {trial.trial_id} cannot go on: {outcome.error}. Everything "
                "finished is kept; repair that and repeat the command."
            )
        objective = self.oracle.objective.name
        error = outcome.error
        if error is None:
            value = outcome.history[-1][objective]
            if not math.isfinite(value):
                error = f"{objective} is {value} after the last epoch."
        with self._oracle_alone():
            if self._stopping.is_set() and self._failure is not None:
                return
            if error is None:
                metrics = {objective: value, "seconds": outcome.seconds}
                self.oracle.update_trial(trial.trial_id, metrics)
                trial.status = TrialStatus.COMPLETED
            else:
                record = {
                    "error": error,
                    "by_user": outcome.by_user,
                    "out_of_memory": outcome.out_of_memory,
                }
                directory = Path(self.get_trial_dir(trial.trial_id))
                write_whole(directory / "error.json", json.dumps(record))
                trial.status, trial.message = TrialStatus.FAILED, error
            self.oracle.end_trial(trial)

    @contextlib.contextmanager
    def _oracle_alone(self) -> Iterator[None]:
        """Keeps other threads from the oracle; after an error for good.

        Keras Tuner's own lock would hold them for ever.
        """
        with self._lock:
            try:
                yield
            except BaseException as error:
                self._stop(error)
                raise

    # === What has ended ===

    def _ended(self, assignment: Assignment) -> None:
        """Takes note of a trial that has ended, where the oracle is."""
        oracle = self._state
        errors = [
            read_error(self.run_dir, name)
            if oracle.trials[name].status == TrialStatus.FAILED
            else None
            for name in oracle.end_order
        ]
        if (error := repeated_error(errors)) is not None:
            kind = UserError if error["by_user"] else TrainingFailed
            text = f"Three trials in a row failed with the same error: {error['error']}"
            self._stop(kind(text))
        trials = self.trials()
        best = ranked(trials)
        if best:
            write_whole(self.run_dir / "best.json", best[0].config.to_json())
        # Those that go on, or may, need their checkpoints.
        unfinished = map(oracle.trials.get, oracle.unfinished())
        kept = {first_round(oracle.get_trial, one) for one in unfinished}
        kept |= {trial.name for trial in best[: self.keep]}
        for trial in trials:
            if trial.name not in kept:
                directory = self.run_dir / "trials" / trial.name
                shutil.rmtree(directory / "checkpoints", ignore_errors=True)
                (directory / "model.keras").unlink(missing_ok=True)
        name = first_round(oracle.get_trial, assignment)
        ended = next(one for one in trials if one.name == name)
        line = line_of(ended, best, oracle.objective.name)
        count = f"{len(errors)} of {oracle.max_trials}"
        print(f"{count}: {line}", file=self._output, flush=True)

    def _stop(self, failure: BaseException) -> None:
        """Ends the search; other runs under way save their state."""
        self._failure = self._failure or failure
        self._stopping.set()
        self._state.stopped = True
        for process in self._processes:
            process.stop()

    def _interrupt(self, number: int) -> None:
        """Ends the search after the steps under way, at a signal."""
        self._stop(Interrupted(number))
        if is_chief():
            raise Interrupted(number)


def _last(assignment: Assignment, metric: str) -> float:
    """Returns what was last reported of a metric."""
    history = assignment.metrics.get_history(metric)
    # Reported twice by a search that was killed between the two.
    return float(history[-1].value[-1])
