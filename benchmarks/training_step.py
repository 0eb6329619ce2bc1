"""Training step of alexnet_2012 and alexnet_owt: speed, and part of the limit.

    keras-alexnet benchmark training_step --batch-sizes 128 512 4096

All have the same layers, weights, batch and loss, dropout, SGD with momentum and weight
decay; the batch is on the device. Beside them, in the same rounds, run matrix products
and a memory copy. `work` is 6 operations for each multiply-add of the forward pass. In
a checkout the peers of `benchmarks/peers` that are installed take part: Keras's own
layers, and PyTorch.
"""

from __future__ import annotations

import keras_alexnet.benchmarks as benchmarks
from keras_alexnet.benchmarks import models
from keras_alexnet.benchmarks.comparison import (
    EXACT,
    TENSORFLOW,
    Comparison,
    fastest,
)
from keras_alexnet.benchmarks.devices import has_gpu
from keras_alexnet.benchmarks.limits import Limits, add_limits
from keras_alexnet.benchmarks.networks import (
    ALEXNET_2012,
    ALEXNET_MINI,
    ALEXNET_OWT,
    Network,
)
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report


def run(options: Options) -> None:
    """Measures and reports."""
    report = Report("training_step", options)
    default = 8 if options.quick else 512 if has_gpu() else 128
    networks = (ALEXNET_MINI,) if options.quick else (ALEXNET_2012, ALEXNET_OWT)
    for batch_size in options.batch_sizes or (default,):
        for network in networks:
            if not options.time_is_up:
                measure(report, network, batch_size)
                report.save()
    report.write()


def measure(report: Report, network: Network, batch_size: int) -> None:
    """Compares all on one network and batch size."""
    options = report.options
    case = f"{network.architecture}, batch {batch_size}"
    with Comparison(options) as comparison:
        limits = Limits(comparison, exact=True)
        expected = None
        with comparison.optional("the check of outputs"):
            expected = comparison.process(TENSORFLOW).call(
                models.expected_outputs, {"network": network}
            )
        # XLA's convolutions are slow on CPUs, and TF32 is of GPUs.
        everything = limits.gpu or options.quick
        for precision, xla, tf32 in (
            ("bfloat16", False, True),
            ("bfloat16", True, True),
            ("float32", False, True),
            ("float32", True, True),
            ("float32", False, False),
            ("float32", True, False),
        ):
            if (xla or not tf32) and not everything:
                continue
            name = f"keras_alexnet {precision}{', XLA' if xla else ''}"
            comparison.add(
                name + ("" if tf32 else ", no TF32"),
                models.training_step,
                TENSORFLOW if tf32 else EXACT,
                network=network,
                precision=precision,
                batch_size=batch_size,
                expected=expected,
                xla=xla,
                tf32=tf32,
            )
        if peers := benchmarks.find_peers():
            peers.add_training(comparison, network, batch_size, expected)
        seconds = comparison.run()
        report.skip({f"{case}: {k}": why for k, why in comparison.skipped.items()})
    rates = add_limits(report, limits, seconds)
    _, seconds = limits.split(seconds)
    work = 6 * network.multiply_adds

    def share(name: str, rate: float) -> tuple[float, str] | None:
        dtype = "bfloat16" if "bfloat16" in name else limits.product("float32")
        dtype = "float32" if "no TF32" in name else dtype
        return (
            (rate * work / rates[dtype], f"{dtype} product") if dtype in rates else None
        )

    baseline = fastest(seconds, "PyTorch*") or fastest(seconds, "textbook*")
    report.add(case, seconds, batch_size, baseline=baseline, share=share)
