"""Keras's `.keras` and `.weights.h5`: arrays, and what a file says of its model.

Of a `.keras` archive `model.weights.h5` is read, and of its configuration the model's
name, input size and metadata; nothing is built from it. In the former,
`layers/*/vars` has a layer's name as an attribute, and its arrays by number.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import numpy as np

from keras_alexnet.weights.arrays import contiguous
from keras_alexnet.weights.buffers import read_member
from keras_alexnet.weights.hdf5 import Object
from keras_alexnet.weights.weight_file import (
    DENSE,
    LAYER_NAMES,
    METADATA,
    LayerWeights,
    WeightFile,
    WeightFileError,
)

# A mean image may be in it, as text.
_MAX_CONFIG = 1 << 24


def read_archive(buffer: memoryview, members: Mapping) -> WeightFile:
    """Reads a `.keras` archive."""
    weights = read_hdf5(read_member(buffer, members["model.weights.h5"]))
    if "config.json" in members and members["config.json"].file_size < _MAX_CONFIG:
        config = json.loads(bytes(read_member(buffer, members["config.json"])))
        return dataclasses.replace(weights, **_description(config["config"]))
    return weights


def _description(config: Mapping) -> dict:
    """Returns what a model's configuration says of it."""
    name, metadata = config["name"], config.get(METADATA)
    size = None
    for layer in config.get("layers", [])[:1]:
        shape = layer["config"].get("batch_shape") or ()
        # With channels first and last alike, for all images that we take are square.
        size = shape[2] if len(shape) == 4 else None
    return {
        "name": name if isinstance(name, str) else None,
        "input_size": size if isinstance(size, int) else None,
        "metadata": metadata if isinstance(metadata, dict) else {},
    }


def read_hdf5(buffer: memoryview) -> WeightFile:
    """Reads a `.weights.h5` file."""
    root = Object(buffer).children()
    if "layers" not in root:
        raise WeightFileError(
            "The HDF5 file is no .weights.h5 of Keras 3. A whole model, .h5 or .keras, "
            "is opened by keras_alexnet.load_model."
        )
    arrays = {}
    for key, layer in root["layers"].children().items():
        if variables := layer.children().get("vars"):
            name = variables.attribute("name") or key
            try:
                arrays[name] = _arrays(variables.children())
            except WeightFileError:
                if name in LAYER_NAMES:
                    raise
                # Another layer may keep what is no array of floats.
                arrays[name] = ()
    layers = {
        name: _layer(name, *arrays.pop(name))
        for name in LAYER_NAMES
        if len(arrays.get(name, ())) in (1, 2)
    }
    if not layers:
        raise WeightFileError(
            f"Expected a Keras file with the layers {', '.join(LAYER_NAMES)}. Found "
            "none of them."
        )
    return WeightFile("keras", layers, others=arrays)


def _arrays(variables: dict[str, Object]) -> tuple[np.ndarray, ...]:
    numbers = sorted((name for name in variables if name.isdigit()), key=int)
    return tuple(contiguous(variables[number].array()) for number in numbers)


def _layer(name: str, kernel, bias=None) -> LayerWeights:
    if name in DENSE and kernel.size:
        # Written as a convolution over all pixels in alexnet_slim_v2.
        kernel = kernel.reshape(-1, kernel.shape[-1])
    return LayerWeights(kernel, bias)
