"""Memory of a training step of alexnet_2012.

    keras-alexnet benchmark memory

Each network trains in a process of its own. What counts is the most memory that it has
held after two steps, less what it held before the network was built: of the GPU where
there is one, or else of the host.
"""

from __future__ import annotations

import sys

import tensorflow as tf

import keras_alexnet.benchmarks as benchmarks
from keras_alexnet.benchmarks import models
from keras_alexnet.benchmarks.comparison import Comparison
from keras_alexnet.benchmarks.devices import has_gpu
from keras_alexnet.benchmarks.networks import network_for
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import write_json
from keras_alexnet.benchmarks.workers import Work
from keras_alexnet.errors import UserError

# In the first, the optimizer's variables are made.
STEPS = 2


def run(options: Options) -> None:
    """Measures and reports.

    Raises:
        UserError: The operating system does not say.
    """
    peak_memory()
    gpu = has_gpu()
    network = network_for(options.quick)
    default = (8,) if options.quick else (128, 512) if gpu else (16, 128)
    found: dict[str, dict[str, float]] = {}
    skipped = {}
    for batch_size in options.batch_sizes or default:
        case = f"{network.architecture}, batch {batch_size}"
        arguments = {"network": network, "batch_size": batch_size}
        makers = {
            f"keras_alexnet {precision}{', XLA' if xla else ''}": (
                models.training_step,
                {"precision": precision, "xla": xla},
            )
            for precision in ("bfloat16", "float32")
            for xla in ((False, True) if gpu else (False,))
        }
        if peers := benchmarks.find_peers():
            makers["textbook float32"] = peers.make, peers.TEXTBOOK
        with Comparison(options) as comparison:
            for name, (make, more) in makers.items():
                with comparison.optional(name):
                    options.check_time()
                    peak = comparison.process(name).call(
                        peak_of_training,
                        {"make": make, "arguments": {**arguments, **more}},
                    )
                    found.setdefault(case, {})[name] = peak
                    print(f"{case} | {name} | {peak / 2**20:,.0f} MiB", flush=True)
            skipped |= comparison.skipped
    write_json("memory", options, unit="bytes", results=found, skipped=skipped)


def peak_of_training(make: object, arguments: dict) -> int:
    """Trains for some steps, and returns the bytes that this process held for them."""
    work_of_the_first_use = tf.ones((8, 8)) @ tf.ones((8, 8))
    del work_of_the_first_use
    before = peak_memory()
    work: Work = make(**arguments)
    work(STEPS)
    return peak_memory() - before


def peak_memory() -> int:
    """Returns the most bytes that this process has held so far, of the GPU if any.

    Raises:
        UserError: Windows does not say.
    """
    if has_gpu():
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    try:
        import resource
    except ImportError:
        raise UserError(
            "Peak memory is asked for with Python's module resource, which Windows "
            "lacks: choose other questions."
        ) from None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
