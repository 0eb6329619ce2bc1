"""Does a search find schedules that beat the recipe's, and what does it cost?

On half of the digits' training images: 30 random trials of 8 epochs, then the best and
the recipe itself with three seeds that the search has not seen, which also split the
images anew.

    keras-alexnet benchmark tuning
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

from rich.table import Table

from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import write_json
from keras_alexnet.inspect.tables import console
from keras_alexnet.training.config import TrainConfig, get_recipe
from keras_alexnet.training.train import train
from keras_alexnet.tuning import search

TRIALS = 30
EPOCHS = 8
SEEDS = (101, 102, 103)
# Of each class 80 % are for training by default; half of that is left here.
TEST_FRACTION = 0.6


def errors(config: TrainConfig, directory: Path, seeds: tuple[int, ...]) -> list[float]:
    """Returns the test error with each seed."""
    found = []
    for seed in seeds:
        again = dataclasses.replace(config, seed=seed)
        found.append(train(again, directory / str(seed)).metrics["top1_error"])
    return found


def run(options: Options) -> None:
    """Searches, compares, and writes both as JSON."""
    quick = options.quick
    trials, epochs, seeds = (1, 1, SEEDS[:1]) if quick else (TRIALS, EPOCHS, SEEDS)
    recipe = dataclasses.replace(
        get_recipe("digits"), epochs=epochs, test_fraction=TEST_FRACTION
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        begin = time.monotonic()
        result = search(recipe, trials=trials, run_dir=directory / "search")
        seconds = time.monotonic() - begin
        training = sum(trial.seconds for trial in result.trials)
        found = {
            "recipe": errors(recipe, directory / "recipe", seeds),
            "best of the search": errors(result.config, directory / "best", seeds),
        }
    table = Table(title=f"{trials} trials: test error with seeds {seeds}")
    for heading in ("what", "learning rate", "dropout", "mean", "lowest - highest"):
        table.add_column(heading)
    for (what, values), config in zip(
        found.items(), (recipe, result.config), strict=True
    ):
        table.add_row(
            *(what, config.learning_rate, config.dropout),
            f"{statistics.mean(values):.2%}",
            f"{min(values):.2%} - {max(values):.2%}",
        )
    console.print(table)
    overhead = seconds / training - 1
    print(f"{seconds:.0f} s, of which beyond training {overhead:.1%}")
    write_json(
        "tuning",
        options,
        errors=found,
        learning_rate=result.config.learning_rate,
        dropout=result.config.dropout,
        seconds=seconds,
        seconds_beyond_training=seconds - training,
    )
