"""`keras-alexnet import-weights`: turn a published file of weights into a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from keras_alexnet.errors import UserError


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

    def run(self) -> int:
        """Saves published weights as a model.

        Raises:
            UserError: The file cannot be read, or fits no architecture; or `out` is no
                place for a .keras file.
        """
        from keras_alexnet.architectures import get_architecture
        from keras_alexnet.builder import build
        from keras_alexnet.weights import load_weights_into, network_of, read_weights
        from keras_alexnet.weights.catalog import find_weights
        from keras_alexnet.weights.recognition import recognise

        if not self.out.endswith(".keras") or not Path(self.out).parent.is_dir():
            raise UserError(
                "The model must be written to a .keras file, in a directory that is "
                f"there. Received: {self.out}"
            )
        if self.architecture is not None:
            get_architecture(self.architecture)
        path = find_weights(self.file, self.architecture)
        weight_file = read_weights(path, mean=self.mean, prefix=self.prefix)
        architecture = self.architecture or network_of(weight_file).architecture
        top = weight_file.layers.get("fc8")
        classes = None if top is None else top.kernel.shape[-1]
        model = build(architecture, include_top=top is not None, classes=classes)
        load_weights_into(model, weight_file, strict=True)
        model.save(self.out)
        print(
            f"{self.file} holds {weight_file.count_params():,} weights in the format "
            f"{weight_file.format}. Saved as {architecture} to {self.out}."
        )
        others = [name for name in recognise(weight_file) if name != architecture]
        if others and self.architecture is None:
            print(
                f"They fit {', '.join(others)} just as well: choose with "
                "--architecture."
            )
        return 0
