"""Would other implementations than those chosen be faster on this device?

Measures, for this device's lines of the table in `layers/implementations.py`, all
implementations on the shapes of alexnet_2012, and says which lines should read
otherwise here. Nothing is changed.

    keras-alexnet benchmark choices
"""

from __future__ import annotations

import tensorflow as tf
from rich.table import Table

from keras_alexnet.benchmarks.cases import grouped_conv_cases, lrn_cases
from keras_alexnet.benchmarks.operations import DTYPES, totals
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import write_json
from keras_alexnet.benchmarks.timing import fastest, times_faster
from keras_alexnet.inspect.tables import console
from keras_alexnet.layers.implementations import CHOICES, device_kind

CASES = {"lrn": lrn_cases, "grouped_conv": grouped_conv_cases}
# How each kind of line is measured, and which implementations it leaves out: a graph
# without compiled functions is for inference, in exports.
MEASURED = {"compiled": ("training", ()), "plain": ("inference", ("xla",))}
# Less than that is noise.
WORTH_IT = 1.05


def run(options: Options) -> None:
    """Measures, and compares with what is chosen."""
    device = device_kind(tf.zeros(()))
    table = Table(title=f"choices on this {device}")
    for heading in ("operation", "graph", "dtype", "chosen", "fastest", "times faster"):
        table.add_column(heading)
    rows = []
    for (operation, where, kind), chosen in CHOICES.items():
        if where != device:
            continue
        purpose, without = MEASURED[kind]
        for dtype in DTYPES:
            cases = CASES[operation](options.quick)
            ours = {
                name.removeprefix("keras_alexnet "): times
                for name, times in totals(cases, dtype, purpose, options).items()
                if name.startswith("keras_alexnet ")
            }
            allowed = {name: x for name, x in ours.items() if name not in without}
            best = fastest(allowed)
            row = {
                "operation": operation,
                "kind": kind,
                "dtype": dtype,
                "chosen": chosen,
                "fastest": best,
                "times_faster": times_faster(allowed, best, chosen),
            }
            rows.append(row)
            *texts, faster = row.values()
            style = "bold" if faster > WORTH_IT else None
            table.add_row(*texts, f"{faster:.2f}", style=style)
    console.print(table)
    better = sum(row["times_faster"] > WORTH_IT for row in rows)
    print(
        f"{better} of {len(rows)} would be faster by more than {WORTH_IT - 1:.0%} with "
        "another implementation here."
    )
    write_json("choices", options, device=device, results=rows)
