"""Report of a benchmark: ratios of interleaved timings, a line a row, a JSON file."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_alexnet.benchmarks.questions import Options

# Of one execution in each round, by candidate.
Seconds = Mapping[str, Sequence[float]]


def ask(question: str, options: Options) -> None:
    """Measures, prints the answer and writes it.

    Args:
        question: A module here.
        options: How, and where to.
    """
    # Functions are traced anew for every case: TensorFlow would warn of it.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    report = Report(question, dataclasses.replace(options))  # The time begins now.
    importlib.import_module(f"keras_alexnet.benchmarks.{question}").run(report)
    print(f"Written: {report.save()}", flush=True)


class Report:
    """The answer to one question, printed and written as it grows.

    Args:
        question: What the file is called.
        options: How it is answered.

    Attributes:
        settings: What else is to be known of how it was measured.
        results: Rows by candidate, by case. A row has `seconds` (of one execution, in
            each round), `rate` (in `unit`) and what else is known.
        skipped: Who did not take part, and why.
    """

    def __init__(self, question: str, options: Options):
        self.question = question
        self.options = options
        self.settings: dict[str, object] = {}
        self.results: dict[str, object] = {}
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
        """Prints a line for each candidate, keeps and writes them.

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
            self.results.setdefault(case, {})[name] = row
            print(line, flush=True)
        self.save()

    def save(self) -> Path:
        """Writes `QUESTION.json`, so that nothing is lost if the rest fails."""
        # The processes of peers do without TensorFlow.
        from keras_alexnet.benchmarks.machine import machine

        content = {
            "machine": machine(),
            "quick": self.options.quick,
            "settings": self.settings,
            "results": self.results,
            "skipped": self.skipped,
        }
        self.options.out.mkdir(parents=True, exist_ok=True)
        path = self.options.out / f"{self.question}.json"
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path


def times_faster(seconds: Seconds, name: str, baseline: str) -> float:
    """Returns how many times as fast one candidate is as another.

    The median of pairs, because neighbours in time ran on the same machine.
    """
    pairs = zip(seconds[baseline], seconds[name], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def fastest(seconds: Seconds, pattern: str = "*") -> str | None:
    """Returns the candidate with the smallest median, or None if there is none.

    Args:
        seconds: From `Comparison.run`.
        pattern: Of the candidates to choose from, of the shell's kind.
    """
    names = fnmatch.filter(seconds, pattern)
    return min(names, key=lambda name: statistics.median(seconds[name]), default=None)


def duration(seconds: float) -> str:
    """Writes a time with three digits: 1.23 s, 45.6 ms."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
