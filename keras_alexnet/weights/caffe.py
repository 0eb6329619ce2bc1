"""Caffe's `.caffemodel`, of today's layers and of the V1 layers of 2014, and its means.

Field numbers are those of BVLC/caffe, src/caffe/proto/caffe.proto.
"""

from __future__ import annotations

import numpy as np

from keras_alexnet.weights.arrays import channels_first_layers, normalises_first
from keras_alexnet.weights.buffers import view
from keras_alexnet.weights.protobuf import Message
from keras_alexnet.weights.weight_file import (
    CONVOLUTIONS,
    LAYER_NAMES,
    WeightFile,
    WeightFileError,
)

# NetParameter: name, V1 layers, layers.
_NAME, _V1_LAYERS, _LAYERS = 1, 2, 100
# Where name, type and blobs stand in a layer, and what a V1 layer's type means.
_LAYER_FIELDS, _V1_FIELDS = (1, 2, 7), (4, 5, 6)
_V1_TYPES = {15: "LRN", 17: "Pooling"}
# BlobProto: data, shape, double_data; its older shape is in fields 1 to 4.
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8


def read(buffer: memoryview) -> WeightFile:
    """Reads a `.caffemodel`."""
    net = Message(buffer)
    layers, fields = net.messages(_LAYERS), _LAYER_FIELDS
    if not layers:
        layers, fields = net.messages(_V1_LAYERS), _V1_FIELDS
    found, names, kinds = {}, [], []
    for layer in layers:
        name = layer.text(fields[0])
        kinds.append(layer.text(fields[1]) or _V1_TYPES.get(layer.integer(fields[1])))
        blobs = layer.messages(fields[2])
        if not blobs:
            continue
        names.append(name)
        # Networks trained on other classes must rename fc8, to "fc8_flickr" say.
        ours = "fc8" if name.startswith("fc8") else name
        if ours in LAYER_NAMES:
            if len(blobs) != 2 or ours in found:
                raise WeightFileError(f"{name} should have a weight and a bias.")
            found[ours] = blobs
    if not set(CONVOLUTIONS) <= set(found):
        raise WeightFileError(
            f"Expected weights of {', '.join(LAYER_NAMES)}. Found: "
            f"{', '.join(map(repr, names[:12])) or 'none'}."
        )
    weights = {
        name: (
            lambda blob=found[name][0], name=name: _weight(blob, name),
            lambda blob=found[name][1]: _blob(blob),
        )
        for name in LAYER_NAMES
        if name in found
    }
    return WeightFile(
        "caffe",
        channels_first_layers(weights),
        preprocessing="caffe",
        norm_first=normalises_first(kinds),
        name=net.text(_NAME) or None,
    )


def read_mean(buffer: memoryview) -> np.ndarray:
    """Reads a mean image, a `.binaryproto`.

    Returns:
        float32, `(height, width, channels)`, channels in the file's order (BGR).
    """
    mean = _blob(Message(buffer))
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim != 3 or mean.shape[0] not in (1, 3):
        raise WeightFileError(
            f"Expected a mean image of (channels, height, width). Found: {mean.shape}."
        )
    return np.ascontiguousarray(mean.transpose(1, 2, 0), np.float32)


def _weight(blob: Message, name: str) -> np.ndarray:
    weight = _blob(blob)
    # V1 layers write (out, in) as (1, 1, out, in).
    return weight if name in CONVOLUTIONS else weight.reshape(weight.shape[-2:])


def _blob(blob: Message) -> np.ndarray:
    """Returns a blob's numbers, as a view of the file."""
    shape = blob.message(_SHAPE).integers(1)
    shape = shape or [blob.integer(number) for number in (1, 2, 3, 4)]
    if data := blob.numbers(_DATA):
        return view(data, "<f4", shape)
    return view(blob.numbers(_DOUBLE_DATA), "<f8", shape)
