"""The best configuration of a search against the default one, with fresh seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.errors import UserError
from keras_alexnet.files import write_whole
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.loop import Interrupted
from keras_alexnet.training.run_directory import MAY_CHANGE_ON_RESUME, RunDirectory
from keras_alexnet.training.train import TrainResult, train
from keras_alexnet.tuning.paired import Paired

METRICS = ("top1_error", "top5_error", "loss")

Metrics = Mapping[str, float]
Train = Callable[[TrainConfig], TrainResult]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came of the same seeds with two configurations.

    Attributes:
        seeds: The seeds that both were to be trained with.
        best: Metrics on the test images, by seed, of the best configuration.
        default: The same of the default one.
        failures: What failed, in one line each.
    """

    seeds: tuple[int, ...]
    best: Mapping[int, Metrics]
    default: Mapping[int, Metrics]
    failures: tuple[str, ...] = ()

    def values(self, metric: str) -> tuple[dict[int, float], dict[int, float]]:
        """Returns a metric of the best and of the default, by seed."""
        return tuple(
            {seed: metrics[metric] for seed, metrics in runs.items()}
            for runs in (self.best, self.default)
        )

    def paired(self, metric: str) -> Paired:
        """Returns the differences, best minus default, of a metric."""
        return Paired.of(*self.values(metric))


def compare(
    best: TrainConfig,
    default: TrainConfig,
    directory: Path,
    seeds: Sequence[int] = (1000, 1001, 1002),
    train: Train = train,
) -> Comparison:
    """Trains two configurations with the same fresh seeds.

    The seed decides the test images, where the data are not split, and everything else
    that is random. Both configurations get the same at each seed, so none of them is
    judged by easier images. Whatever else they differ in is what is compared.

    Runs that have finished are not trained again, so that an interrupted comparison is
    continued by calling this again. A run that fails is recorded, and its seed does not
    count.

    Args:
        best: A configuration; its seed is not used.
        default: What it is compared with.
        directory: Where `comparison/` goes, with a run directory for each seed and
            configuration, and with `comparison.json`.
        seeds: Seeds that the search has not used.
        train: What trains, `keras_alexnet.train`.

    Raises:
        ValueError: A seed was used by the search, is given twice, or there is none; the
            two have different data, which would not be comparable.
        keras_alexnet.training.loop.Interrupted: Training was asked to stop.
    """
    _check(best, default, seeds)
    runs: dict[str, dict[int, Metrics]] = {"best": {}, "default": {}}
    failures = []
    for seed in seeds:
        for name, config in (("best", best), ("default", default)):
            seeded = dataclasses.replace(config, seed=seed)
            run_dir = directory / "comparison" / f"{name}-{seed}-{_digest(config)}"
            metrics, failure = train_once(seeded, run_dir, train)
            if failure:
                failures.append(f"{name}, seed {seed}: {failure}")
            else:
                runs[name][seed] = metrics
    comparison = Comparison(tuple(seeds), **runs, failures=tuple(failures))
    text = json.dumps(_to_json(comparison), indent=2) + "\n"
    (directory / "comparison").mkdir(parents=True, exist_ok=True)
    write_whole(directory / "comparison" / "comparison.json", text)
    return comparison


def train_once(
    config: TrainConfig,
    run_dir: Path,
    train: Train,
    may_raise: tuple[type[Exception], ...] = (),
) -> tuple[Metrics, str | None]:
    """Trains, or goes on, or reads the result of what has finished.

    Args:
        config: What to train.
        run_dir: The run's directory.
        train: What trains.
        may_raise: Errors that are not recorded but raised.

    Returns:
        The metrics, and what failed, in one line, or None.

    Raises:
        keras_alexnet.training.loop.Interrupted: Training was asked to stop.
    """
    try:
        resume = RunDirectory(run_dir).holds_run()
        return train(config, run_dir, resume=resume).metrics, None
    except (Interrupted, *may_raise):
        raise
    except Exception as error:  # Out of memory, diverged, a plugin: one run of many.
        return {}, one_line(error)


def one_line(error: BaseException) -> str:
    """Returns an error's kind and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".removesuffix(": ")


def _check(best: TrainConfig, default: TrainConfig, seeds: Sequence[int]) -> None:
    """Raises a ValueError where a comparison would not be a fair one."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(
            "A comparison needs seeds, each of them once. "
            f"Received: {', '.join(map(str, seeds)) or 'none'}"
        )
    used = {best.seed, default.seed} & set(seeds)
    if used:
        raise UserError(
            f"The seed {min(used)} was used by the search, which chose what suits it: "
            "compare with other seeds."
        )
    for name in ("data", "test_fraction"):
        ours, theirs = getattr(best, name), getattr(default, name)
        if ours != theirs:
            raise UserError(
                f"Only configurations of the same {name} can be compared. "
                f"Received: {ours} and {theirs}"
            )


def _digest(config: TrainConfig) -> str:
    """Returns a few letters that other settings would not have.

    A search that goes on may find another best configuration, whose runs are not those
    of the one before.
    """
    settings = dataclasses.asdict(config)
    for name in MAY_CHANGE_ON_RESUME | {"seed"}:
        del settings[name]
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _to_json(comparison: Comparison) -> dict[str, Any]:
    """Returns what a program reads, with the spreads worked out."""
    values = dataclasses.asdict(comparison)
    for metric in METRICS:
        paired = comparison.paired(metric)
        values[f"{metric}_difference"] = {
            "mean": paired.mean,
            "standard_deviation": paired.spread,
            "exceeds_spread": paired.exceeds_spread,
        }
    return values
