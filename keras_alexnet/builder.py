"""From an architecture and a user's overrides to a Keras model."""

from __future__ import annotations

import contextlib
import functools
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras

from keras_alexnet.architectures import (
    Architecture,
    Initial,
    LayerSpec,
    get_architecture,
)
from keras_alexnet.errors import UserError
from keras_alexnet.model import AlexNet
from keras_alexnet.registry import get_layer
from keras_alexnet.weights.assignment import load_weights_into
from keras_alexnet.weights.catalog import find_weights
from keras_alexnet.weights.reading import read_weights
from keras_alexnet.weights.recognition import Network, network_of
from keras_alexnet.weights.weight_file import WeightFile

Override = str | type | Callable[..., keras.layers.Layer] | None

# What a layer that takes over a role is told about its place in the network. The other
# options in an architecture belong to the class named there, and go with it.
ROLE_OPTIONS = {
    "conv": {
        "filters",
        "kernel_size",
        "strides",
        "padding",
        "groups",
        "kernel_initializer",
        "bias_initializer",
    },
    "dense": {"units", "kernel_initializer", "bias_initializer"},
    "pool": {"pool_size", "strides"},
    "dropout": {"rate"},
    "norm": set(),
    "activation": set(),
}
_ACTIVATIONS = set(dir(keras.activations)) - {"get", "serialize", "deserialize"}
# Without these there would be no network.
REQUIRED_ROLES = {"conv", "dense"}
DEFAULT_ARCHITECTURE = "alexnet_2012"


def build(
    architecture: str | Architecture | None = None,
    *,
    include_top: bool = True,
    weights: str | Path | WeightFile | None = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    name: str | None = None,
    groups: int | None = None,
    conv: Override = "default",
    norm: Override = "default",
    pool: Override = "default",
    activation: Override = "default",
    dropout: Override | float = "default",
    dropout_position: Literal["before", "after"] | None = None,
    dense: Override = "default",
    dtype: str | keras.DTypePolicy | None = None,
) -> AlexNet:
    """Builds an AlexNet.

    Without arguments: the network of the 2012 paper, 227x227x3 pixels in, 1,000
    probabilities out, 60,965,224 parameters. Inputs are mean-free pixels on the scale
    of 0-255, times the architecture's `pixel_scale` (1 for `alexnet_2012`).

    Layers are called conv1, relu1, norm1, pool1 ... fc8 in every variant. One that does
    not normalise has the places of norm1 and norm2 for a `norm` of yours.

    Args:
        architecture: A name (see `list_architectures()`) or an `Architecture`. Defaults
            to that of the weights, with their input size and classes; without weights
            to `"alexnet_2012"`.
        include_top: Whether the classifier (fc6 to fc8) stands on top.
        weights: The name of published weights (see `list_weights()`), or `"imagenet"`
            for those of the architecture (torchvision's by default), which are
            downloaded once; or what `keras_alexnet.weights.read_weights()` returned; or
            a file: PyTorch's `.pth` and `.safetensors`, Caffe's
            `.caffemodel`, the `bvlc_alexnet.npy` dictionary, ONNX, or Keras's `.keras`
            and `.weights.h5`, told apart by their content. Preprocessing and class
            names come with them. Where the top is left out, or input size or classes
            differ, what does not fit keeps its initial value, and a warning names it.
            None is the architecture's own random initialisation.
        input_tensor: A Keras tensor to use as input.
        input_shape: `(height, width, channels)`, or `(channels, height, width)` with
            `keras.config.image_data_format() == "channels_first"`. Without the top,
            height and width may be None. Defaults to the architecture's.
        pooling: Without the top: None for the feature maps, `"avg"` or `"max"` for
            their global average or maximum, a tensor of shape `(batch, channels)`.
        classes: Number of classes. Defaults to the architecture's.
        classifier_activation: What turns logits into the output; None returns logits.
            Either is float32, under mixed precision too. Defaults to `"softmax"`.
        name: The model's name. Defaults to the architecture's.
        groups: Number of towers in the layers that have two, convolutions and
            normalisations. 1 joins them.
        conv: Replaces the convolutions. This and the other five roles below take a
            registered name (see `list_layers()`, also any `keras.layers` class), a
            class or any function that returns a layer; None leaves the role out, and
            `"default"` keeps the architecture's layers. A replacement is called with
            the layer's name, dtype, and what its place in the network asks for:
            `conv` gets filters, kernel_size, strides, padding, groups and
            initializers, `dense` units and initializers, `pool` pool_size and strides,
            `dropout` its rate, the others nothing.
        norm: Replaces the normalisations, where a block has two by a single one.
        pool: Replaces the pooling layers.
        activation: Replaces the activations; also any function of `keras.activations`.
        dropout: Replaces the dropout layers; a number changes their rate only.
        dropout_position: `"before"` fc6 and fc7, as in torchvision's network, or
            `"after"` them, as in all others. Defaults to the architecture's.
        dense: Replaces the fully connected layers.
        dtype: The dtype policy of all layers, e.g. `"mixed_bfloat16"`. Defaults to
            `keras.config.dtype_policy()`.

    Returns:
        An `AlexNet`, which is an ordinary functional Keras model.

    Raises:
        ValueError: An unknown architecture or layer, an input too small for the
            network (the message names the smallest), or arguments that contradict one
            another.
        OSError: The weights could not be downloaded. The message says where to put a
            copy.

    Example:
    >>> model = keras_alexnet.build()
    >>> model.count_params()
    60965224
    >>> base = keras_alexnet.build(include_top=False, input_shape=(96, 96, 3))
    """
    _check_numbers(pooling=pooling, classes=classes, groups=groups)
    architecture, weights, network = _open_weights(architecture, weights)
    if network is not None:
        include_top = include_top and network.classes is not None
        classes = classes or network.classes
        if input_shape is None:
            input_shape = _image_shape(network.input_size, network.channels)
    if dropout_position is not None:
        architecture = architecture.with_dropout(dropout_position)
    overrides = {
        "conv": conv,
        "norm": norm,
        "pool": pool,
        "activation": activation,
        "dropout": dropout,
        "dense": dense,
    }
    _check_overrides(architecture, overrides)
    layers = []
    for spec in architecture.features + (architecture.top if include_top else ()):
        options = _options(spec, classes or architecture.classes, groups)
        override = overrides.get(spec.role, "default")
        layers.append(_make_layer(spec, options, override, dtype))
    last = _last_layer(include_top, classifier_activation, pooling, dtype)
    layers = [layer for layer in (*layers, last) if layer is not None]

    inputs = x = _input(architecture, input_tensor, input_shape, include_top)
    _check_size(layers, inputs.shape)
    for layer in layers:
        x = _call(layer, x)
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
        # A list of one would be a structure that `fit` expects its data to have.
        inputs = inputs[0] if len(inputs) == 1 else inputs
    model = AlexNet(inputs, x, name=name or architecture.name)
    model.bind(architecture=architecture.name)
    if weights is not None:
        load_weights_into(model, weights)
    return model


