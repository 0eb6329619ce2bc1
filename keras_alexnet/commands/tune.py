"""Search for settings, or train without each of the paper's inventions."""

from __future__ import annotations

import sys
from pathlib import Path

from keras_alexnet import cli
from keras_alexnet.commands.common import console
from keras_alexnet.config import read_settings
from keras_alexnet.recipes import configure
from keras_alexnet.training.loop import Interrupted
from keras_alexnet.tuning.ablation import ablate, table_of


def run(command: cli.Tune) -> int:
    """Runs the paper's ablations and prints what came of them."""
    if not command.ablation:
        raise ValueError("Nothing to do: give --ablation.")
    if command.seeds < 1:
        raise ValueError(f"--seeds must be at least 1. Received: {command.seeds}")
    values = read_settings(command.config) if command.config else {}
    flags = {"data": command.data, "epochs": command.epochs, "recipe": command.recipe}
    given = {name: value for name, value in flags.items() if value is not None}
    config = configure({**values, **given})
    seeds = range(config.seed, config.seed + command.seeds)
    try:
        result = ablate(config, Path(command.run_dir), seeds)
    except Interrupted as stop:
        print(f"\nStopped by {stop}; repeat the command to go on.")
        return 128 + stop.signal_number
    console.print(table_of(result))
    print(f"Also in {command.run_dir}: ablation.csv, ablation.json and the runs.")
    failed = sum(len(row.failures) for row in result.rows)
    if failed:
        print(
            f"{failed} runs failed; repeat the command to try them again.",
            file=sys.stderr,
        )
    return 1 if failed else 0
