"""`bvlc_alexnet.npy`: Caffe's weights as caffe-tensorflow wrote them.

A NumPy file with one object in it, a dict from layer names to `[weights, biases]` or to
`{"weights": ..., "biases": ...}`, pickled by Python 2. Kernels have TensorFlow's layout
already, and fc6 counts its inputs by pixel. The header is described in NumPy's
documentation of `numpy.lib.format`.
"""

from __future__ import annotations

import re
import struct

import numpy as np

from keras_alexnet.weights.arrays import contiguous
from keras_alexnet.weights.unpickle import Array, load
from keras_alexnet.weights.weight_file import (
    LAYER_NAMES,
    LayerWeights,
    WeightFile,
    WeightFileError,
)

MAGIC = b"\x93NUMPY"
_MAX_HEADER = 1 << 12
_HEADER = re.compile(
    rb"\{'descr': '\|?O[48]?', 'fortran_order': (?:False|True), 'shape': \([0-9, L]*\),"
    rb"? *\} *\n?"
)


def read(buffer: memoryview) -> WeightFile:
    """Reads the dict in a NumPy file."""
    if len(buffer) < 12:
        raise WeightFileError("The NumPy file is cut short.")
    if buffer[6] == 1:
        size, start = struct.unpack("<H", buffer[8:10])[0], 10
    elif buffer[6] in (2, 3):
        size, start = struct.unpack("<I", buffer[8:12])[0], 12
    else:
        raise WeightFileError(f"The NumPy file is of the unknown version {buffer[6]}.")
    header = bytes(buffer[start : start + min(size, _MAX_HEADER)])
    if len(header) != size or not _HEADER.fullmatch(header):
        raise WeightFileError(
            "Expected a NumPy file that holds one dict, as bvlc_alexnet.npy does. "
            f"Its header says: {header[:100].decode('latin-1')!r}."
        )
    value, _ = load(buffer, start + size)
    # numpy.save wraps whatever it is given in an array of objects.
    if isinstance(value, Array):
        if value.dtype is not None or not isinstance(value.data, list):
            raise WeightFileError("The NumPy file holds an array instead of a dict.")
        value = value.data[0] if value.shape in ((), (1,)) else value.data
    return WeightFile("npy", _layers(value), preprocessing="caffe")


def _layers(value) -> dict[str, LayerWeights]:
    if isinstance(value, list) and 5 <= len(value) <= len(LAYER_NAMES):
        value = dict(zip(LAYER_NAMES, value, strict=False))
    if not isinstance(value, dict) or not set(LAYER_NAMES[:5]) <= set(value):
        raise WeightFileError(
            f"Expected a dict with the layers {', '.join(LAYER_NAMES)}. "
            f"Found: {type(value).__name__}."
        )
    layers = {}
    for name in LAYER_NAMES:
        if name not in value:
            continue
        entry = value[name]
        if isinstance(entry, dict):
            entry = [entry.get("weights"), entry.get("biases")]
        if isinstance(entry, Array) and isinstance(entry.data, list):
            entry = entry.data
        if not isinstance(entry, (list, tuple)) or len(entry) != 2:
            raise WeightFileError(f"{name} should have weights and biases.")
        if not all(isinstance(part, Array) for part in entry):
            raise WeightFileError(f"{name} should have two arrays.")
        kernel, bias = (contiguous(part.numpy()) for part in entry)
        layers[name] = LayerWeights(kernel, np.reshape(bias, -1))
    return layers