def _open_weights(
    architecture: str | Architecture | None, weights: str | Path | WeightFile | None
) -> tuple[Architecture, WeightFile | None, Network | None]:
    """Returns architecture, weights, and their network where it is theirs to say."""
    if isinstance(architecture, str):
        architecture = get_architecture(architecture)
    elif not isinstance(architecture, Architecture | None):
        raise UserError(
            "architecture must be a name or an Architecture. "
            f"Received: {architecture!r}"
        )
    if weights is not None and not isinstance(weights, WeightFile):
        path = find_weights(weights, architecture and architecture.name)
        weights = read_weights(path)
    if architecture is not None or weights is None:
        return architecture or get_architecture(DEFAULT_ARCHITECTURE), weights, None
    network = network_of(weights)
    return get_architecture(network.architecture), weights, network


def _last_layer(
    include_top: bool,
    classifier_activation: str | Callable | None,
    pooling: str | None,
    dtype: str | keras.DTypePolicy | None,
) -> keras.layers.Layer | None:
    """Makes what turns logits or feature maps into the output."""
    if include_top:
        # In float32 whatever the policy: probabilities and logits near one another
        # would coincide in half precision.
        output = classifier_activation or "linear"
        return keras.layers.Activation(output, dtype="float32", name="predictions")
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D(name="avg_pool", dtype=dtype)
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D(name="max_pool", dtype=dtype)
    return None


def _check_numbers(*, pooling: Any, **numbers_of: Any) -> None:
    if pooling not in (None, "avg", "max"):
        raise UserError(f"pooling must be None, 'avg' or 'max'. Received: {pooling!r}")
    for name, value in numbers_of.items():
        if value is None:
            continue
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise UserError(f"{name} must be an integer. Received: {name}={value!r}")
        if value < 1:
            raise UserError(f"{name} must be at least 1. Received: {name}={value}")


def _check_overrides(architecture: Architecture, overrides: dict[str, Any]) -> None:
    roles = {spec.role for spec in architecture.features + architecture.top}
    for role, override in overrides.items():
        if role in REQUIRED_ROLES and override is None:
            raise UserError(f"{role} cannot be left out. Received: {role}=None")
        if role not in roles and override not in (None, "default"):
            raise UserError(
                f"{architecture.name} has no {role} layers to replace. "
                f"Received: {role}={override!r}"
            )


def _options(spec: LayerSpec, classes: int, groups: int | None) -> dict[str, Any]:
    """Returns a description's options, with what the user said of its widths."""
    options = dict(spec.options)
    for width in ("units", "filters"):
        if width in options and options[width] is None:
            options[width] = int(classes)
    if groups is not None and options.get("groups", 1) > 1:
        options["groups"] = int(groups)
    return options


