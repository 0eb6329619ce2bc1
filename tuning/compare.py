"""Paired comparison: the best configuration of a search against the default one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scipy.stats import t

from keras_alexnet.errors import UserError
from keras_alexnet.files import write_whole
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.run_directory import MAY_CHANGE_ON_RESUME
from keras_alexnet.tuning.trial_process import Outcome, train_in_process

METRICS = {"top1_error": "top-1 error", "top5_error": "top-5 error", "loss": "loss"}

Metrics = Mapping[str, float]
Train = Callable[[TrainConfig, Path], Outcome]


def deviation(values: Sequence[float]) -> float | None:
    """Returns the standard deviation of a sample (n - 1), None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


@dataclasses.dataclass(frozen=True)
class Paired:
    """What a configuration changes against another at each of some seeds.

    At the same seed both have the same splits, the same order of the training images
    and, where their networks are alike, the same initial weights. So what a seed does
    to both alike is not in the difference.

    Attributes:
        differences: Ours minus theirs, one per seed.
    """

    differences: tuple[float, ...]

    @classmethod
    def of(cls, ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired:
        """Pairs values by seed; a seed that only one of them has does not count."""
        seeds = [seed for seed in ours if seed in theirs]
        return cls(tuple(ours[seed] - theirs[seed] for seed in seeds))

    @property
    def mean(self) -> float | None:
        """The mean difference; None without any."""
        return statistics.fmean(self.differences) if self.differences else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the differences (n - 1); None for fewer than 2."""
        return deviation(self.differences)

    @property
    def is_clear(self) -> bool:
        """Whether the mean difference is larger than its standard deviation."""
        return self.deviation is not None and abs(self.mean) > self.deviation

    @property
    def p_value(self) -> float | None:
        """The two-sided p-value of the paired t-test (Student 1908).

        None where the differences do not differ.
        """
        if not self.deviation:
            return None
        return _two_sided(abs(self.mean) / self.deviation, len(self.differences))


def false_positive_rate(count: int) -> float:
    """Returns how often chance alone makes a difference clear (`Paired.is_clear`).

    Args:
        count: The number of differences, at least 2.
    """
    return _two_sided(1.0, count)


def _two_sided(ratio: float, count: int) -> float:
    """Returns the p-value of a mean of `ratio` sample standard deviations."""
    return float(2 * t.sf(ratio * math.sqrt(count), count - 1))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came of the same seeds with two configurations.

    Attributes:
        seeds: The seeds that both were to be trained with.
        best: Metrics on the test split, by seed, of the best configuration.
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
    train: Train = train_in_process,
) -> Comparison:
    """Trains two configurations with the same fresh seeds, judged on the test split.

    The seed decides everything that is random, the splits too where the data are not
    split. Both configurations get the same at each seed, so none of them is judged by
    easier images. Whatever else they differ in is what is compared.

    Runs that have finished are not trained again, so that an interrupted comparison is
    continued by calling this again. A run that fails is recorded, and its seed does not
    count.

    Args:
        best: A configuration; its seed is not used.
        default: What it is compared with.
        directory: Where `comparison/` goes, with a run directory for each seed and
            configuration, and with `comparison.json`.
        seeds: Seeds that the search has not used.
        train: What trains a configuration in a run directory.

    Raises:
        UserError: A seed was used by the search, is given twice, or there is none; the
            two have different data, which would not be comparable.
        SearchInterrupted: Training was asked to stop.
    """
    _check(best, default, seeds)
    directory = directory / "comparison"
    runs: dict[str, dict[int, Metrics]] = {"best": {}, "default": {}}
    failures = []
    for seed in seeds:
        for name, config in (("best", best), ("default", default)):
            run_dir = directory / f"{name}-{seed}-{_digest(config)}"
            outcome = train_with_seed(name, config, seed, run_dir, train)
            if outcome.error:
                failures.append(f"{name}, seed {seed}: {outcome.error}")
            else:
                runs[name][seed] = outcome.metrics
    comparison = Comparison(tuple(seeds), **runs, failures=tuple(failures))
    values = dataclasses.asdict(comparison)
    for metric in METRICS:
        paired = comparison.paired(metric)
        values[f"{metric}_difference"] = {
            "mean": paired.mean,
            "standard_deviation": paired.deviation,
            "is_clear": paired.is_clear,
        }
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / "comparison.json", json.dumps(values, indent=2) + "\n")
    return comparison


def check_seeds(what: str, seeds: Sequence[int]) -> None:
    """Raises a UserError unless there are seeds, each of them once."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(
            f"{what} needs seeds, each of them once. "
            f"Received: {', '.join(map(str, seeds)) or 'none'}"
        )


def train_with_seed(
    name: str, config: TrainConfig, seed: int, run_dir: Path, train: Train
) -> Outcome:
    """Trains with another seed, or reads the result of what has finished; says so.

    Args:
        name: What to call it.
        config: What to train.
        seed: The seed.
        run_dir: The run's directory.
        train: What trains.
    """
    outcome = train(dataclasses.replace(config, seed=seed), run_dir)
    text = f"failed: {outcome.error}"
    if not outcome.error:
        text = f"top-1 error {outcome.metrics['top1_error']:.2%} on the test split"
    print(f"{name}, seed {seed}: {text}", flush=True)
    return outcome


def _check(best: TrainConfig, default: TrainConfig, seeds: Sequence[int]) -> None:
    """Raises a UserError where a comparison would not be a fair one."""
    check_seeds("A comparison", seeds)
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
        settings.pop(name, None)
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
