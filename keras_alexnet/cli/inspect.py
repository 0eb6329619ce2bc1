"""`keras-alexnet inspect`: draw schedules before a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from keras_alexnet.errors import UserError
from keras_alexnet.schedules import Constant, Plateau, Schedule, parse_schedule
from keras_alexnet.training.config import TrainConfig, read_settings

if TYPE_CHECKING:
    from rich.table import Table

# Schedules by their written form, by what they are for.
Panels = Mapping[str, Mapping[str, Schedule]]
POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Draw schedules, or all those of a configuration, before any run."""

    schedule: tuple[str, ...] = ()
    """Schedules to compare, such as "cosine(0.02, warmup=0.05)" "dexp(0.01)"."""
    recipe: str | None = None
    """Recipe whose learning rate, dropout, multipliers and colour noise to draw."""
    config: str | None = None
    """JSON file of settings whose schedules to draw, such as a run's config.json."""
    out: str = "schedules.png"
    """The picture to write."""

    def run(self) -> int:
        """Draws schedules and prints some of their values."""
        from keras_alexnet.inspect import figures
        from keras_alexnet.inspect.tables import console

        asked = (self.schedule, self.recipe, self.config)
        if not any(asked):
            raise UserError("Nothing to draw: give --schedule, --recipe or --config.")
        if sum(bool(one) for one in asked) > 1:
            raise UserError("Give only one of --schedule, --recipe and --config.")
        if self.schedule:
            texts = {text: parse_schedule(text) for text in self.schedule}
            panels, epochs = {"Schedules": texts}, None
        else:
            given = {"recipe": self.recipe}
            if self.config:
                given = read_settings(self.config)
            config = TrainConfig(**given)
            if None in (config.learning_rate, config.epochs):
                raise UserError(
                    f"The recipe {config.recipe} chooses its schedules when the images "
                    "are known: give --config with a run's config.json."
                )
            panels, epochs = _panels(config), config.epochs
        figures.schedules(panels, Path(self.out), epochs)
        console.print(_table(panels, epochs))
        print(f"Drawn in {self.out}.")
        return 0


def _panels(config: TrainConfig) -> Panels:
    """Returns the schedules of a configuration, those that do something."""

    def panel(text: str) -> dict[str, Schedule]:
        return {text: parse_schedule(text)}

    def by_layer(what: str, name: str) -> None:
        texts, schedules = getattr(config, name) or (), config.by_layer(name)
        for text, (layer, schedule) in zip(texts, schedules.items(), strict=True):
            written = text.partition("=")[2].strip()
            panels[f"{what} of {layer}"] = {written: schedule}

    panels: dict[str, Mapping[str, Schedule]] = {
        "Learning rate": panel(config.learning_rate),
        "Dropout rate": panel(config.dropout),
    }
    by_layer("Dropout rate", "dropout_by_layer")
    if parse_schedule(config.bias_multiplier) != Constant(1.0):
        panels["Multiplier of biases"] = panel(config.bias_multiplier)
    by_layer("Multiplier", "rate_multipliers")
    noise = parse_schedule(config.color_noise)
    if noise != Constant(0.0):

        def at_epoch(progress: float) -> float:
            return noise(math.floor(progress * config.epochs + 1e-9) / config.epochs)

        panels["Colour noise"] = {config.color_noise: at_epoch}
    return panels


def _table(panels: Panels, epochs: int | None) -> Table:
    """Returns the values of schedules at quarters of a run, if its length is known."""
    from keras_alexnet.inspect.tables import make_table

    titles = ["what"] if len(panels) > 1 else []
    rows = [
        [title] * len(titles)
        + [text, *(_value(schedule, point, epochs) for point in POINTS)]
        for title, schedules in panels.items()
        for text, schedule in schedules.items()
    ]
    points = (f">{point:.0%}" for point in POINTS)
    return make_table(None, (*titles, "schedule", *points), rows)


def _value(schedule: Schedule, progress: float, epochs: int | None) -> str:
    value = f"{schedule(progress):.4g}"
    if isinstance(schedule, Plateau):
        lowest = f"{schedule.lowest(progress, epochs):.4g}"
        return value if lowest == value else f"{lowest} to {value}"
    return value
