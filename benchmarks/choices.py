"""Would other implementations than those chosen be faster on this device?

Measures, for this device's lines of the table in `layers/implementations.py`, all
implementations on the shapes of alexnet_2012, and says which lines should read
otherwise here. Nothing is changed.

    keras-alexnet benchmark choices
"""

from __future__ import annotations

import fnmatch
import statistics

import tensorflow as tf

from keras_alexnet.benchmarks.comparison import Comparison
from keras_alexnet.benchmarks.operations import (
    DIRECTIONS,
    DTYPES,
    OURS,
    add,
    implementations,
    operations,
)
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import duration, write_json
from keras_alexnet.layers.implementations import CHOICES, device_kind

# How each kind of line is measured, and which implementations it leaves out: a graph
# without compiled functions is for inference, in exports.
MEASURED = {"compiled": (DIRECTIONS, ""), "plain": (("forward",), "xla*")}
# What is measured alone; `training_step` shows what the other lines are worth.
KINDS = ("lrn", "grouped_conv", "strided_conv")
# Less than that is noise.
WORTH_IT = 1.05


def run(options: Options) -> None:
    """Measures, and compares with what is chosen."""
    device = device_kind(tf.zeros(()))
    rows = []
    with Comparison(options) as comparison:
        for (kind, where, graph), chosen in CHOICES.items():
            if where != device or kind not in KINDS:
                continue
            for dtype in DTYPES:
                times = totals(comparison, kind, graph, dtype)
                best = min(times, key=times.get)
                faster = times[chosen] / times[best] if chosen in times else None
                row = {"operation": kind, "kind": graph, "dtype": dtype}
                row |= {"chosen": chosen, "fastest": best, "times_faster": faster}
                rows.append({**row, "seconds": times})
                spelled = ", ".join(f"{k} {duration(x)}" for k, x in times.items())
                print(f"{kind}, {graph}, {dtype} | chosen: {chosen} | {spelled}")
    better = sum((row["times_faster"] or 2) > WORTH_IT for row in rows)
    print(
        f"{better} of {len(rows)} would be faster by more than {WORTH_IT - 1:.0%} with "
        "another implementation here."
    )
    write_json("choices", options, device=device, results=rows)


def totals(
    comparison: Comparison, kind: str, graph: str, dtype: str
) -> dict[str, float]:
    """Returns the seconds of all places and directions, by implementation."""
    directions, without = MEASURED[graph]
    taken: dict[str, list[float]] = {}
    places = 0
    for operation in operations(kind, comparison.options.quick):
        for direction in directions:
            comparison.clear()
            for name in implementations(kind):
                if not fnmatch.fnmatch(name, without):
                    add(comparison, operation, name, direction=direction, dtype=dtype)
            for name, values in comparison.run().items():
                median = statistics.median(values)
                taken.setdefault(name.removeprefix(OURS), []).append(median)
            places += 1
    return {name: sum(x) for name, x in taken.items() if len(x) == places}
