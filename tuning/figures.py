"""Figures of a search: objectives, curves, importance, parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from keras_alexnet.schedules import Plateau, parse_schedule
from keras_alexnet.tuning.importance import Importance
from keras_alexnet.tuning.trials import Column, Direction, Trial, columns_of, ranked

# Figures are made without pyplot, which would choose a window system and keep them.

FAILED = {"color": "tab:red", "alpha": 0.6}
# In all figures, with a halo where it lies among other lines.
BEST = "tab:orange"
BEST_LINE = {
    "color": BEST,
    "linewidth": 2.6,
    "path_effects": [Stroke(linewidth=4.6, foreground="white"), Normal()],
}
# Good trials dark on white, bad ones pale; told apart by any eyes and in print.
COLORS = "viridis"
# A curve that ends at zero leaves a logarithmic figure this far below its top.
DECADES = 4
# More axes than that cannot be read.
MAX_AXES = 12


def objectives(trials: Sequence[Trial], objective: str, direction: Direction) -> Figure:
    """Draws the result of each trial, and the best so far.

    Args:
        trials: In the order in which they were made.
        objective: What the result is called.
        direction: Whether low or high results are good.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    results = [(i, one) for i, one in enumerate(trials, 1) if one.has_result]
    for status, label, style in (
        ("completed", "completed", {"color": "tab:blue", "marker": "o"}),
        ("stopped", "stopped early", {"color": "tab:gray", "marker": "s"}),
    ):
        points = [(i, one.objective) for i, one in results if one.status == status]
        if not points:
            continue
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, label=label, s=28, zorder=3, **style)
        if status == "completed":
            choose = np.minimum if direction == "min" else np.maximum
            best = choose.accumulate(y)
            # To the right end, where later trials failed or were stopped.
            style = {"where": "post", "color": BEST, "label": "best so far"}
            axes.step([*x, len(trials)], [*best, best[-1]], **style)
    values = [one.objective for _, one in results]
    if values and min(values) > 0 and max(values) > 20 * min(values):
        # Room for what diverged, without pressing all others together.
        axes.set_yscale("log")
    failed = [i for i, one in enumerate(trials, 1) if one.status == "failed"]
    if failed:
        # At the edge where results are worst.
        heights = [0.97 if direction == "min" else 0.03] * len(failed)
        style = {"marker": "x", "label": "failed (no result)", **FAILED}
        axes.scatter(failed, heights, transform=axes.get_xaxis_transform(), **style)
    axes.set(xlabel="trial, in order of time", ylabel=_better(objective, direction))
    margin = max(0.5, 0.01 * len(trials))
    axes.set_xlim(1 - margin, len(trials) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return figure


def curves(trials: Sequence[Trial], objective: str, direction: Direction) -> Figure:
    """Draws each trial's learning rate and dropout, as far as it was trained.

    Args:
        trials: All trials, at least one of them with a result. A learning rate that
            follows a plateau is that of the trial's history.
        objective: What the result is called.
        direction: Whether low or high results are good.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, 2)
    best_first = ranked(trials, direction)
    scale = _color_scale(best_first, direction)
    lengths = {trial.config.epochs for trial in trials}
    unit = lengths.pop() if len(lengths) == 1 else None
    failed = [trial for trial in trials if trial.status == "failed"]
    many = len(best_first) > 12
    thin = {"linewidth": 1.0 if many else 1.6, "alpha": 0.7 if many else 1.0}
    styles = [(one, {"linewidth": 0.8, "linestyle": ":", **FAILED}) for one in failed]
    # The best last, on top of the others.
    for trial in reversed(best_first[1:]):
        styles.append((trial, {"color": scale.to_rgba(trial.objective), **thin}))
    for trial in best_first[:1]:
        styles.append((trial, {**BEST_LINE, "label": f"best, {trial.name}"}))
    for panel, title, curve in (
        (panels[0], "Learning rate", _learning_rate),
        (panels[1], "Dropout rate", _dropout),
    ):
        drawn = []
        for trial, style in styles:
            progress, values = curve(trial)
            if len(values):
                panel.plot(progress * (unit or 1), values, **style)
                drawn.append(values)
        if failed:
            panel.plot([], [], linestyle=":", label="failed", **FAILED)
        panel.set(title=title, xlabel="epoch" if unit else "progress")
        panel.set_xlim(0, unit or 1)
        _limit_rates(panel, drawn, may_be_logarithmic=curve is _learning_rate)
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=8)
    _color_bar(figure, scale, panels, objective, direction)
    return figure


def importances(found: Importance) -> Figure:
    """Draws how much each hyperparameter mattered.

    Args:
        found: At least one hyperparameter.
    """
    height = 1.4 + 0.32 * len(found.names)
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        found.names,
        np.maximum(found.means, 0),
        xerr=found.deviations,
        color="tab:blue" if found.is_reliable else "lightgray",
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    axes.invert_yaxis()
    axes.set_xlim(0, max(1.0, max(found.means) * 1.1))
    doubt = "" if found.is_reliable else ": too little to trust any bar"
    title = f"{max(0.0, found.explained):.0%} of the order of {found.trials} trials "
    axes.set_title(f"{title}explained{doubt}", fontsize=10)
    axes.set_xlabel("fraction of the order of trials that hangs on it (0 none, 1 all)")
    axes.grid(alpha=0.3, axis="x")
    return figure


def parallel_coordinates(
    trials: Sequence[Trial],
    objective: str,
    direction: Direction,
    order: Sequence[str] = (),
) -> Figure:
    """Draws each trial as a line through its hyperparameters to its result.

    Those that do not vary are left out; one that a trial did not have is drawn below
    its axis, at "not used".

    Args:
        trials: All trials; those without a result are left out. At least one has one.
        objective: What the result is called.
        direction: Whether low or high results are good.
        order: Names of hyperparameters, the most important first.
    """
    best_first = ranked(trials, direction)
    columns = columns_of([trial.values for trial in best_first])
    columns = [column for column in columns if column.varies]
    # The most important next to the result, those of unknown importance first of all.
    place = {name: -rank for rank, name in enumerate(order, 1)}
    columns.sort(key=lambda column: place.get(column.name, -len(order) - 1))
    results = tuple(trial.objective for trial in best_first)
    active = np.ones(len(results), bool)
    shown = [*columns[-MAX_AXES:], Column(objective, results, active)]
    figure = Figure(figsize=(2.4 + 1.35 * len(shown), 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.4, len(shown) - 0.6), ylim=(-0.2, 1.05))
    axes.axis("off")
    heights = [_draw_axis(axes, x, column) for x, column in enumerate(shown)]
    scale = _color_scale(best_first, direction)
    best, *others = zip(*heights, strict=True)
    for trial, points in zip(best_first[:0:-1], others[::-1], strict=True):
        axes.plot(points, color=scale.to_rgba(trial.objective), linewidth=1.2)
    axes.plot(best, label=f"best, {best_first[0].name}", **BEST_LINE)
    _color_bar(figure, scale, axes, objective, direction)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, -0.1))
    return figure


# === Curves ===


def _learning_rate(trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    """Returns progress and learning rates; none of a plateau without a history."""
    schedule = parse_schedule(trial.config.learning_rate)
    if not isinstance(schedule, Plateau):
        return _sampled(schedule, trial)
    rates = [row["learning_rate"] for row in trial.history if "learning_rate" in row]
    # Each epoch has one rate, that with which it began.
    progress = np.repeat(np.arange(len(rates) + 1), 2)[1:-1] / trial.config.epochs
    return progress, np.repeat(rates, 2)


def _dropout(trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    return _sampled(parse_schedule(trial.config.dropout), trial)


def _sampled(
    schedule: Callable[[float], float], trial: Trial
) -> tuple[np.ndarray, np.ndarray]:
    """Returns progress and values, as far as a trial was trained.

    Of a failed one, all: the schedule may be what made it fail.
    """
    done = 1.0
    if trial.status == "stopped" and trial.history:
        done = min(1.0, len(trial.history) / trial.config.epochs)
    # The end of the run itself is never trained at.
    progress = np.linspace(0, done, 501)[:-1]
    return progress, np.array([schedule(point) for point in progress])


def _limit_rates(
    panel: Axes, drawn: Sequence[np.ndarray], may_be_logarithmic: bool
) -> None:
    """Chooses a logarithmic axis where rates range over a decade and more."""
    if not drawn:
        return
    values = np.concatenate(drawn)
    highest = values.max()
    # Of each curve its typical value: a cosine's end at zero asks for no such scale.
    typical = [np.median(one) for one in drawn if np.median(one) > 0]
    decade = bool(typical) and max(typical) >= 10 * min(typical)
    if decade and may_be_logarithmic:
        positive = values[values > 0].min()
        panel.set_yscale("log")
        floor = min(min(typical) / 10, highest / 10**DECADES)
        panel.set_ylim(max(positive, floor) / 1.5, highest * 1.5)
    else:
        panel.set_ylim(0, 1.05 * highest or 1)


# === Axes and colours ===


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
        values = 10**marks if column.is_logarithmic else marks
        labels = [f"{value:.3g}" for value in values]
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


def _short(text: str, length: int = 18) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _color_scale(best_first: Sequence[Trial], direction: Direction) -> ScalarMappable:
    """Returns colours in which the good half of the trials can be told apart.

    Everything worse than the fence of a box plot has the colour of the fence.
    """
    values = [trial.objective for trial in best_first]
    low, first, third, high = np.quantile(values, (0, 0.25, 0.75, 1))
    fence = 1.5 * (third - first)
    if direction == "min" and fence:
        high = min(high, third + fence)
    elif fence:
        low = max(low, first - fence)
    colors = COLORS if direction == "min" else f"{COLORS}_r"
    return ScalarMappable(Normalize(low, high), colors)


def _color_bar(
    figure: Figure,
    scale: ScalarMappable,
    axes: Axes | Sequence[Axes],
    objective: str,
    direction: Direction,
) -> None:
    """Says which result has which colour, where there is more than one."""
    if scale.norm.vmin != scale.norm.vmax:
        figure.colorbar(scale, ax=axes, label=_better(objective, direction), aspect=30)


def _better(objective: str, direction: Direction) -> str:
    """Returns an axis label that says which end is good."""
    return f"{objective} ({'lower' if direction == 'min' else 'higher'} is better)"
