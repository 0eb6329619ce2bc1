"""Preprocessing and class names of a weight file, bound to the model that takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from keras_alexnet.images.preprocessing import Preprocessing, get_preprocessing
from keras_alexnet.weights.weight_file import WeightFile

if TYPE_CHECKING:
    from keras_alexnet.model import AlexNet

# The preprocessing of all that has been published in a format.
_MODES = {
    "torch": "torch",
    "safetensors": "torch",
    "caffe": "caffe",
    "npy": "caffe",
    "onnx": "caffe",
}
IMAGENET_CLASSES = 1000


def bind_preprocessing(model: AlexNet, weight_file: WeightFile) -> None:
    """Tells a model what its new weights expect of images, and what its outputs mean.

    A `.keras` file says so itself, as far as the model that was saved knew it.

    Args:
        model: A model that has been given the weights, conv1 at least.
        weight_file: Where they come from.
    """
    preprocessing = _preprocessing(weight_file)
    *sizes, channels = model.input_shape[1:]
    if keras.config.image_data_format() == "channels_first":
        channels, *sizes = model.input_shape[1:]
    if preprocessing is not None:
        if channels != preprocessing.channels or sizes[0] != sizes[1]:
            preprocessing = None
        elif sizes[0] is not None:
            preprocessing = preprocessing.with_image_size(sizes[0])
    names, order = None, None
    top = weight_file.layers.get("fc8")
    if top is not None and model.output_shape[-1] == top.bias.size:
        names = weight_file.metadata.get("class_names") or None
        order = weight_file.metadata.get("class_order")
        if weight_file.format in _MODES and top.bias.size == IMAGENET_CLASSES:
            order = "wordnet"
    model.bind(preprocessing, class_names=names, class_order=order)


def _preprocessing(weight_file: WeightFile) -> Preprocessing | None:
    if saved := weight_file.metadata.get("preprocessing"):
        return Preprocessing.from_config(saved)
    mode = _MODES.get(weight_file.format)
    if mode is None:
        return None
    if weight_file.mean_image is not None:
        return get_preprocessing(mode, mean_image=weight_file.mean_image)
    return get_preprocessing(mode)
