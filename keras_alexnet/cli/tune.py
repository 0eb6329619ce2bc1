"""Search for settings, or train without each of the paper's inventions."""

from __future__ import annotations

import sys
from pathlib import Path

from keras_alexnet import cli
from keras_alexnet.cli.common import console
from keras_alexnet.errors import UserError
from keras_alexnet.training.config import TrainConfig, read_settings
from keras_alexnet.training.loop import Interrupted
from keras_alexnet.training.recipes import configure
from keras_alexnet.tuning import search
from keras_alexnet.tuning.ablation import ablate, table_of
from keras_alexnet.tuning.comparison import compare
from keras_alexnet.tuning.progress import Progress
from keras_alexnet.tuning.report import write_report
from keras_alexnet.tuning.tuner import SearchInterrupted

# Seeds that no search has used begin here, counted from the runs' own.
FRESH = 1000


def run(command: cli.Tune) -> int:
    """Searches, or ablates, and prints what was found."""
    values = read_settings(command.config) if command.config else {}
    names = ("data", "recipe", "epochs", "seed", "precision", "replicas")
    flags = {name: getattr(command, name) for name in names}
    given = {name: value for name, value in flags.items() if value is not None}
    config = configure({**values, **given})
    least = 1 if command.ablation else 0
    if command.seeds < least:
        raise UserError(f"--seeds must be at least {least}. Received: {command.seeds}")
    try:
        return (
            _ablate(command, config) if command.ablation else _search(command, config)
        )
    except (SearchInterrupted, Interrupted) as stop:
        print(f"Stopped by {stop}; everything is saved. The same command continues.")
        return 128 + stop.signal_number


def _search(command: cli.Tune, config: TrainConfig) -> int:
    result = search(
        config,
        command.space,
        trials=command.trials,
        tuner=command.tuner,
        objective=command.objective,
        run_dir=command.run_dir,
        seed=command.search_seed,
        keep=command.keep,
        early_stopping=command.early_stopping,
        workers=command.workers,
    )
    comparison = None
    if command.seeds:
        seeds = range(config.seed + FRESH, config.seed + FRESH + command.seeds)
        comparison = compare(result.config, config, result.run_dir, tuple(seeds))
    report = write_report(
        result.run_dir,
        result.trials,
        objective=result.objective,
        direction=result.direction,
        comparison=comparison,
    )
    progress = Progress(result.objective, result.direction, command.trials)
    console.print(progress.leaderboard(result.trials))
    print(
        f"Best of {len(result.trials)} trials: {result.best.name}. Read {report}. "
        f"Train it: keras-alexnet train --config {result.run_dir / 'best.json'} "
        "--run-dir ..."
    )
    return 0


def _ablate(command: cli.Tune, config: TrainConfig) -> int:
    seeds = range(config.seed, config.seed + command.seeds)
    result = ablate(config, Path(command.run_dir), seeds)
    console.print(table_of(result))
    print(f"Also in {command.run_dir}: ablation.csv, ablation.json and the runs.")
    failed = sum(len(row.failures) for row in result.rows)
    if failed:
        print(
            f"{failed} runs failed; repeat the command to try them again.",
            file=sys.stderr,
        )
    return 1 if failed else 0
