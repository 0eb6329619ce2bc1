"""Pictures of a search, as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_alexnet.schedules import Plateau, parse_schedule
from keras_alexnet.tuning.figure_style import (
    BEST,
    HALO,
    better,
    color_bar,
    color_scale,
)
from keras_alexnet.tuning.importance import Importance
from keras_alexnet.tuning.ranking import Direction, has_result, ranked
from keras_alexnet.tuning.trials import Trial

# Figures are made without pyplot, which would choose a window system and keep them.

FAILED = {"color": "tab:red", "alpha": 0.6}
# A curve that ends at zero leaves a logarithmic picture this far below its top.
DECADES = 4


def objectives(
    trials: Sequence[Trial], objective: str, direction: Direction, path: Path
) -> None:
    """Draws the result of each trial, and the best so far.

    Args:
        trials: In the order in which they were made.
        objective: What the result is called.
        direction: Whether low or high results are good.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    numbers = {id(trial): place for place, trial in enumerate(trials, 1)}
    kinds = {
        "completed": {"color": "tab:blue", "marker": "o"},
        "stopped": {"color": "tab:gray", "marker": "s", "alpha": 0.7},
    }
    for status, style in kinds.items():
        of_kind = [t for t in trials if has_result(t) and t.status == status]
        if of_kind:
            x, y = zip(*((numbers[id(t)], t.objective) for t in of_kind), strict=True)
            label = status if status == "completed" else "stopped early"
            axes.scatter(x, y, label=label, s=28, zorder=3, **style)
    completed = [t for t in trials if has_result(t) and t.status == "completed"]
    if completed:
        choose = np.minimum if direction == "min" else np.maximum
        best = choose.accumulate([trial.objective for trial in completed])
        places = [numbers[id(trial)] for trial in completed]
        # To the right end, where later trials failed or were stopped.
        axes.step(
            [*places, len(trials)],
            [*best, best[-1]],
            where="post",
            color=BEST,
            label="best so far",
        )
    _scale(axes, [trial.objective for trial in trials if has_result(trial)])
    failed = [numbers[id(trial)] for trial in trials if trial.status == "failed"]
    if failed:
        # At the edge where results are worst.
        edge = 0.97 if direction == "min" else 0.03
        axes.scatter(
            failed,
            [edge] * len(failed),
            marker="x",
            label="failed (no result)",
            transform=axes.get_xaxis_transform(),
            **FAILED,
        )
    axes.set(xlabel="trial, in order of time", ylabel=better(objective, direction))
    margin = max(0.5, 0.01 * len(trials))
    axes.set_xlim(1 - margin, len(trials) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.15)
        )
    figure.savefig(path, dpi=120)


def curves(
    trials: Sequence[Trial], objective: str, direction: Direction, path: Path
) -> None:
    """Draws each trial's learning rate and dropout, as far as it was trained.

    Args:
        trials: All trials, at least one of them with a result. A learning rate that
            follows a plateau is that of the trial's history.
        objective: What the result is called.
        direction: Whether low or high results are good.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, 2)
    best_first = ranked(trials, direction)
    scale = color_scale([trial.objective for trial in best_first], direction)
    lengths = {trial.config.epochs for trial in trials}
    unit = lengths.pop() if len(lengths) == 1 else None
    failed = [trial for trial in trials if trial.status == "failed"]
    many = len(best_first) > 12
    others = {"linewidth": 1.0 if many else 1.6, "alpha": 0.7 if many else 1.0}
    for panel, title, curve in (
        (panels[0], "Learning rate", _learning_rate),
        (panels[1], "Dropout rate", _dropout),
    ):
        drawn = []

        def draw(trial: Trial, panel=panel, curve=curve, drawn=drawn, **style) -> None:
            progress, values = curve(trial)
            if len(values):
                panel.plot(progress * (unit or 1), values, **style)
                drawn.append(values)

        for trial in failed:
            draw(trial, linewidth=0.8, linestyle=":", **FAILED)
        # The best last, on top of the others.
        for trial in reversed(best_first[1:]):
            draw(trial, color=scale.to_rgba(trial.objective), **others)
        for trial in best_first[:1]:
            style = {"color": BEST, "linewidth": 2.6, "path_effects": HALO}
            draw(trial, **style, label=f"best, {trial.name}")
        if failed:
            panel.plot([], [], linestyle=":", label="failed", **FAILED)
        panel.set(title=title, xlabel="epoch" if unit else "progress")
        panel.set_xlim(0, unit or 1)
        _limit_rates(panel, drawn, may_be_logarithmic=curve is _learning_rate)
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=8)
    color_bar(figure, scale, panels, objective, direction)
    figure.savefig(path, dpi=120)


def importances(found: Importance, path: Path) -> None:
    """Draws how much each hyperparameter mattered.

    Args:
        found: At least one hyperparameter.
        path: The PNG file to write.
    """
    height = 1.4 + 0.32 * len(found.names)
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    places = range(len(found.names))
    axes.barh(
        places,
        np.maximum(found.means, 0),
        xerr=found.deviations,
        color="tab:blue" if found.is_reliable else "lightgray",
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    axes.set_yticks(places, found.names)
    axes.invert_yaxis()
    axes.set_xlim(0, max(1.0, max(found.means) * 1.1))
    doubt = "" if found.is_reliable else ": too little to trust any bar"
    axes.set(
        xlabel="share of the order of trials that hangs on it (0 none, 1 all)",
        title=f"{max(0.0, found.explained):.0%} of the order of {found.trials} trials "
        f"explained{doubt}",
    )
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=120)


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
    """Chooses a logarithmic axis where rates spread over a decade and more."""
    if not drawn:
        return
    values = np.concatenate(drawn)
    highest = values.max()
    # Of each curve its typical value: a cosine's end at zero asks for no such scale.
    typical = [np.median(one) for one in drawn if np.median(one) > 0]
    spread = bool(typical) and max(typical) >= 10 * min(typical)
    if spread and may_be_logarithmic:
        positive = values[values > 0].min()
        panel.set_yscale("log")
        floor = min(min(typical) / 10, highest / 10**DECADES)
        panel.set_ylim(max(positive, floor) / 1.5, highest * 1.5)
    else:
        panel.set_ylim(0, 1.05 * highest or 1)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Makes room for what diverged without pressing all others together."""
    if values and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
