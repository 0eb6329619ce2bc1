"""`keras-alexnet tune`: search for settings, or ablate them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Literal

from keras_alexnet.errors import UserError
from keras_alexnet.training.config import TrainConfig, read_settings

# Seeds that no search has used begin here, counted from the runs' own.
FRESH = 1000


@dataclasses.dataclass(frozen=True)
class Tune:
    """Search for the best schedules and settings; continue a search that was stopped.

    Settings of the runs are those of the recipe, then of --config, then of the flags.
    """

    run_dir: str = "runs/search"
    """Directory of the search: state, a run directory for each trial, best.json,
    report.md."""
    trials: int = 30
    """How many trials there are at most."""
    tuner: Literal["random", "bayesian", "hyperband"] = "random"
    """How the next trial is chosen. Hyperband continues the best of many short trials;
    each of its rounds counts as one."""
    space: str = "schedules"
    """What is searched: schedules, recipe, everything, or a JSON file."""
    objective: str = "val_top1_error"
    """What is compared after the last epoch: val_top1_error, val_top5_error or
    val_loss."""
    keep: int = 3
    """How many of the best trials keep their weights."""
    workers: int = 1
    """How many trials run at the same time, on this machine."""
    gpu_memory: float | None = None
    """GiB of each GPU's memory that a trial takes at most. By default what it needs,
    as it needs it."""
    search_seed: int = 0
    """Seed of what is tried."""
    seeds: int = 3
    """With how many fresh seeds the best settings are compared with those that the
    search began from; 0 for no comparison. Of --ablation: how often each is trained."""
    ablation: bool = False
    """In place of a search: leave out normalisation, overlapping pooling, towers,
    dropout and augmentation, one after the other, as the paper did."""

    data: str | None = None
    """Images to train on; see `keras-alexnet train --help`."""
    recipe: str | None = None
    """Recipe that the search varies."""
    config: str | None = None
    """JSON file of settings that the search varies, such as a run's config.json."""
    epochs: int | None = None
    """Passes over the training images."""
    seed: int | None = None
    """Seed of the runs."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """Precision of the computations."""
    replicas: int | None = None
    """Devices to train each trial on."""

    def run(self) -> int:
        """Searches, or ablates, and prints what was found."""
        from keras_alexnet.training.loop import Interrupted

        values = read_settings(self.config) if self.config else {}
        names = ("data", "recipe", "epochs", "seed", "precision", "replicas")
        flags = {name: getattr(self, name) for name in names}
        given = {name: value for name, value in flags.items() if value is not None}
        config = TrainConfig(**{**values, **given})
        least = 1 if self.ablation else 0
        if self.seeds < least:
            raise UserError(f"--seeds must be at least {least}. Received: {self.seeds}")
        try:
            return self._ablate(config) if self.ablation else self._search(config)
        except Interrupted as stop:
            print(
                f"Stopped by {stop}; everything is saved. The same command continues."
            )
            return 128 + stop.signal_number

    def _search(self, config: TrainConfig) -> int:
        from keras_alexnet.tuning import search
        from keras_alexnet.tuning.compare import compare
        from keras_alexnet.tuning.oracles import is_chief, is_distributed
        from keras_alexnet.tuning.report import write_report

        result = search(
            config,
            self.space,
            trials=self.trials,
            tuner=self.tuner,
            objective=self.objective,
            run_dir=self.run_dir,
            seed=self.search_seed,
            keep=self.keep,
            workers=self.workers,
        )
        print(
            f"Best of {len(result.trials)} trials: {result.best.name}, "
            f"{result.objective} {result.best.objective:.4g}."
        )
        if is_distributed() and not is_chief():
            return 0  # One host compares and reports.
        comparison = None
        if self.seeds:
            seeds = range(config.seed + FRESH, config.seed + FRESH + self.seeds)
            comparison = compare(result.config, config, result.run_dir, tuple(seeds))
        report = write_report(
            result.run_dir,
            result.trials,
            objective=result.objective,
            comparison=comparison,
        )
        print(
            f"Read {report}. Train the best: keras-alexnet train --config "
            f"{result.run_dir / 'best.json'} --run-dir ..."
        )
        return 0

    def _ablate(self, config: TrainConfig) -> int:
        from keras_alexnet.inspect.tables import console
        from keras_alexnet.tuning.ablation import ablate, table_of

        seeds = range(config.seed, config.seed + self.seeds)
        result = ablate(config, Path(self.run_dir), seeds)
        console.print(table_of(result))
        print(f"Also in {self.run_dir}: ablation.csv and the runs.")
        failed = sum(len(row.runs.failures) for row in result.rows)
        if failed:
            print(
                f"{failed} runs failed; repeat the command to try them again.",
                file=sys.stderr,
            )
        return 1 if failed else 0
