"""Array layouts: from those of PyTorch, Caffe and ONNX to Keras's."""

from __future__ import annotations

import concurrent.futures
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_alexnet.weights.weight_file import (
    CONVOLUTIONS,
    DENSE,
    LayerWeights,
    WeightFileError,
)

# 16 floats fill a line of the processor's cache: a transposition that writes as many
# side by side touches each line once.
_BLOCK = 16

# What files hold weights as. Integers are quantised networks, which need their scales.
_FLOATS = ("bfloat16", "float16", "float32", "float64")

# An array that is read when it is asked for.
Read = Callable[[], np.ndarray]


def contiguous(array: np.ndarray) -> np.ndarray:
    """Returns a float32 copy in C order that shares no memory with the file.

    Raises:
        WeightFileError: The elements are not floating-point numbers.
    """
    if array.dtype.name not in _FLOATS:
        raise WeightFileError(
            f"Weights should be floating-point numbers. Found: {array.dtype.name}."
        )
    result = np.empty(array.shape, np.float32)
    if array.ndim < 2 or array.strides[-1] == array.itemsize or array.size < 1 << 16:
        result[...] = array
    else:
        for start in range(0, array.shape[-1], _BLOCK):
            block = np.s_[..., start : start + _BLOCK]
            result[block] = array[block]
    return result


def channels_first_layers(
    weights: Mapping[str, tuple[Read, Read]],
) -> dict[str, LayerWeights]:
    """Converts the layout that PyTorch, Caffe and ONNX share.

    Args:
        weights: By layer name, functions that return the kernel - `(out, in, height,
            width)` or `(out, in)` - and the bias, as views of the file. fc6 counts its
            inputs by channel, then row, then column.
    """

    def convert(name: str) -> LayerWeights:
        kernel, bias = (read() for read in weights[name])
        kernel = np.moveaxis(np.atleast_2d(kernel), (0, 1), (-1, -2))
        if name == "fc6" and kernel.ndim == 2:
            kernel = rows_by_pixel(kernel, weights["conv5"][1]().size)
        kernel = contiguous(kernel)
        if name in DENSE:
            kernel = kernel.reshape(-1, kernel.shape[-1])
        return LayerWeights(kernel, contiguous(bias.reshape(-1)))

    # Checksums and copies leave Python's lock alone. The largest layer first.
    order = sorted(weights, key=lambda name: name != "fc6")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        layers = dict(zip(order, pool.map(convert, order), strict=True))
    return {name: layers[name] for name in weights}


def rows_by_pixel(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Reorders the inputs of a dense layer behind feature maps, without a copy.

    Args:
        kernel: `(channels * height * width, out)`, counted in this order. Maps are
            taken to be square.
        channels: The number of maps.

    Returns:
        A view of shape `(height, width, channels, out)`.
    """
    size = math.isqrt(kernel.shape[0] // channels) if channels else 0
    if size * size * channels != kernel.shape[0] or not size:
        raise WeightFileError(
            f"fc6 has {kernel.shape[0]} inputs, which cannot be square maps of "
            f"conv5's {channels} channels."
        )
    kernel = kernel.reshape(channels, size, size, kernel.shape[1])
    return kernel.transpose(1, 2, 0, 3)


def by_position(convolutions: Sequence, dense: Sequence) -> dict:
    """Names layers by their order.

    Raises:
        WeightFileError: They are not five convolutions and up to three dense layers.
    """
    if len(convolutions) != 5 or len(dense) > 3:
        raise WeightFileError(
            "An AlexNet has 5 convolutions and up to 3 dense layers. Found: "
            f"{len(convolutions)} and {len(dense)}."
        )
    layers = dict(zip(CONVOLUTIONS, convolutions, strict=True))
    return layers | dict(zip(DENSE, dense, strict=False))


def normalises_first(kinds: Sequence[str | None]) -> bool | None:
    """Says whether the first normalisation stands before the first pooling.

    Args:
        kinds: Caffe's types of layers or ONNX's operators, in their order.

    Returns:
        None where there are not both.
    """
    found = [kind == "LRN" for kind in kinds if kind in ("LRN", "Pooling", "MaxPool")]
    return found[0] if len(set(found)) == 2 else None
