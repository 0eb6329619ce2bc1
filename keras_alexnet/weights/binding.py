"""What the weights of a file expect of images, bound to the model that takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_alexnet.images.preprocessing import get_preprocessing
from keras_alexnet.weights.weight_file import WeightFile

if TYPE_CHECKING:
    from keras_alexnet.model import AlexNet

# The preprocessing of all that has been published in a format. Keras files come from
# anyone, and what they expect is in the model that they were saved with.
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

    Args:
        model: A model that has been given the weights, conv1 at least.
        weight_file: Where they come from.
    """
    mode = _MODES.get(weight_file.format)
    height, width, channels = model.input_shape[1:]
    if mode is None or channels != 3 or height != width:
        return
    preprocessing = get_preprocessing(mode)
    if weight_file.mean_image is not None:
        preprocessing = get_preprocessing(mode, mean_image=weight_file.mean_image)
    if height is not None:
        preprocessing = preprocessing.with_image_size(height)
    top = weight_file.layers.get("fc8")
    has_top = top is not None and model.output_shape[-1] == top.bias.size
    class_order = None
    if has_top and top.bias.size == IMAGENET_CLASSES:
        class_order = "wordnet"
    model.bind(preprocessing, class_order=class_order, weights=weight_file.name)
