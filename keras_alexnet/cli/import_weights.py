"""`keras-alexnet import-weights`: turn a published file of weights into a model."""

from __future__ import annotations

import dataclasses
from typing import Literal

import tyro


@dataclasses.dataclass(frozen=True)
class ImportWeights:
    """Turn a published file of weights, of any known format, into a model."""

    file: tyro.conf.Positional[str]
    """A file of PyTorch, Caffe, ONNX or Keras, or bvlc_alexnet.npy."""
    out: str
    """The .keras file to write."""
    architecture: str | None = None
    """The network they belong to; by default it is recognised."""
    mean: str | None = None
    """The mean image that goes with a .caffemodel, a .binaryproto."""
    prefix: str | None = None
    """Of a PyTorch checkpoint with several networks, what the keys of one begin with,
    such as teacher."""
    convert: tuple[Literal["inverted-dropout", "lrn-k1", "lrn-k2"], ...] = ()
    """Conventions to convert the weights to, from those of 2012 or Caffe."""

    def run(self) -> int:
        """Saves published weights as a model."""
        from keras_alexnet.networks import import_weights

        report = import_weights(
            self.file,
            self.out,
            architecture=self.architecture,
            mean=self.mean,
            convert=self.convert,
            prefix=self.prefix,
        )
        print(report)
        return 0
