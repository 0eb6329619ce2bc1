"""Keras's `.keras` and `.weights.h5`: arrays, and what a file says of its model.

Of a `.keras` archive `model.weights.h5` is read, and of its configuration the model's
name, input size and metadata; nothing is built from it. In the former,
`layers/*/vars` has a layer's name as an attribute and its arrays, kernel and bias, as
the arrays 0 and 1.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping

from keras_alexnet.weights.archives import read_member
from keras_alexnet.weights.arrays import contiguous
from keras_alexnet.weights.hdf5 import MAGIC, File, Object
from keras_alexnet.weights.weight_file import (
    DENSE,
    LAYER_NAMES,
    METADATA,
    LayerWeights,
    WeightFile,
    WeightFileError,
)

__all__ = ["MAGIC", "read_archive", "read_hdf5"]

# A mean image may be in it, as text.
_MAX_CONFIG = 1 << 24


def read_archive(buffer: memoryview, members: Mapping) -> WeightFile:
    """Reads a `.keras` archive."""
    data = read_member(buffer, members["model.weights.h5"])
    weights = read_hdf5(data)
    if "config.json" in members and members["config.json"].file_size < _MAX_CONFIG:
        try:
            config = json.loads(bytes(read_member(buffer, members["config.json"])))
            config = config["config"]
            return dataclasses.replace(weights, **_description(config))
        except (LookupError, TypeError, RecursionError, json.JSONDecodeError):
            raise WeightFileError("The archive's config.json is damaged.") from None
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
    layers = dict(_layers(File(buffer).root.child("layers")))
    if not layers:
        raise WeightFileError(
            f"Expected a Keras file with the layers {', '.join(LAYER_NAMES)}. Found "
            "none of them."
        )
    ordered = {name: layers[name] for name in LAYER_NAMES if name in layers}
    return WeightFile("keras", ordered)


def _layers(group: Object) -> Iterator[tuple[str, LayerWeights]]:
    """Yields names and weights."""
    for key, position in group.children().items():
        layer = Object(group.file, position)
        if "vars" not in layer.children():
            continue
        arrays = layer.child("vars")
        name = arrays.attribute("name") or key
        if name not in LAYER_NAMES:
            continue
        if set(arrays.children()) != {"0", "1"}:
            raise WeightFileError(f"{name} should have a kernel and a bias.")
        kernel, bias = (contiguous(arrays.child(i).array()) for i in ("0", "1"))
        if name in DENSE:
            # Written as a convolution over all pixels in alexnet_slim_v2.
            kernel = kernel.reshape(-1, kernel.shape[-1]) if kernel.size else kernel
        yield name, LayerWeights(kernel, bias)
