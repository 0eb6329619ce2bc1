"""Numbers, settings and tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_alexnet.tuning.comparison import METRICS
from keras_alexnet.tuning.paired import spread

METRIC_NAMES = {
    "top1_error": "top-1 error",
    "top5_error": "top-5 error",
    "loss": "loss",
}


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of cells that are Markdown already."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def counted(number: int, noun: str) -> str:
    """Returns "1 trial", "2 trials"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} seconds"
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


def some_of(names: Sequence[str], most: int = 12) -> str:
    """Returns the first names, and how many more there are."""
    text = ", ".join(names[:most])
    return text + (f" and {len(names) - most} more" if len(names) > most else "")


def cell(value: Any) -> str:
    """Returns a text that may stand in a cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def code(value: Any) -> str:
    """Returns a setting as it is written."""
    return f"`{cell(short(value))}`"


def short(value: Any) -> str:
    """Returns a number with four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Returns the metrics that there are, each with its name."""
    known = [name for name in METRICS if name in metrics]
    return ", ".join(f"{METRIC_NAMES[n]} {amount(metrics[n], n)}" for n in known)


def amount(value: float | None, metric: str, sign: str = "") -> str:
    """Returns an error in per cent, anything else as it is."""
    if value is None:
        return "-"
    if metric.endswith("_error"):
        return f"{100 * value:{sign}.2f} %"
    return f"{value:{sign}.4f}"


def mean_and_spread(values: Iterable[float], metric: str, sign: str = "") -> str:
    """Returns mean ± standard deviation (n - 1), or what there is of them."""
    values = list(values)
    if not values:
        return "-"
    deviation = spread(values)
    text = amount(statistics.fmean(values), metric, sign)
    if deviation is None:
        return text
    return f"{text.removesuffix(' %')} ± {amount(deviation, metric)}"
