"""What a configuration's schedules will do, before any run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich.table import Table
from rich.text import Text

from keras_alexnet.schedules import Constant, Plateau, Schedule, parse_schedule
from keras_alexnet.training.config import TrainConfig

# Schedules by their written form, by what they are for.
Panels = Mapping[str, Mapping[str, Schedule]]
POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def panels_of(config: TrainConfig) -> Panels:
    """Returns the schedules of a configuration, those that do something."""

    def panel(text: str) -> dict[str, Schedule]:
        return {text: parse_schedule(text)}

    panels = {
        "Learning rate": panel(config.learning_rate),
        "Dropout rate": panel(config.dropout),
    }
    _add_by_layer(
        panels, "Dropout rate", config.dropout_by_layer, config.layer_dropouts()
    )
    if parse_schedule(config.bias_multiplier) != Constant(1.0):
        panels["Multiplier of biases"] = panel(config.bias_multiplier)
    _add_by_layer(
        panels, "Multiplier", config.rate_multipliers, config.layer_multipliers()
    )
    noise = parse_schedule(config.color_noise)
    if noise != Constant(0.0):

        def at_epoch(progress: float) -> float:
            return noise(math.floor(progress * config.epochs + 1e-9) / config.epochs)

        panels["Colour noise"] = {config.color_noise: at_epoch}
    return panels


def _add_by_layer(
    panels: dict[str, Mapping[str, Schedule]],
    what: str,
    texts: Iterable[str],
    schedules: Mapping[str, Schedule],
) -> None:
    """Adds a panel for each layer that has a schedule of its own."""
    for text, (layer, schedule) in zip(texts, schedules.items(), strict=True):
        panels[f"{what} of {layer}"] = {text.partition("=")[2].strip(): schedule}


def table_of(panels: Panels, epochs: int | None = None) -> Table:
    """Returns the values of schedules at quarters of a run.

    Args:
        panels: Schedules by their written form, by what they are for.
        epochs: Length of the run, where it is known.
    """
    titled = len(panels) > 1
    table = Table()
    for heading in (*(["what"] if titled else []), "schedule"):
        table.add_column(heading)
    for point in POINTS:
        table.add_column(f"{point:.0%}", justify="right")
    for title, schedules in panels.items():
        for text, schedule in schedules.items():
            names = (title, text) if titled else (text,)
            values = (_value(schedule, point, epochs) for point in POINTS)
            table.add_row(*map(Text, names), *values)
    return table


def _value(schedule: Schedule, progress: float, epochs: int | None) -> str:
    value = f"{schedule(progress):.4g}"
    if isinstance(schedule, Plateau):
        lowest = f"{schedule.lowest(progress, epochs):.4g}"
        return value if lowest == value else f"{lowest} to {value}"
    return value
