"""What the layers inside a network make of images.

Layers have the same names in every variant: conv1, relu1, norm1, pool1 ... fc6, relu6,
drop6, fc7, relu7, fc8. A name means that layer's own output: `fc6` is linear, `relu6`
what comes after its activation (which Caffe, whose ReLU works in place, calls fc6 too).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import keras

from keras_alexnet.errors import UserError, unknown

# torchvision's names for the layers of its AlexNet, as brain-score and thingsvision tap
# them. LPIPS takes relu1 to relu5, which are features.1, .4, .7, .9 and .11. A hook in
# PyTorch on a convolution or a dense layer may see rectified values, because the ReLU
# behind it works in place; ours are linear.
TORCHVISION_LAYERS: Mapping[str, str] = MappingProxyType(
    {
        "features.0": "conv1",
        "features.1": "relu1",
        "features.2": "pool1",
        "features.3": "conv2",
        "features.4": "relu2",
        "features.5": "pool2",
        "features.6": "conv3",
        "features.7": "relu3",
        "features.8": "conv4",
        "features.9": "relu4",
        "features.10": "conv5",
        "features.11": "relu5",
        "features.12": "pool5",
        "avgpool": "avgpool",
        "classifier.0": "drop5",
        "classifier.1": "fc6",
        "classifier.2": "relu6",
        "classifier.3": "drop6",
        "classifier.4": "fc7",
        "classifier.5": "relu7",
        "classifier.6": "fc8",
    }
)


def feature_extractor(
    model: keras.Model, layers: Sequence[str] = ("fc7",)
) -> keras.Model:
    """Returns a model that shows what layers inside a model make of its input.

    All in one pass, with the given model's own weights.

    Args:
        model: A functional model, such as `build()` returns.
        layers: Names of layers. Where the network has torchvision's layers
            (`alexnet_owt`), torchvision's names are understood too, such as
            `features.2`; see `TORCHVISION_LAYERS`. `classifier.0` counts its 9,216
            numbers by channel, as PyTorch does, where our `flatten` and `drop5` count
            them by pixel.

    Returns:
        A Keras model with the same input, and as output a dictionary from the names, as
        they were given, to the layers' outputs.

    Raises:
        ValueError: There is no such layer; the message lists those that exist.

    Example:
    >>> extractor = keras_alexnet.feature_extractor(model, ["relu1", "fc7"])
    >>> extractor.predict(model.preprocess(images))["fc7"].shape
    (10, 4096)
    """
    layers = [layers] if isinstance(layers, str) else list(layers)
    if not layers:
        raise UserError("layers must name at least one layer. Received: none")
    if len(set(layers)) < len(layers):
        raise UserError(f"layers names a layer twice. Received: {', '.join(layers)}")
    outputs = {
        layer.name: layer.output
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    }
    aliases = TORCHVISION_LAYERS if _has_torchvision_layers(list(outputs)) else {}
    chosen = {}
    for name in layers:
        own = name if name in outputs else aliases.get(name)
        if own not in outputs:
            raise UserError(unknown(str(name), "layer", outputs, f"model {model.name}"))
        chosen[name] = outputs[own]
        if name == "classifier.0" and name != own:
            chosen[name] = _flattened_by_channel(model.get_layer("flatten").input)
    # A single input as itself: in a list, Keras would ask for a list.
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, chosen, name=f"{model.name}_features")


def _flattened_by_channel(maps: keras.KerasTensor) -> keras.KerasTensor:
    """Returns feature maps in a row as PyTorch flattens them: channel by channel."""
    if keras.config.image_data_format() == "channels_last":
        maps = keras.layers.Permute((3, 1, 2))(maps)
    return keras.layers.Reshape((-1,), name="channels_first_features")(maps)


def _has_torchvision_layers(names: list[str]) -> bool:
    """Says whether a network's features are torchvision's, in the same order."""
    expected = [
        own for name, own in TORCHVISION_LAYERS.items() if name.startswith("features.")
    ]
    # Padding is a part of torchvision's first convolution.
    found = [name for name in names if not name.startswith("pad")]
    return found[: len(expected)] == expected
