"""`bvlc_alexnet.npy`: Caffe's weights as caffe-tensorflow wrote them.

A NumPy file with one object in it, a dict from layer names to `[weights, biases]` or to
`{"weights": ..., "biases": ...}`, pickled by Python 2. Kernels have TensorFlow's layout
already, and fc6 counts its inputs by pixel. The header is described in NumPy's
documentation of `numpy.lib.format`, which would compile it as Python.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from keras_alexnet.weights.arrays import contiguous
from keras_alexnet.weights.buffers import take
from keras_alexnet.weights.unpickle import ARRAYS, Opaque, load, numpy_array
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
    start = 10 if buffer[6] == 1 else 12
    size = int.from_bytes(take(buffer, 8, start - 8), "little")
    header = bytes(buffer[start : start + min(size, _MAX_HEADER)])
    if len(header) != size or not _HEADER.fullmatch(header):
        raise WeightFileError(
            "Expected a NumPy file that holds one dict, as bvlc_alexnet.npy does. "
            f"Its header says: {header[:100].decode('latin-1')!r}."
        )
    value = _plain(load(buffer, start + size)[0])
    if not isinstance(value, dict) or not set(LAYER_NAMES[:5]) <= set(value):
        raise WeightFileError(
            f"Expected a dict with the layers {', '.join(LAYER_NAMES)}. "
            f"Found: {type(value).__name__}."
        )
    layers = {name: _layer(name, value[name]) for name in LAYER_NAMES if name in value}
    return WeightFile("npy", layers, preprocessing="caffe")


def _plain(value: Any) -> Any:
    """Returns what numpy.save has wrapped in an array of objects."""
    if not isinstance(value, Opaque) or value.name not in ARRAYS:
        return value
    found = numpy_array(value)
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def _layer(name: str, entry: Any) -> LayerWeights:
    entry = _plain(entry)
    if isinstance(entry, dict):
        entry = [entry.get("weights"), entry.get("biases")]
    arrays = [_plain(part) for part in entry]
    if len(arrays) != 2 or not all(isinstance(one, np.ndarray) for one in arrays):
        raise WeightFileError(f"{name} should have weights and biases.")
    kernel, bias = map(contiguous, arrays)
    return LayerWeights(kernel, bias.reshape(-1))
