"""The named networks, as data.

An architecture is two tuples of layer descriptions, the features and the classifier on
top of them. A description says which *role* a layer plays, its name, the registered
class that plays the role by default, and that class's arguments; the builder turns it
into a layer. Nothing else in the package knows one network from another.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keras_alexnet.errors import unknown


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """One layer of an architecture.

    Attributes:
        role: What the layer is for: `conv`, `activation`, `norm`, `pool`, `flatten`,
            `dense` or `dropout`. An override of `build()` replaces all layers of a
            role.
        name: The layer's name in the model.
        layer: The registered name of the class that plays the role.
        options: The class's arguments. A float as `kernel_initializer` is the standard
            deviation of a normal distribution around zero, a float as
            `bias_initializer` the constant that biases start at.
    """

    role: str
    name: str
    layer: str
    options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network as data.

    Attributes:
        name: What `build()` calls it.
        summary: One line for people.
        input_size: Height and width of the default input, in pixels.
        channels: Colour channels of the default input.
        classes: Width of the default output.
        features: The convolutional part.
        top: The classifier. A `dense` layer whose `units` is None is as wide as there
            are classes.
        pixel_scale: What mean-free pixels (0-255) are multiplied by before they enter.
    """

    name: str
    summary: str
    input_size: int
    channels: int
    classes: int
    features: tuple[LayerSpec, ...]
    top: tuple[LayerSpec, ...]
    pixel_scale: float = 1.0


def _spec(role: str, name: str, layer: str, **options: Any) -> LayerSpec:
    return LayerSpec(role, name, layer, MappingProxyType(options))


def _conv(index: int, filters: int, kernel: int, weights, bias: float, **options):
    """A convolution and its ReLU; `groups` above one makes it a two-tower layer."""
    return (
        _spec(
            "conv",
            f"conv{index}",
            "grouped_conv",
            filters=filters,
            kernel_size=kernel,
            kernel_initializer=weights,
            bias_initializer=bias,
            **{"strides": 1, "padding": "same", "groups": 1, **options},
        ),
        _spec("activation", f"relu{index}", "relu"),
    )


def _norm(index: int, **options) -> tuple[LayerSpec]:
    return (_spec("norm", f"norm{index}", "lrn", **options),)


def _pool(index: int, **options) -> tuple[LayerSpec]:
    options = {"pool_size": 3, "strides": 2, **options}
    return (_spec("pool", f"pool{index}", "overlapping_max_pooling", **options),)


def _dense(index: int, units: int | None, weights, bias: float) -> LayerSpec:
    return _spec(
        "dense",
        f"fc{index}",
        "dense",
        units=units,
        kernel_initializer=weights,
        bias_initializer=bias,
    )


def _top(units: int, weights, bias: float, dropout: float = 0.5):
    """Two hidden layers with ReLU and dropout, and the output layer."""
    hidden = [
        (
            _dense(index, units, weights, bias),
            _spec("activation", f"relu{index}", "relu"),
            _spec("dropout", f"drop{index}", "scheduled_dropout", rate=dropout),
        )
        for index in (6, 7)
    ]
    return (
        _spec("flatten", "flatten", "flatten"),
        *hidden[0],
        *hidden[1],
        _dense(8, None, 0.01, 0.0),
    )


# The paper (section 3 and figure 2). It calls the input 224 pixels wide; its own sizes
# (55, 27, 13) need 227 without padding. Weights are N(0, 0.01^2) in every layer, biases
# 1 in conv2, conv4, conv5 and the hidden dense layers, and 0 elsewhere (section 5).
_ALEXNET_2012 = Architecture(
    name="alexnet_2012",
    summary="the network of the 2012 paper, as written",
    input_size=227,
    channels=3,
    classes=1000,
    features=(
        *_conv(1, 96, 11, 0.01, 0.0, strides=4, padding="valid"),
        *_norm(1, size=5, alpha=1e-4, beta=0.75, k=2.0),
        *_pool(1),
        *_conv(2, 256, 5, 0.01, 1.0, groups=2),
        *_norm(2, size=5, alpha=1e-4, beta=0.75, k=2.0),
        *_pool(2),
        *_conv(3, 384, 3, 0.01, 0.0),
        *_conv(4, 384, 3, 0.01, 1.0, groups=2),
        *_conv(5, 256, 3, 0.01, 1.0, groups=2),
        *_pool(5),
    ),
    top=_top(4096, 0.01, 1.0),
)

# The same design for small images: conv1 keeps the resolution, so that 28 pixels leave
# 2x2 after pool5, as 227 leave 6x6. At a third of the depth in channels the paper's
# initialisation of 0.01 lets the signal die out; He's keeps its variance from layer to
# layer, for inputs of about unit variance, up to the output layer, whose small weights
# make all classes equally likely at first.
_ALEXNET_MINI = Architecture(
    name="alexnet_mini",
    summary="the same design for images of 28 to 64 pixels",
    input_size=28,
    channels=3,
    classes=10,
    features=(
        *_conv(1, 32, 5, "he_normal", 0.0),
        *_norm(1, size=5, alpha=1e-4, beta=0.75, k=2.0),
        *_pool(1),
        *_conv(2, 64, 5, "he_normal", 0.0, groups=2),
        *_norm(2, size=5, alpha=1e-4, beta=0.75, k=2.0),
        *_pool(2),
        *_conv(3, 96, 3, "he_normal", 0.0),
        *_conv(4, 96, 3, "he_normal", 0.0, groups=2),
        *_conv(5, 64, 3, "he_normal", 0.0, groups=2),
        *_pool(5),
    ),
    top=_top(256, "he_normal", 0.0),
    pixel_scale=1 / 64,
)

_ARCHITECTURES = {a.name: a for a in (_ALEXNET_2012, _ALEXNET_MINI)}


def list_architectures(pattern: str = "*") -> list[str]:
    """Lists the names of the architectures that match a shell pattern."""
    return sorted(fnmatch.filter(_ARCHITECTURES, pattern))


def get_architecture(name: str) -> Architecture:
    """Returns the architecture of a name.

    Raises:
        ValueError: There is none; the message lists those that exist.
    """
    if name not in _ARCHITECTURES:
        raise ValueError(unknown(name, "architecture", _ARCHITECTURES))
    return _ARCHITECTURES[name]
