"""Durable oracles: Keras Tuner's, which decide what to try, made to survive a kill.

An oracle's state is in `oracle.json`, each of its trials in `trial_<name>/trial.json`:
Keras Tuner's own files, which its own tools read. What differs: files are there whole
or not at all, a trial that the state does not know yet is given again, failures do not
end a search by their number, and a worker on another host that falls silent gives its
trial back.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import keras_tuner
from keras_tuner.engine.trial import Trial as Assignment
from keras_tuner.engine.trial import TrialStatus

from keras_alexnet.files import write_whole

# How long a worker on another host may be silent; it speaks every 15 seconds.
SILENCE_SECONDS = 120.0
# Rounds of Hyperband keep one of so many trials, and train it so many times as long.
HYPERBAND_FACTOR = 3
# One of so many trials of a Bayesian search is random: the first ones.
RANDOM_PART = 3


class DurableOracle(keras_tuner.Oracle):
    """What all oracles of a search have in common; mixed into Keras Tuner's.

    Attributes:
        on_end: Called with each assignment that has ended.
        stopped: Whether no more trials are given out.
        heard: When each worker last asked for something, by the monotonic clock.
    """

    on_end: Callable[[Assignment], None] | None = None
    stopped: bool = False

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.heard: dict[str, float] = {}

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Assignment:
        """Gives a worker a trial; asked again by the same worker, the same trial."""
        self.heard[tuner_id] = time.monotonic()
        if self.stopped and tuner_id not in self.ongoing_trials:
            self.tuner_ids.discard(tuner_id)
            return Assignment(self.get_space(), status=TrialStatus.STOPPED)
        return super().create_trial(tuner_id)

    @keras_tuner.synchronized
    def end_trial(self, trial: Assignment) -> None:
        """Takes a trial's outcome."""
        if trial.trial_id in self.end_order:
            # Of a worker that was thought dead, and whose trial another has finished.
            return
        super().end_trial(trial)
        # Keras Tuner saves before it takes the trial from its worker.
        self.save()
        if self.on_end is not None:
            self.on_end(self.trials[trial.trial_id])

    @keras_tuner.synchronized
    def take_back_from_silent(self) -> list[str]:
        """Gives the trials of workers that have fallen silent to others.

        Returns:
            The workers' names.
        """
        latest = time.monotonic() - SILENCE_SECONDS
        silent = [one for one, heard in self.heard.items() if heard < latest]
        for tuner_id in silent:
            del self.heard[tuner_id]
            self.tuner_ids.discard(tuner_id)
            trial = self.ongoing_trials.pop(tuner_id, None)
            if trial is not None:
                self._retry_queue.append(trial.trial_id)
        if silent:
            self.save()
        return silent

    def unfinished(self) -> set[str]:
        """Names the trials whose checkpoints may still be needed."""
        return {
            name
            for name, trial in self.trials.items()
            if trial.status == TrialStatus.RUNNING
        }

    def save(self) -> None:
        """Writes oracle.json."""
        write_whole(Path(self._get_oracle_fname()), json.dumps(self.get_state()))

    def _save_trial(self, trial: Assignment) -> None:
        directory = Path(self._get_trial_dir(trial.trial_id))
        write_whole(directory / "trial.json", json.dumps(trial.get_state()))

    def reload(self) -> None:
        """Reads oracle.json and the trials; those that were running are given again."""
        super().reload()
        # Written, but not yet known to the state when the search was killed: the state
        # will name and fill it in the same way again.
        for name in set(self.trials) - set(self.start_order):
            del self.trials[name]
        # Killed between Keras Tuner's saving and its taking the trial from its worker.
        ended = set(self.end_order)
        self._retry_queue = [name for name in self._retry_queue if name not in ended]
        if not is_distributed():
            return
        # Workers on other hosts may be at work still.
        state = json.loads(Path(self._get_oracle_fname()).read_text(encoding="utf-8"))
        for tuner_id, name in state["ongoing_trials"].items():
            if name in ended:
                continue
            self._retry_queue.remove(name)
            self.ongoing_trials[tuner_id] = self.trials[name]
            self.tuner_ids.add(tuner_id)
            self.heard[tuner_id] = time.monotonic()

    def _check_consecutive_failures(self) -> None:
        """Nothing: the search itself looks at what failed, and why."""


class RandomOracle(DurableOracle, keras_tuner.oracles.RandomSearchOracle):
    """Values drawn at random."""


class BayesianOracle(DurableOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Values where a Gaussian process expects something good, or knows little."""


class HyperbandOracle(DurableOracle, keras_tuner.oracles.HyperbandOracle):
    """Many short trials, of which the best are continued."""

    def unfinished(self) -> set[str]:
        """Names the trials that run, or that a later round may continue."""
        names = super().unfinished()
        for bracket in self._brackets:
            rounds = bracket["rounds"]
            for number, following in enumerate(rounds[1:], start=1):
                if len(following) < self._get_size(bracket["bracket_num"], number):
                    continued = {one["past_id"] for one in following}
                    names |= {one["id"] for one in rounds[number - 1]} - continued
        return names


def is_distributed() -> bool:
    """Says whether the environment variables make this one of several hosts."""
    return "KERASTUNER_ORACLE_IP" in os.environ


def is_chief() -> bool:
    """Says whether this host gives out the trials."""
    return is_distributed() and "chief" in os.environ["KERASTUNER_TUNER_ID"]


TUNERS = {
    "random": RandomOracle,
    "bayesian": BayesianOracle,
    "hyperband": HyperbandOracle,
}


def make_oracle(
    tuner: str,
    hyperparameters: keras_tuner.HyperParameters,
    objective: keras_tuner.Objective,
    *,
    trials: int,
    epochs: int,
    seed: int,
) -> DurableOracle:
    """Makes the oracle of a tuner.

    Args:
        tuner: A key of `TUNERS`.
        hyperparameters: The space.
        objective: What is best, and which way.
        trials: How many there are at most; each round of Hyperband counts as one.
        epochs: Length of a full run.
        seed: Decides what is tried.
    """
    options = {"max_trials": trials}
    if tuner == "hyperband":
        options = {"max_epochs": epochs, "factor": HYPERBAND_FACTOR}
    if tuner == "bayesian":
        # By default three per parameter are random, most often all there are.
        options["num_initial_points"] = max(3, trials // RANDOM_PART)
    oracle = TUNERS[tuner](
        objective=objective,
        hyperparameters=hyperparameters,
        allow_new_entries=False,
        seed=seed + 1,  # Keras Tuner takes 0 for "any".
        **options,
    )
    oracle.max_trials = trials
    # So often something is drawn that was tried already until all counts as tried.
    oracle._max_collisions = 1000
    oracle.verbose = 0
    return oracle
