"""Draw schedules before a run."""

from __future__ import annotations

from pathlib import Path

from keras_alexnet import cli
from keras_alexnet.cli.common import console
from keras_alexnet.errors import UserError
from keras_alexnet.inspect import figures
from keras_alexnet.inspect.schedules import panels_of, table_of
from keras_alexnet.schedules import parse_schedule
from keras_alexnet.training.config import read_settings
from keras_alexnet.training.recipes import configure


def run(command: cli.Inspect) -> int:
    """Draws schedules and prints some of their values."""
    asked = (command.schedule, command.recipe, command.config)
    if sum(bool(one) for one in asked) != 1:
        raise UserError(
            "Nothing to draw: give --schedule, --recipe or --config."
            if not any(asked)
            else "Give only one of --schedule, --recipe and --config."
        )
    if command.schedule:
        texts = {text: parse_schedule(text) for text in command.schedule}
        panels, epochs = {"Schedules": texts}, None
    else:
        settings = (
            read_settings(command.config)
            if command.config
            else {"recipe": command.recipe}
        )
        config = configure(settings)
        panels, epochs = panels_of(config), config.epochs
    Path(command.out).parent.mkdir(parents=True, exist_ok=True)
    figures.schedules(panels, Path(command.out), epochs)
    console.print(table_of(panels, epochs))
    print(f"Drawn in {command.out}.")
    return 0
