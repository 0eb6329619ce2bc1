"""Local response normalisation, both shapes of alexnet_2012, in all implementations.

    keras-alexnet benchmark lrn

All of ours and TensorFlow's own operation, through float32 where it has no other way:
forward and gradient, with and without XLA around it, as bytes moved a second (at least
those of x and y, or of x, dy and dx) beside those of a copy.
"""

from __future__ import annotations

from keras_alexnet.benchmarks.operations import answer
from keras_alexnet.benchmarks.questions import Options


def run(options: Options) -> None:
    """Measures and reports."""
    answer("lrn", options, [{"xla": False}, {"xla": True}])
