"""Grouped convolution: conv2, conv4 and conv5 of alexnet_2012 in all implementations.

    keras-alexnet benchmark grouped_conv

Forward and gradient, channels last and first, with and without XLA, which is what Keras
does to every grouped convolution; beside the matrix product.
"""

from __future__ import annotations

from keras_alexnet.benchmarks.operations import answer
from keras_alexnet.benchmarks.questions import Options


def run(options: Options) -> None:
    """Measures and reports."""
    variants = [
        {"channels_last": channels_last, "xla": xla}
        for channels_last in (True, False)
        for xla in (False, True)
    ]
    answer("grouped_conv", options, variants)
