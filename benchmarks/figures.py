"""Pictures of what was measured, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

# Median, lowest and highest, by candidate, by case.
Values = Mapping[str, Mapping[str, tuple[float, float, float]]]

# Ours stand out among their peers.
OURS, PEERS = "tab:orange", "tab:blue"


def bars(values: Values, label: str, path: Path) -> None:
    """Draws a panel of bars for each case, with lines from the lowest to the highest.

    Args:
        values: What was measured.
        label: What it is, with its unit.
        path: The PNG file to write.
    """
    columns = 1 if len(values) < 4 else 2
    rows = -(-len(values) // columns)
    most = max(len(bars) for bars in values.values())
    size = (7 * columns, rows * (0.9 + 0.25 * most))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (case, candidates) in zip(grid.flat, values.items(), strict=False):
        axes.axis("on")
        middle = [median for median, _, _ in candidates.values()]
        spread = [
            [median - low for median, low, _ in candidates.values()],
            [high - median for median, _, high in candidates.values()],
        ]
        colors = [_color(name) for name in candidates]
        axes.barh(list(candidates), middle, xerr=spread, color=colors, alpha=0.7)
        axes.set_title(f"{case}: {label}", fontsize=10, loc="left")
        axes.grid(alpha=0.3, axis="x")
        axes.invert_yaxis()
    figure.savefig(path, dpi=120)


def lines(values: Values, axis: str, label: str, path: Path) -> None:
    """Draws a line for each candidate over the cases, on logarithmic scales.

    Args:
        values: What was measured; the cases are numbers.
        axis: What the cases are.
        label: What was measured, with its unit.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(name for rows in values.values() for name in rows):
        points = {
            float(case): rows[name] for case, rows in values.items() if name in rows
        }
        medians = [median for median, _, _ in points.values()]
        width = 2.5 if _color(name) == OURS else 1.2
        axes.plot(list(points), medians, marker=".", label=name, linewidth=width)
    axes.set(xscale="log", yscale="log", xlabel=axis, ylabel=label)
    axes.set_xticks([float(case) for case in values], list(values))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)


def _color(name: str) -> str:
    return OURS if name.startswith("keras_alexnet") else PEERS