def _make_layer(
    spec: LayerSpec, options: dict[str, Any], override: Override | float, dtype
) -> keras.layers.Layer | None:
    """Makes the layer of a description, or what an override puts in its place."""
    if override is None:
        return None
    replaced = override != "default"
    if (replaced and not spec.replaceable) or (not replaced and spec.layer is None):
        return None
    factory, options = _resolve(spec, options, override)
    for key in ("kernel_initializer", "bias_initializer"):
        if key in options:
            options[key] = _initializer(key, options[key])
    what = override if replaced else spec.layer
    wrong = f"{what!r} cannot be the {spec.role} layer {spec.name}: "
    try:
        layer = factory(name=spec.name, dtype=dtype, **options)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{wrong}it was called with name, dtype"
            f"{''.join(f', {key}' for key in options)} and raised {error}"
        ) from error
    if not isinstance(layer, keras.layers.Layer):
        raise UserError(
            f"{wrong}expected a Keras layer, received {type(layer).__name__}."
        )
    return layer


def _call(layer: keras.layers.Layer, x: keras.KerasTensor) -> keras.KerasTensor:
    try:
        return layer(x)
    except UserError:
        raise
    except ValueError as error:
        # Nothing is computed here: shapes do not fit, or a replacement refuses them.
        raise UserError(
            f"The layer {layer.name} cannot take what comes before it, of shape "
            f"{x.shape}: {error}"
        ) from error


def _resolve(
    spec: LayerSpec, options: dict[str, Any], override: Override | float
) -> tuple[Callable[..., keras.layers.Layer], dict[str, Any]]:
    """Decides what is called to make a layer, and with which options."""
    own = get_layer(spec.layer) if spec.layer else None
    if isinstance(override, numbers.Real) and not isinstance(override, bool):
        return own, {**options, "rate": float(override)}
    if override in ("default", spec.layer, own):
        return own, options
    allowed = ROLE_OPTIONS[spec.role]
    options = {key: value for key, value in options.items() if key in allowed}
    if not isinstance(override, str):
        return override, options
    if spec.role == "activation" and override in _ACTIVATIONS:
        return functools.partial(keras.layers.Activation, override), options
    return get_layer(override), options


def _initializer(key: str, initial: Initial) -> keras.Initializer:
    if isinstance(initial, float):
        if key == "bias_initializer":
            return keras.initializers.Constant(initial)
        return keras.initializers.RandomNormal(0.0, initial)
    if isinstance(initial, tuple):
        name, *arguments = initial
        return getattr(keras.initializers, name)(*arguments)
    return keras.initializers.get(initial)


def _image_shape(size: int, channels: int) -> tuple[int, int, int]:
    if keras.config.image_data_format() == "channels_last":
        return (size, size, channels)
    return (channels, size, size)


def _input(
    architecture: Architecture,
    input_tensor: keras.KerasTensor | None,
    input_shape: tuple | None,
    include_top: bool,
) -> keras.KerasTensor:
    if input_shape is None:
        input_shape = _image_shape(architecture.input_size, architecture.channels)
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
        raise UserError(
            "input_shape must be three numbers, of height, width and channels. "
            f"Received: input_shape={input_shape}"
        )
    if input_tensor is None:
        inputs = keras.Input(input_shape, name="images")
    elif isinstance(input_tensor, keras.KerasTensor):
        inputs = input_tensor
    else:
        raise UserError(
            "input_tensor must be a Keras tensor, such as keras.Input returns. "
            f"Received: {type(input_tensor).__name__}"
        )
    last = keras.config.image_data_format() == "channels_last"
    channels = inputs.shape[-1 if last else 1]
    if channels is None or (include_top and None in inputs.shape[1:]):
        raise UserError(
            "Only without the top may height and width be None, and channels never. "
            f"Received: input_shape={inputs.shape[1:]}, include_top={include_top}"
        )
    return inputs


def _check_size(layers: list[keras.layers.Layer], shape: tuple) -> None:
    """Raises if an input of `shape` leaves nothing for the layers behind."""
    if None in shape[1:] or _survives(layers, shape):
        return
    last = keras.config.image_data_format() == "channels_last"
    channels = shape[-1] if last else shape[1]
    for size in range(1, 1025):
        if _survives(layers, (None, *_image_shape(size, channels))):
            raise UserError(
                f"Images of {shape[1:]} are too small for this network: nothing is "
                f"left for its last layers. The smallest are {size} x {size} pixels."
            )
    # No size helps, so size is not what is wrong; the layer's own error says what is.


def _survives(layers: list[keras.layers.Layer], shape: tuple) -> bool:
    try:
        for layer in layers:
            # A layer of someone else's may leave its output shape to be found out by
            # calling it; those that change the size do say.
            with contextlib.suppress(NotImplementedError):
                shape = layer.compute_output_shape(shape)
            if any(size is not None and size < 1 for size in shape[1:]):
                return False
    except ValueError:
        return False
    return True
