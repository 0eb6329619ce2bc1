"""Answers: a table for people, a JSON file for programs, a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from keras_alexnet.benchmarks import figures
from keras_alexnet.benchmarks.machine import machine
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.timing import Seconds, times_faster
from keras_alexnet.inspect.tables import console


class Report:
    """The answer to one question: what was measured in one case, or in several.

    Attributes:
        cases: Rows by candidate, by case; a row has `seconds` (of each repetition),
            `images_per_second` and `ratio` (to the baseline's speed).
        ratios: The numbers that matter, by what they say.
    """

    def __init__(self, question: str, options: Options, **settings: object):
        self.question = question
        self.options = options
        self.settings = settings
        self.cases: dict[str, dict[str, dict]] = {}
        self.ratios: dict[str, float] = {}
        self.skipped: dict[str, str] = {}

    def add(
        self,
        case: str,
        seconds: Seconds,
        images: int,
        baseline: str,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        """Prints a table of what was measured, and keeps it.

        Args:
            case: What was done.
            seconds: From `in_turn`.
            images: How many images each repetition works on.
            baseline: The candidate that ratios are relative to.
            skipped: Who did not take part, and why.
        """
        rows = {
            name: {
                "images_per_second": images / statistics.median(values),
                "ratio": times_faster(seconds, name, baseline),
                "seconds": list(values),
            }
            for name, values in seconds.items()
        }
        self.cases[case] = rows
        self.skipped.update(skipped or {})
        table = Table(title=f"{self.question}: {case}")
        table.add_column("what")
        for heading in ("images/s", f"times {baseline}", "median", "min - max"):
            table.add_column(heading, justify="right")
        for name, row in rows.items():
            values = row["seconds"]
            table.add_row(
                name,
                f"{row['images_per_second']:,.1f}",
                f"{row['ratio']:.2f}",
                duration(statistics.median(values)),
                f"{duration(min(values))} - {duration(max(values))}",
            )
        console.print(table)

    def say(self, what: str, ratio: float, form: str = ".2f") -> None:
        """Prints a number that matters, and keeps it."""
        self.ratios[what] = ratio
        console.print(f"{what}: {ratio:{form}}", highlight=False)

    def write(self, axis: str | None = None) -> None:
        """Writes `QUESTION.json` and `QUESTION.png`.

        Args:
            axis: What the names of the cases are numbers of, to draw lines over it;
                otherwise each case is a panel of bars.
        """
        speeds = {
            case: {name: _speeds(row) for name, row in rows.items()}
            for case, rows in self.cases.items()
        }
        path = write_json(
            self.question,
            self.options,
            settings=self.settings,
            results=self.cases,
            ratios=self.ratios,
            skipped=self.skipped,
        ).with_suffix(".png")
        if axis:
            figures.lines(speeds, axis, "images per second", path)
        else:
            figures.bars(speeds, "images per second", path)


def write_json(question: str, options: Options, **content: object) -> Path:
    """Writes an answer, with the machine that it was found on, and says where.

    Returns:
        The file.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{question}.json"
    values = {"machine": machine(), "quick": options.quick, **content}
    path.write_text(json.dumps(values, indent=2) + "\n")
    print(f"Written: {path}", flush=True)
    return path


def duration(seconds: float) -> str:
    """Writes a time with three digits: 1.23 s, 45.6 ms."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _speeds(row: Mapping) -> tuple[float, float, float]:
    """Returns the median, the lowest and the highest speed."""
    median = row["images_per_second"]
    work = median * statistics.median(row["seconds"])
    return median, work / max(row["seconds"]), work / min(row["seconds"])
