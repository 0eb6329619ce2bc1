"""Report of a benchmark: a line for each row, a JSON file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path

from keras_alexnet.benchmarks.comparison import Seconds, times_faster
from keras_alexnet.benchmarks.machine import machine
from keras_alexnet.benchmarks.questions import Options


class Report:
    """The answer to one question, printed and written as it grows.

    Attributes:
        cases: Rows by candidate, by case. A row has `seconds` (of one execution, in
            each round), `rate` (in `unit`) and what else is known.
        skipped: Who did not take part, and why.
    """

    def __init__(self, question: str, options: Options, **settings: object):
        self.question = question
        self.options = options
        self.settings = settings
        self.cases: dict[str, dict[str, dict]] = {}
        self.skipped: dict[str, str] = {}

    def add(
        self,
        case: str,
        seconds: Seconds,
        amount: float,
        unit: str = "images/s",
        baseline: str | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> None:
        """Prints a line for each candidate, and keeps them.

        Args:
            case: What was done.
            seconds: From `Comparison.run`.
            amount: How much of the unit an execution works on.
            unit: Of the rate.
            baseline: The candidate that ratios are relative to.
            limits: Rates at the device's limits: `"copy"`, which limits all, or by
                dtype, which limits what has it in its name or the case's.
        """
        for name, values in seconds.items():
            median = statistics.median(values)
            row = {"seconds": list(values), "rate": amount / median, "unit": unit}
            line = f"{case} | {name} | {row['rate']:,.4g} {unit} | {duration(median)}"
            if len(values) > 1:
                line += f" ({duration(min(values))} - {duration(max(values))})"
            for key, limit in (limits or {}).items():
                if key == "copy" or key in f"{case}, {name}":
                    row["share"] = row["rate"] / limit
                    row["share_of"] = key if key == "copy" else f"{key} product"
                    line += f" | {row['share']:.1%} of {row['share_of']}"
            if baseline in seconds:
                row["ratio"] = times_faster(seconds, name, baseline)
                line += f" | {row['ratio']:.2f} x {baseline}"
            self.cases.setdefault(case, {})[name] = row
            print(line, flush=True)

    def skip(self, skipped: Mapping[str, str]) -> None:
        """Keeps who did not take part, and why."""
        self.skipped.update(skipped)

    def save(self) -> Path:
        """Writes `QUESTION.json`, so that nothing is lost if the rest fails."""
        content = {"results": self.cases, "skipped": self.skipped}
        return write_json(
            self.question, self.options, settings=self.settings, **content
        )

    def write(self) -> None:
        """Writes `QUESTION.json`, and says where."""
        print(f"Written: {self.save()}", flush=True)


def write_json(question: str, options: Options, **content: object) -> Path:
    """Writes an answer, with the machine that it was found on.

    Returns:
        The file.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{question}.json"
    values = {"machine": machine(), "quick": options.quick, **content}
    path.write_text(json.dumps(values, indent=2) + "\n")
    return path


def duration(seconds: float) -> str:
    """Writes a time with three digits: 1.23 s, 45.6 ms."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
