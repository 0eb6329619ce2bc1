"""Trials as lines through their hyperparameters to their result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_alexnet.tuning.encoding import Column, columns_of
from keras_alexnet.tuning.figure_style import BEST, HALO, color_bar, color_scale
from keras_alexnet.tuning.ranking import Direction, ranked
from keras_alexnet.tuning.trials import Trial

# More axes than that cannot be read.
MOST_AXES = 12


def parallel_coordinates(
    trials: Sequence[Trial],
    objective: str,
    direction: Direction,
    path: Path,
    order: Sequence[str] = (),
) -> None:
    """Draws each trial as a line through its hyperparameters to its result.

    Those that do not vary are left out; one that a trial did not have is drawn below
    its axis, at "not used".

    Args:
        trials: All trials; those without a result are left out. At least one has one.
        objective: What the result is called.
        direction: Whether low or high results are good.
        path: The PNG file to write.
        order: Names of hyperparameters, the most important first.
    """
    best_first = ranked(trials, direction)
    columns = [
        column
        for column in columns_of([trial.values for trial in best_first])
        if column.varies
    ]
    # The most important next to the result, those of unknown importance first of all.
    place = {name: -rank for rank, name in enumerate(order, 1)}
    columns.sort(key=lambda column: place.get(column.name, -len(order) - 1))
    columns = columns[-MOST_AXES:]
    results = Column(
        objective,
        tuple(trial.objective for trial in best_first),
        np.ones(len(best_first), bool),
    )
    shown = [*columns, results]
    figure = Figure(figsize=(2.4 + 1.35 * len(shown), 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.4, len(shown) - 0.6), ylim=(-0.2, 1.05))
    axes.axis("off")
    heights = [_draw_axis(axes, x, column) for x, column in enumerate(shown)]
    scale = color_scale([trial.objective for trial in best_first], direction)
    best, *others = zip(*heights, strict=True)
    x = range(len(shown))
    for trial, points in zip(best_first[:0:-1], others[::-1], strict=True):
        color = scale.to_rgba(trial.objective)
        axes.plot(x, points, color=color, linewidth=1.2, alpha=0.75)
    label = f"best, {best_first[0].name}"
    axes.plot(x, best, color=BEST, linewidth=2.6, path_effects=HALO, label=label)
    color_bar(figure, scale, axes, objective, direction)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, -0.1))
    figure.savefig(path, dpi=120)


def _draw_axis(axes: Axes, x: int, column: Column) -> list[float]:
    """Draws an axis with its values and returns the height of each trial on it."""
    numbers = column.numbers()
    lowest, highest = np.nanmin(numbers), np.nanmax(numbers)
    span = highest - lowest

    def height(number: float) -> float:
        return (number - lowest) / span if span else 0.5

    if column.is_numeric:
        count = min(5, len(column.choices))
        marks = np.linspace(lowest, highest, count if span else 1)
        labels = [_number(10**m if column.is_logarithmic else m) for m in marks]
    else:
        marks, labels = range(len(column.choices)), map(_short, column.choices)
    axes.plot([x, x], [0, 1], color="black", linewidth=1, zorder=1)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    for mark, label in zip(marks, labels, strict=True):
        style = {"fontsize": 7, "va": "center", "zorder": 4, "bbox": box}
        axes.text(x + 0.05, height(mark), label, **style)
    if not column.active.all():
        style = {"fontsize": 7, "va": "top", "ha": "center", "color": "dimgray"}
        axes.text(x, -0.145, "not used", **style)
        axes.plot([x], [-0.12], marker="o", markersize=3, color="black")
    turned = {"rotation": 20, "ha": "left", "va": "bottom"}
    axes.text(x - 0.05, 1.05, _short(column.name, 24), fontsize=8, **turned)
    return [-0.12 if math.isnan(n) else height(n) for n in numbers]


def _number(value: float) -> str:
    return f"{value:.3g}"


def _short(text: str, length: int = 18) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
