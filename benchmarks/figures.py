"""Bar charts of what was measured, as PNG files."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure


def bars(cases: Mapping[str, Mapping[str, dict]], path: Path) -> None:
    """Draws a panel of bars for each case, with lines from the lowest to the highest.

    Args:
        cases: Rows of a `Report`, by candidate, by case.
        path: The PNG file to write.
    """
    columns = 1 if len(cases) < 4 else 2
    rows = -(-len(cases) // columns)
    height = 0.9 + 0.25 * max(map(len, cases.values()))
    figure = Figure(figsize=(8 * columns, rows * height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (case, candidates) in zip(grid.flat, cases.items(), strict=False):
        axes.axis("on")
        errors = []
        for row in candidates.values():
            work = row["rate"] * statistics.median(row["seconds"])
            low, high = work / max(row["seconds"]), work / min(row["seconds"])
            errors.append((row["rate"] - low, high - row["rate"]))
        ours = [name.startswith("keras_alexnet") for name in candidates]
        axes.barh(
            list(candidates),
            [row["rate"] for row in candidates.values()],
            xerr=list(zip(*errors, strict=True)),
            color=["tab:orange" if mine else "tab:blue" for mine in ours],
            alpha=0.7,
        )
        unit = next(iter(candidates.values()))["unit"]
        axes.set_title(f"{case}: {unit}", fontsize=10, loc="left")
        axes.grid(alpha=0.3, axis="x")
        axes.invert_yaxis()
    figure.savefig(path, dpi=120)
