"""`WeightFile`: a network's weights as plain arrays in Keras's layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_alexnet.errors import UserError

# The layers that hold weights, in the order in which images pass through them.
LAYER_NAMES = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
CONVOLUTIONS, DENSE = LAYER_NAMES[:5], LAYER_NAMES[5:]
# The kernel of conv2 in Caffe's networks. PyTorch users have them converted or trained
# anew: such files do not say which, and so not what the weights expect of images.
TWO_TOWERS = (5, 5, 48, 256)

# The key of a saved model's config under which its metadata are kept.
METADATA = "keras_alexnet_metadata"


class WeightFileError(UserError):
    """A file of weights is damaged, of an unknown format, or holds something else."""


class LayerWeights(NamedTuple):
    """The weights of one layer.

    Attributes:
        kernel: float32. Of a convolution `(height, width, in / groups, out)`; of a
            dense layer `(in, out)`, where fc6 counts its inputs by row, then column,
            then channel, as Keras flattens them.
        bias: float32, `(out,)`; None where batch normalisation takes its place.
    """

    kernel: np.ndarray
    bias: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """The weights in a file, and what else the file says.

    Attributes:
        format: `"torch"`, `"safetensors"`, `"caffe"`, `"onnx"`, `"npy"`
            or `"keras"`.
        layers: By our names, conv1 to conv5 and fc6 to fc8. A file may hold fewer.
        others: Of a Keras file, the arrays of all other layers, by name.
        preprocessing: The preprocessing mode that the weights expect, `"torch"` (RGB)
            or `"caffe"` (BGR). None where nothing in the file says it. Kernels are
            never reordered.
        norm_first: Whether norm1 stands before pool1 (as in `bvlc_alexnet`) or behind
            it (`caffenet`). None where the file does not say, or has no norm1.
        name: What the file calls the network, or None.
        input_size: Height of the images that the network takes, where the file says.
        metadata: What a `.keras` file says of its model (`model.Metadata`), as JSON.
        mean_image: float32, `(height, width, channels)`, channels in the file's order:
            what to subtract from images. None where the file has none.
        path: The file.
    """

    format: str
    layers: Mapping[str, LayerWeights]
    others: Mapping[str, tuple[np.ndarray, ...]] = dataclasses.field(
        default_factory=dict
    )
    preprocessing: str | None = None
    norm_first: bool | None = None
    name: str | None = None
    input_size: int | None = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mean_image: np.ndarray | None = None
    path: Path | None = None

    def __post_init__(self):
        unknown = [name for name in self.layers if name not in LAYER_NAMES]
        if unknown or not self.layers:
            raise WeightFileError(
                f"Expected weights of {', '.join(LAYER_NAMES)}. Received: "
                f"{', '.join(unknown) or 'none'}."
            )
        for name, (kernel, bias) in self.layers.items():
            dimensions = 4 if name in CONVOLUTIONS else 2
            width = None if bias is None else bias.shape
            if (
                kernel.ndim != dimensions
                or not kernel.size
                or width not in (None, kernel.shape[-1:])
            ):
                raise WeightFileError(
                    f"{name} should have a kernel of {dimensions} dimensions and one "
                    f"bias per output. Found: kernel {kernel.shape}, bias {width}."
                )

    def arrays(self) -> dict[str, tuple[np.ndarray, ...]]:
        """Returns the arrays of all layers, in the order of Keras's variables."""
        layers = {
            name: tuple(array for array in layer if array is not None)
            for name, layer in self.layers.items()
        }
        return {**layers, **self.others}

    def count_params(self) -> int:
        """Returns the number of weights."""
        return sum(array.size for arrays in self.arrays().values() for array in arrays)
