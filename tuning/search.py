"""A search: from a configuration and a space to the best configuration found.

search.json       what is searched; the same search continues, another is refused
oracle.json       the state of Keras Tuner's oracle; trial_NAME/ what it knows of each
trials/NAME/      a run directory for each trial
best.json         the best configuration so far: `keras-alexnet train --config` takes it
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_tuner

from keras_alexnet.architectures import get_architecture
from keras_alexnet.errors import TrainingFailed, UserError, unknown
from keras_alexnet.files import write_whole
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.run_directory import (
    RunDirectory,
    check_same,
    explained,
    is_foreign,
    locked,
)
from keras_alexnet.tuning.oracles import TUNERS, is_chief, is_distributed, make_oracle
from keras_alexnet.tuning.space import SearchSpace, get_space
from keras_alexnet.tuning.trial_process import check_in_process
from keras_alexnet.tuning.trials import Trial, ranked
from keras_alexnet.tuning.tuner import ScheduleTuner

# What a run's history says of the validation images after each epoch.
OBJECTIVES = ("val_top1_error", "val_top5_error", "val_loss")
# Share of the training images to choose by, where the settings keep none.
VALIDATION = 0.1


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search has found.

    Attributes:
        run_dir: Where everything about the search is.
        config: The best configuration, which is also in best.json.
        best: The trial that it is from.
        trials: All trials, in the order in which they began.
        objective: What was minimised.
    """

    run_dir: Path
    config: TrainConfig
    best: Trial
    trials: tuple[Trial, ...]
    objective: str


def search(
    config: TrainConfig,
    space: str | Path | SearchSpace = "schedules",
    *,
    trials: int = 30,
    tuner: str = "random",
    objective: str = "val_top1_error",
    run_dir: str | Path = "runs/search",
    seed: int = 0,
    keep: int = 3,
    workers: int = 1,
) -> SearchResult:
    """Searches for the best training settings.

    Each trial is a run of `keras_alexnet.train` in a process of its own, with the same
    data, seed and number of epochs; the objective is its value after the last epoch. A
    search that was killed continues when it is called again: the trials that were
    running go on from their last checkpoints.

    Hyperband gives most trials few epochs and continues the best ones. Schedules are
    those of all epochs from the start, so a trial that is continued is, bit for bit,
    one that never paused.

    Several hosts search together where the environment variables of Keras Tuner's
    distributed mode are set and `run_dir` is on storage that they share; see
    docs/tuning.md. A program that calls this does so under
    `if __name__ == "__main__":`.

    Args:
        config: What the search varies.
        space: What to search: `"schedules"`, `"recipe"` or `"everything"`, a JSON file,
            or a `SearchSpace`.
        trials: How many trials there are at most. Each round of Hyperband counts as
            one, and one sweep of it ends the search.
        tuner: `"random"`, `"bayesian"` or `"hyperband"`.
        objective: What is minimised: `"val_top1_error"`, `"val_top5_error"` or
            `"val_loss"`.
        run_dir: Where to keep everything about the search.
        seed: Decides what is tried. The runs' own seed is that of `config`.
        keep: How many of the best trials keep their checkpoints and model.
        workers: How many trials run at the same time, on this machine.

    Returns:
        What was found.

    Raises:
        UserError: An argument makes no sense, `run_dir` holds something else, or three
            different trials in a row failed by the same mistake in their settings.
        keras_alexnet.errors.TrainingFailed: Three different trials in a row failed with
            the same error, or no trial succeeded.
        keras_alexnet.training.loop.Interrupted: SIGINT or SIGTERM came;
            the same call continues.
        OSError: The disk is full, or the directory cannot be written.
    """
    run_dir, space = Path(run_dir), get_space(space)
    _check(trials, tuner, objective, keep, workers)
    config = check_in_process(config).config
    get_architecture(config.architecture)
    # To choose by other images than those of the test.
    fraction = config.validation_fraction or VALIDATION
    config = dataclasses.replace(config, validation_fraction=fraction)
    space.check(config)
    identity = {
        **dataclasses.asdict(config),
        **{"tuner": tuner, "objective": objective, "search_seed": seed},
        "space": space.to_dict(),
    }
    goal = keras_tuner.Objective(objective, "min")
    hp = keras_tuner.HyperParameters()
    space.declare(hp, config)
    oracle = make_oracle(
        tuner, hp, goal, trials=trials, epochs=config.epochs, seed=seed
    )
    with _claimed(run_dir, identity):
        one = ScheduleTuner(oracle, config, space, run_dir.absolute(), keep, workers)
        one.search()
        if is_distributed() and not is_chief():
            # Its own oracle is empty; the chief's files are whole at any time.
            oracle.reload()
        found = one.trials()
    return _result(run_dir, found, objective)


def _check(trials: int, tuner: str, objective: str, keep: int, workers: int) -> None:
    """Raises a UserError unless the arguments make sense."""
    for name, value in (("trials", trials), ("workers", workers)):
        if value < 1:
            raise UserError(f"{name} must be at least 1. Received: {value}")
    if keep < 0:
        raise UserError(f"keep must not be negative. Received: {keep}")
    for name, kind, known in (
        (tuner, "tuner", TUNERS),
        (objective, "objective", OBJECTIVES),
    ):
        if name not in known:
            raise UserError(unknown(name, kind, known))


@contextlib.contextmanager
def _claimed(run_dir: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Keeps other searches out of the directory; writes search.json where it is new.

    Raises:
        UserError: It holds something else, another process searches here, or it cannot
            be written.
    """
    identity = json.loads(json.dumps(identity))
    _check_directory(run_dir, identity)
    alone = not is_distributed() or is_chief()
    with locked(run_dir) if alone else contextlib.nullcontext():
        with explained(run_dir):
            _check_directory(run_dir, identity)
            if not (run_dir / "search.json").is_file():
                run_dir.mkdir(parents=True, exist_ok=True)
                text = json.dumps(identity, indent=2) + "\n"
                write_whole(run_dir / "search.json", text)
        yield


def _check_directory(run_dir: Path, identity: dict[str, Any]) -> None:
    """Raises a UserError unless a directory is empty or holds this search."""
    directory = RunDirectory(run_dir)
    if (directory / "search.json").is_file():
        check_same(run_dir, "search", directory.read_json("search.json"), identity)
    elif run_dir.is_dir() and any(map(is_foreign, run_dir.iterdir())):
        raise UserError(
            f"{run_dir} holds files that are not a search's: choose another --run-dir."
        )


def _result(run_dir: Path, trials: list[Trial], objective: str) -> SearchResult:
    """Returns what was found.

    Raises:
        keras_alexnet.errors.TrainingFailed: No trial succeeded.
    """
    best = ranked(trials)
    if not best:
        errors = [trial.error for trial in trials if trial.error]
        reason = f", the last with this error: {errors[-1]}" if errors else "."
        raise TrainingFailed(f"None of {len(trials)} trials succeeded{reason}")
    return SearchResult(run_dir, best[0].config, best[0], tuple(trials), objective)
