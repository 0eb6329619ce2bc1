"""Paired comparison: the best configuration of a search against the default one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from scipy.stats import ttest_1samp

from keras_alexnet.errors import UserError
from keras_alexnet.files import write_whole
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.run_directory import MAY_CHANGE_ON_RESUME
from keras_alexnet.tuning.trial_process import Outcome, train_in_process

METRICS = {"top1_error": "top-1 error", "top5_error": "top-5 error", "loss": "loss"}

Metrics = Mapping[str, float]
Train = Callable[[TrainConfig, Path], Outcome]


def amount(value: float, metric: str, sign: str = "") -> str:
    """Writes an error in per cent, anything else as it is."""
    if metric.endswith("_error"):
        return f"{100 * value:{sign}.2f} %"
    return f"{value:{sign}.4f}"


def mean(values: Iterable[float], metric: str, sign: str = "") -> str:
    """Writes mean ± standard deviation (n - 1), or what there is of them."""
    values = list(values)
    if not values:
        return "-"
    text = amount(statistics.fmean(values), metric, sign)
    if len(values) == 1:
        return text
    return f"{text.removesuffix(' %')} ± {amount(deviation(values), metric)}"


def deviation(values: Sequence[float]) -> float | None:
    """Returns the standard deviation of a sample (n - 1), None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


@dataclasses.dataclass(frozen=True)
class Runs:
    """What came of one configuration with several seeds.

    Attributes:
        metrics: On the test split, by seed.
        failures: What failed, in one line each, by seed.
    """

    metrics: dict[int, Metrics] = dataclasses.field(default_factory=dict)
    failures: dict[int, str] = dataclasses.field(default_factory=dict)

    def values(self, metric: str) -> dict[int, float]:
        """Returns a metric by seed."""
        return {seed: metrics[metric] for seed, metrics in self.metrics.items()}

    def minus(self, other: Runs, metric: str) -> Paired:
        """Returns the differences of a metric, seed by seed.

        A seed that only one of the two has does not count.
        """
        ours, theirs = self.values(metric), other.values(metric)
        seeds = [seed for seed in ours if seed in theirs]
        return Paired(tuple(ours[seed] - theirs[seed] for seed in seeds))

    def train(
        self, name: str, config: TrainConfig, seed: int, run_dir: Path, train: Train
    ) -> Outcome:
        """Trains with another seed, or reads the result of what has finished.

        Says what came of it, and keeps it.

        Args:
            name: What to call it.
            config: What to train.
            seed: The seed.
            run_dir: The run's directory.
            train: What trains.
        """
        outcome = train(dataclasses.replace(config, seed=seed), run_dir)
        if outcome.error:
            self.failures[seed] = outcome.error
            text = f"failed: {outcome.error}"
        else:
            self.metrics[seed] = outcome.metrics
            text = f"top-1 error {outcome.metrics['top1_error']:.2%} on the test split"
        print(f"{name}, seed {seed}: {text}", flush=True)
        return outcome


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
        return float(ttest_1samp(self.differences, 0.0).pvalue)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came of the same seeds with two configurations.

    Attributes:
        seeds: The seeds that both were to be trained with.
        best: The runs of the best configuration.
        default: Those of the default one.
    """

    seeds: tuple[int, ...]
    best: Runs = dataclasses.field(default_factory=Runs)
    default: Runs = dataclasses.field(default_factory=Runs)

    @property
    def failures(self) -> list[str]:
        """What failed, in one line each."""
        return [
            f"{name}, seed {seed}: {text}"
            for name in ("best", "default")
            for seed, text in getattr(self, name).failures.items()
        ]

    def paired(self, metric: str) -> Paired:
        """Returns the differences, best minus default, of a metric."""
        return self.best.minus(self.default, metric)


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
        keras_alexnet.training.loop.Interrupted: Training was asked to stop.
    """
    _check(best, default, seeds)
    directory = directory / "comparison"
    comparison = Comparison(tuple(seeds))
    for seed in seeds:
        for name, config in (("best", best), ("default", default)):
            run_dir = directory / f"{name}-{seed}-{_digest(config)}"
            getattr(comparison, name).train(name, config, seed, run_dir, train)
    values = dataclasses.asdict(comparison)
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
