"""Training step of alexnet_2012 and alexnet_owt: speed, and part of the limit.

    keras-alexnet benchmark training_step --batch-sizes 128 512 4096

All have the same layers, weights, batch and loss, dropout, SGD with momentum and weight
decay; the batch is on the device. Beside them, in the same rounds, run matrix products
and a memory copy. In a checkout the peers of `benchmarks/peers` that are installed take
part: Keras's own layers, and PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping

from keras_alexnet.benchmarks import models
from keras_alexnet.benchmarks.machine import has_gpu
from keras_alexnet.benchmarks.report import Report, fastest


def run(report: Report) -> None:
    """Measures and reports."""
    quick, gpu = report.options.quick, has_gpu()
    forms = {}
    for precision in ("bfloat16", "float32"):
        forms[precision] = {"precision": precision, "xla": False}
        # XLA's convolutions are slow on CPUs.
        if gpu or quick:
            forms[f"{precision}, XLA"] = {"precision": precision, "xla": True}
    networks = ("alexnet_mini",) if quick else ("alexnet_2012", "alexnet_owt")
    default = 8 if quick else 512 if gpu else 128
    for size in report.options.batch_sizes or (default,):
        for network in networks:
            make = models.training_step
            models.compare(report, network, size, make, forms, peer)


def peer(seconds: Mapping) -> str | None:
    """Returns the peer that ratios are relative to."""
    return fastest(seconds, "PyTorch*") or fastest(seconds, "textbook*")
