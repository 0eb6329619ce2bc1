"""Inference of alexnet_2012: speed over batch sizes, in the forms that serve it.

    keras-alexnet benchmark inference --batch-sizes 1 32

Ours as a traced function, by `predict_on_batch` and as exported SavedModel, which also
subtracts the mean. In a checkout the peers of `benchmarks/peers` that are installed
take part: Keras's own layers, PyTorch, OpenVINO and ONNX Runtime.
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
        for form in ("traced", "predict_on_batch", "SavedModel"):
            forms[f"{precision}, {form}"] = {"precision": precision, "form": form}
        if gpu or quick:
            arguments = {"precision": precision, "form": "traced", "xla": True}
            forms[f"{precision}, traced, XLA"] = arguments
    network = "alexnet_mini" if quick else "alexnet_2012"
    default = (4,) if quick else (1, 512) if gpu else (1, 32)
    for size in report.options.batch_sizes or default:
        make = models.inference
        models.compare(report, network, size, make, forms, peer)


def peer(seconds: Mapping) -> str | None:
    """Returns the fastest peer."""
    return fastest({k: x for k, x in seconds.items() if "keras_alexnet" not in k})
