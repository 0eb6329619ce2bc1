"""How much memory does a training step of alexnet_2012 take, beside textbook Keras?

Each network trains in a process of its own. What counts is the most memory, of the
host and not of a GPU, that it has held after two steps, less what it held before the
network was built, when TensorFlow had been imported and used.

    keras-alexnet benchmark memory
"""

from __future__ import annotations

import tensorflow as tf
from rich.table import Table

from keras_alexnet.benchmarks import figures
from keras_alexnet.benchmarks.machine import peak_memory
from keras_alexnet.benchmarks.networks import (
    compiled_for_training,
    images_and_labels,
    network_for,
    ours,
    textbook,
)
from keras_alexnet.benchmarks.processes import call_in_a_process
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import write_json
from keras_alexnet.inspect.tables import console

BATCH_SIZES = (16, 64, 128)
# In the first, the optimizer's variables are made.
STEPS = 2
TEXTBOOK = "textbook float32"
CANDIDATES = ("keras_alexnet float32", "keras_alexnet bfloat16", TEXTBOOK)


def run(options: Options) -> None:
    """Measures and reports.

    Raises:
        ValueError: The operating system does not say.
    """
    peak_memory()
    found: dict[str, dict[str, int]] = {}
    for batch_size in (8,) if options.quick else BATCH_SIZES:
        found[f"batch {batch_size}"] = {
            name: call_in_a_process(peak_of_training, name, batch_size, options.quick)
            for name in CANDIDATES
        }
    table = Table(title="memory of a training step")
    for heading in ("batch", "what", "MiB", f"share of {TEXTBOOK}"):
        table.add_column(heading)
    for case, rows in found.items():
        for name, peak in rows.items():
            share = f"{peak / rows[TEXTBOOK]:.2f}"
            table.add_row(case, name, f"{peak / 2**20:,.0f}", share)
    console.print(table)
    path = write_json("memory", options, unit="bytes", results=found)
    mebibytes = {
        case: {name: (peak / 2**20,) * 3 for name, peak in rows.items()}
        for case, rows in found.items()
    }
    figures.bars(mebibytes, "MiB of a training step", path.with_suffix(".png"))


def peak_of_training(name: str, batch_size: int, quick: bool) -> int:
    """Trains for some steps, and returns the bytes that this process held for them."""
    network = network_for(quick)
    images, labels = images_and_labels(network, batch_size)
    batch = tf.constant(images), tf.constant(labels)
    before = peak_memory()
    if name == TEXTBOOK:
        model = compiled_for_training(textbook(network, {}), textbook=True)
    else:
        _, precision = name.split()
        model = compiled_for_training(ours(network, precision))
    for _ in range(STEPS):
        model.train_on_batch(*batch)
    return peak_memory() - before
