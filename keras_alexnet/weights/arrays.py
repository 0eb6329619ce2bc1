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
FLOATS = ("float16", "float32", "float64")


def view(buffer, dtype: np.dtype | str, shape: Sequence[int], offset: int = 0):
    """Returns an array on top of a buffer, after checking that it lies inside.

    Args:
        buffer: Bytes, or a view of them.
        dtype: Type of the elements.
        shape: The declared shape.
        offset: Where the array starts, in bytes.

    Raises:
        WeightFileError: The shape is negative, or larger than the buffer.
    """
    dtype, shape = np.dtype(dtype), tuple(shape)
    if len(shape) > 8 or any(size < 0 for size in shape) or offset < 0:
        raise WeightFileError(f"An array has the impossible shape {_short(shape)}.")
    size = math.prod(shape)
    if offset + size * dtype.itemsize > len(buffer):
        raise WeightFileError(
            f"An array of shape {_short(shape)} needs {size * dtype.itemsize:,} bytes; "
            f"{max(0, len(buffer) - offset):,} are there."
        )
    return np.frombuffer(buffer, dtype, size, offset).reshape(shape)


def contiguous(array: np.ndarray) -> np.ndarray:
    """Returns a float32 copy in C order that shares no memory with the file.

    Raises:
        WeightFileError: The elements are not floating-point numbers.
    """
    if array.dtype.newbyteorder("=").name not in FLOATS:
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


def widen(array: np.ndarray) -> np.ndarray:
    """Returns the float32 numbers whose upper halves, bfloat16, are given."""
    wide = array.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def channels_first_layers(
    weights: Mapping[str, tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]],
) -> dict[str, LayerWeights]:
    """Converts the layout that PyTorch, Caffe and ONNX share.

    Args:
        weights: By layer name, functions that return the kernel - `(out, in, height,
            width)` or `(out, in)` - and the bias, as views of the file. fc6 counts its
            inputs by channel, then row, then column.
    """
    # Checksums and copies leave Python's lock alone. The largest layer first.
    order = sorted(weights, key=lambda name: name != "fc6")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        converted = pool.map(
            lambda name: _convert(name, *weights[name], weights["conv5"][1]), order
        )
        layers = dict(zip(order, converted, strict=True))
    return {name: layers[name] for name in weights}


def _convert(name: str, kernel: Callable, bias: Callable, conv5_bias: Callable):
    kernel, bias = kernel(), bias()
    expected = 4 if name in CONVOLUTIONS else 2
    if kernel.ndim != expected or bias.ndim != 1 or not kernel.size:
        raise WeightFileError(
            f"{name} should have a kernel of {expected} dimensions and a bias of one. "
            f"Found: kernel {kernel.shape}, bias {bias.shape}."
        )
    if name in CONVOLUTIONS:
        kernel = kernel.transpose(2, 3, 1, 0)
    elif name == "fc6":
        kernel = rows_by_pixel(kernel.T, conv5_bias().size)
    else:
        kernel = kernel.T
    kernel = contiguous(kernel)
    if name in DENSE:
        kernel = kernel.reshape(-1, kernel.shape[-1])
    return LayerWeights(kernel, contiguous(bias))


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
    return {
        **dict(zip(CONVOLUTIONS, convolutions, strict=True)),
        **dict(zip(DENSE, dense, strict=False)),
    }


def _short(shape: tuple) -> str:
    """Writes a shape that may hold numbers of any length."""
    sizes = [str(size) if abs(size) < 1 << 63 else "..." for size in shape[:8]]
    return f"({', '.join(sizes)})"
