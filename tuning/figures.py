"""Figures of a search: objectives and curves.

Trials as parallel coordinates are in TensorBoard, for which each run has its
hyperparameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from keras_alexnet.schedules import Plateau, parse_schedule
from keras_alexnet.tuning.trials import Trial, ranked

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


def objectives(trials: Sequence[Trial], objective: str) -> Figure:
    """Draws the result of each trial, and the best so far.

    Args:
        trials: In the order in which they were made.
        objective: What the result is called.
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
            best = np.minimum.accumulate(y)
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
        heights = [0.97] * len(failed)
        style = {"marker": "x", "label": "failed (no result)", **FAILED}
        axes.scatter(failed, heights, transform=axes.get_xaxis_transform(), **style)
    axes.set(xlabel="trial, in order of time", ylabel=f"{objective} (lower is better)")
    margin = max(0.5, 0.01 * len(trials))
    axes.set_xlim(1 - margin, len(trials) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return figure


def curves(trials: Sequence[Trial], objective: str) -> Figure:
    """Draws each trial's learning rate and dropout, as far as it was trained.

    Args:
        trials: All trials, at least one of them with a result. A learning rate that
            follows a plateau is that of the trial's history.
        objective: What the result is called.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, 2)
    best_first = ranked(trials)
    scale = _color_scale(best_first)
    epochs = trials[0].config.epochs
    failed = [trial for trial in trials if trial.status == "failed"]
    thin = {"linewidth": 1.2, "alpha": 0.8}
    styles = [(one, {"linewidth": 0.8, "linestyle": ":", **FAILED}) for one in failed]
    # The best last, on top of the others.
    for trial in reversed(best_first[1:]):
        styles.append((trial, {"color": scale.to_rgba(trial.objective), **thin}))
    best = best_first[0]
    styles.append((best, {**BEST_LINE, "label": f"best, {best.name}"}))
    settings = {"learning_rate": "Learning rate", "dropout": "Dropout rate"}
    for panel, (setting, title) in zip(panels, settings.items(), strict=True):
        drawn = []
        for trial, style in styles:
            progress, values = _curve(trial, setting)
            if len(values):
                panel.plot(progress * epochs, values, **style)
                drawn.append(values)
        if failed:
            panel.plot([], [], linestyle=":", label="failed", **FAILED)
        panel.set(title=title, xlabel="epoch", xlim=(0, epochs))
        highest = max((values.max() for values in drawn), default=1)
        typical = [np.median(values) for values in drawn if np.median(values) > 0]
        if setting == "learning_rate" and typical:
            # A curve that ends at zero leaves the figure.
            panel.set_yscale("log")
            panel.set_ylim(min(typical) / 10, highest * 1.5)
        else:
            panel.set_ylim(0, 1.05 * highest or 1)
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=8)
    if scale.norm.vmin != scale.norm.vmax:
        figure.colorbar(
            scale, ax=panels, label=f"{objective} (lower is better)", aspect=30
        )
    return figure


# === Curves ===


def _curve(trial: Trial, setting: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns progress and values of a schedule, as far as a trial was trained.

    Of a failed one, all: the schedule may be what made it fail. A plateau has what its
    history tells.
    """
    schedule = parse_schedule(getattr(trial.config, setting))
    if isinstance(schedule, Plateau):
        rates = [row[setting] for row in trial.history if setting in row]
        # Each epoch has one rate, that with which it began.
        progress = np.repeat(np.arange(len(rates) + 1), 2)[1:-1] / trial.config.epochs
        return progress, np.repeat(rates, 2)
    done = 1.0
    if trial.status == "stopped" and trial.history:
        done = min(1.0, len(trial.history) / trial.config.epochs)
    # The end of the run itself is never trained at.
    progress = np.linspace(0, done, 501)[:-1]
    return progress, np.array([schedule(point) for point in progress])


# === Colours ===


def _color_scale(best_first: Sequence[Trial]) -> ScalarMappable:
    """Returns colours in which the good half of the trials can be told apart.

    Everything worse than the fence of a box plot has the colour of the fence.
    """
    values = [trial.objective for trial in best_first]
    low, first, third, high = np.quantile(values, (0, 0.25, 0.75, 1))
    if third > first:
        high = min(high, third + 1.5 * (third - first))
    return ScalarMappable(Normalize(low, high), COLORS)
