"""Which convolutions and poolings are the fastest?

conv2, conv4 and conv5 of alexnet_2012 in all of our implementations, and in Keras's,
which goes through XLA; conv1 against the ways around its few channels and large steps;
the three poolings against other ways to compute them. With the gradient, and the
forward pass alone, in float32 and bfloat16.

    keras-alexnet benchmark grouped_conv
"""

from __future__ import annotations

from keras_alexnet.benchmarks.cases import (
    first_conv_cases,
    grouped_conv_cases,
    max_pool_cases,
)
from keras_alexnet.benchmarks.operations import measure
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report


def run(options: Options) -> None:
    """Measures and reports."""
    for question, what, cases in (
        ("grouped_conv", "conv2, conv4 and conv5", grouped_conv_cases),
        ("first_conv", "conv1", first_conv_cases),
        ("max_pool", "all poolings", max_pool_cases),
    ):
        report = Report(question, options)
        measure(what, cases(options.quick), options, report)
        report.write()
