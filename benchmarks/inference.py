"""Inference of alexnet_2012: speed over batch sizes, in the forms that serve it.

    keras-alexnet benchmark inference --batch-sizes 1 32

Ours as a traced function, by `predict_on_batch` and as exported SavedModel, which also
subtracts the mean. In a checkout the peers of `benchmarks/peers` that are installed
take part: Keras's own layers, PyTorch, OpenVINO and ONNX Runtime.
"""

from __future__ import annotations

import keras_alexnet.benchmarks as benchmarks
from keras_alexnet.benchmarks import models
from keras_alexnet.benchmarks.comparison import TENSORFLOW, Comparison, fastest
from keras_alexnet.benchmarks.devices import has_gpu
from keras_alexnet.benchmarks.limits import Limits, add_limits
from keras_alexnet.benchmarks.networks import network_for
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report


def run(options: Options) -> None:
    """Measures and reports."""
    network = network_for(options.quick)
    report = Report("inference", options)
    default = (4,) if options.quick else (1, 512) if has_gpu() else (1, 32)
    for batch_size in options.batch_sizes or default:
        if options.time_is_up:
            break
        case = f"{network.architecture}, batch {batch_size}"
        with Comparison(options) as comparison:
            limits = Limits(comparison, copy=False)
            expected = None
            with comparison.optional("the check of outputs"):
                expected = comparison.process(TENSORFLOW).call(
                    models.expected_outputs, {"network": network}
                )
            for precision in ("bfloat16", "float32"):
                for form, xla in (
                    ("traced", False),
                    ("traced", True),
                    ("predict_on_batch", False),
                    ("SavedModel", False),
                ):
                    if xla and not limits.gpu and not options.quick:
                        continue
                    comparison.add(
                        f"keras_alexnet {precision}, {form}{', XLA' if xla else ''}",
                        models.inference,
                        TENSORFLOW,
                        network=network,
                        precision=precision,
                        batch_size=batch_size,
                        form=form,
                        expected=expected,
                        xla=xla,
                    )
            if peers := benchmarks.find_peers():
                peers.add_inference(comparison, network, batch_size, expected)
            seconds = comparison.run()
            report.skip({f"{case}: {k}": why for k, why in comparison.skipped.items()})
        add_limits(report, limits, seconds)
        _, seconds = limits.split(seconds)
        others = {k: v for k, v in seconds.items() if not k.startswith("keras_alexnet")}
        report.add(case, seconds, batch_size, baseline=fastest(others))
        report.save()
    report.write()
