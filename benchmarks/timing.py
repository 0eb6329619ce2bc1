"""Fair timing on machines that are shared: in turn, several times, medians, ratios."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console
from rich.table import Table

RESULTS = Path("benchmarks/results")


def in_turn(
    candidates: dict[str, Callable[[], None]], repetitions: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Times each candidate once, then each again, and so on.

    A machine that slows down half-way slows all of them down.

    Args:
        candidates: What to time, by name; each returns when its work is done.
        repetitions: How often each is timed.
        warm_up: How often each is run before, untimed.

    Returns:
        The seconds of each repetition.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(-warm_up, repetitions):
        for name, candidate in candidates.items():
            started = time.perf_counter()
            candidate()
            if repetition >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def report(
    question: str, seconds: dict[str, list[float]], images: int, baseline: str
) -> None:
    """Prints a table and writes it as JSON.

    Args:
        question: The name of the benchmark.
        seconds: From `in_turn`.
        images: How many images each repetition works on.
        baseline: The candidate that ratios are relative to.
    """
    # Pair by pair, because neighbours in time ran on the same machine.
    rows = {
        name: {
            "images_per_second": images / statistics.median(values),
            "ratio": statistics.median(
                theirs / ours
                for theirs, ours in zip(seconds[baseline], values, strict=True)
            ),
            "seconds": values,
        }
        for name, values in seconds.items()
    }
    table = Table(title=question)
    for heading in ("what", "images/s", f"times {baseline}", "seconds (min - max)"):
        table.add_column(heading)
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['images_per_second']:.1f}",
            f"{row['ratio']:.2f}",
            f"{min(row['seconds']):.2f} - {max(row['seconds']):.2f}",
        )
    Console().print(table)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{question}.json").write_text(
        json.dumps({"machine": machine(), "results": rows}, indent=2) + "\n"
    )


def machine() -> dict[str, object]:
    """Describes what a benchmark ran on."""
    flags: set[str] = set()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                flags = set(line.split(":")[1].split())
                break
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "cores": os.cpu_count(),
        "gpus": len(tf.config.list_physical_devices("GPU")),
        "cpu_flags": sorted(
            flag for flag in flags if flag.startswith(("avx", "amx", "fma"))
        ),
    }
