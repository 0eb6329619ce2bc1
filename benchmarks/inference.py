"""Inference of alexnet_2012: speed over batch sizes, in the forms that serve it.

    keras-alexnet benchmark inference --batch-sizes 1 32

Ours as a traced function, by `predict_on_batch` and as exported SavedModel, which also
subtracts the mean. In a checkout the peers of `benchmarks/peers` that are installed
take part: Keras's own layers, PyTorch, OpenVINO and ONNX Runtime.
"""

from __future__ import annotations

from keras_alexnet.benchmarks import models
from keras_alexnet.benchmarks.comparison import fastest
from keras_alexnet.benchmarks.machine import has_gpu
from keras_alexnet.benchmarks.networks import ALEXNET_2012, ALEXNET_MINI, Network
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report


def run(options: Options) -> None:
    """Measures and reports."""
    report = Report("inference", options)
    network = ALEXNET_MINI if options.quick else ALEXNET_2012
    default = (4,) if options.quick else (1, 512) if has_gpu() else (1, 32)
    for batch_size in options.batch_sizes or default:
        if not options.time_is_up:
            measure(report, network, batch_size)
            report.save()
    report.write()


def measure(report: Report, network: Network, batch_size: int) -> None:
    """Compares all on one batch size."""
    case, forms = f"{network.architecture}, batch {batch_size}", {}
    for precision in ("bfloat16", "float32"):
        for form in ("traced", "predict_on_batch", "SavedModel"):
            forms[f"{precision}, {form}"] = {"precision": precision, "form": form}
        if has_gpu() or report.options.quick:
            arguments = {"precision": precision, "form": "traced", "xla": True}
            forms[f"{precision}, traced, XLA"] = arguments
    make = models.inference
    _, seconds = models.compare(report, case, network, batch_size, make, forms)
    others = {k: v for k, v in seconds.items() if not k.startswith("keras_alexnet")}
    report.add(case, seconds, batch_size, baseline=fastest(others))
