"""Which local response normalisation is the fastest, on both shapes of alexnet_2012?

All of ours, and TensorFlow's own operation, through float32 where it has no other way;
with the gradient, and the forward pass alone.

    keras-alexnet benchmark lrn
"""

from __future__ import annotations

from keras_alexnet.benchmarks.cases import lrn_cases
from keras_alexnet.benchmarks.operations import measure
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report


def run(options: Options) -> None:
    """Measures and reports."""
    report = Report("lrn", options)
    measure("both shapes", lrn_cases(options.quick), options, report)
    report.write()
