"""Training step of alexnet_2012 and alexnet_owt: speed, and part of the limit.

    keras-alexnet benchmark training_step --batch-sizes 128 512 4096

All have the same layers, weights, batch and loss, dropout, SGD with momentum and weight
decay; the batch is on the device. Beside them, in the same rounds, run matrix products
and a memory copy. `work` is 6 operations for each multiply-add of the forward pass. In
a checkout the peers of `benchmarks/peers` that are installed take part: Keras's own
layers, and PyTorch.
"""

from __future__ import annotations

from keras_alexnet.benchmarks import models
from keras_alexnet.benchmarks.comparison import fastest
from keras_alexnet.benchmarks.machine import has_gpu
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
    case = f"{network.architecture}, batch {batch_size}"
    forms = {}
    for precision in ("bfloat16", "float32"):
        forms[precision] = {"precision": precision, "xla": False}
        # XLA's convolutions are slow on CPUs.
        if has_gpu() or report.options.quick:
            forms[f"{precision}, XLA"] = {"precision": precision, "xla": True}
    make = models.training_step
    rates, seconds = models.compare(report, case, network, batch_size, make, forms)
    work = 6 * network.multiply_adds
    bounds = {x: rates[x] / work for x in ("bfloat16", "float32") if x in rates}
    baseline = fastest(seconds, "PyTorch*") or fastest(seconds, "textbook*")
    report.add(case, seconds, batch_size, baseline=baseline, limits=bounds)
