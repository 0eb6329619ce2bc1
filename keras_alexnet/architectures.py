"""The named networks, as data.

An architecture is two tuples of layer descriptions, the features and the classifier on
top of them. A description says which *role* a layer plays, its name, the registered
class that plays the role by default, and that class's arguments; the builder turns it
into a layer. Nothing else in the package knows one network from another. Where paper,
source and re-implementations disagree is told in docs/variants.md.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from keras_alexnet.errors import UserError, unknown

# A float is the standard deviation of weights or the constant of biases, a string the
# name of a Keras initializer, a tuple the name of its class and its arguments in order.
Initial = float | str | tuple[str | float, ...]


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """One layer of an architecture.

    Attributes:
        role: What the layer is for: `conv`, `activation`, `norm`, `pool`, `dense` or
            `dropout`, which an override of `build()` replaces, or `pad`, `resize` or
            `flatten`, which are part of the geometry and which no override touches.
        name: The layer's name in the model.
        layer: The registered name of the class that plays the role, or None for a place
            that is empty unless an override fills it.
        options: The class's arguments. A float as `kernel_initializer` is the standard
            deviation of a normal distribution around zero, a float as
            `bias_initializer` the constant that biases start at; a tuple is the class
            of a Keras initializer and its arguments in order. `units` or `filters` of
            None is the number of classes.
        replaceable: Whether an override of the role puts a layer in this place. If not,
            it only takes this one away.
    """

    role: str
    name: str
    layer: str | None
    options: Mapping[str, Any]
    replaceable: bool = True


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network as data.

    Attributes:
        name: What `build()` calls it.
        summary: One line for people.
        input_size: Height and width of the default input, in pixels.
        features: The convolutional part.
        top: The classifier.
        channels: Colour channels of the default input.
        classes: Width of the default output.
        pixel_scale: What mean-free pixels (0-255) are multiplied by before they enter.
    """

    name: str
    summary: str
    input_size: int
    features: tuple[LayerSpec, ...]
    top: tuple[LayerSpec, ...]
    channels: int = 3
    classes: int = 1000
    pixel_scale: float = 1.0

    def kernel_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the kernels by layer, as Keras keeps them."""
        size, channels, shapes = self.input_size, self.channels, {}
        for spec in self.features + self.top:
            options = spec.options
            if spec.role == "conv":
                window, filters = options["kernel_size"], options["filters"]
                shape = window, window, channels // options["groups"]
                channels = filters or self.classes
                shapes[spec.name] = *shape, channels
            elif spec.role == "dense":
                units = options["units"] or self.classes
                shapes[spec.name] = channels, units
                channels = units
            elif spec.layer == "flatten":
                channels *= size**2
            size = _size_behind(spec, size)
        return shapes

    def widened(self, factor: float) -> Architecture:
        """Returns the architecture with more or fewer filters and hidden units.

        Args:
            factor: What their numbers are multiplied by; filters stay multiples of the
                most towers that a layer has.
        """
        if factor == 1:
            return self
        layers = self.features + self.top
        towers = max(spec.options.get("groups", 1) for spec in layers)

        def scaled(spec: LayerSpec) -> LayerSpec:
            options = dict(spec.options)
            for name, multiple in (("filters", towers), ("units", 1)):
                if options.get(name) is not None:
                    count = max(1, round(options[name] * factor / multiple))
                    options[name] = count * multiple
            return dataclasses.replace(spec, options=MappingProxyType(options))

        return dataclasses.replace(
            self,
            features=tuple(map(scaled, self.features)),
            top=tuple(map(scaled, self.top)),
        )

    def with_dropout(self, position: str) -> Architecture:
        """Returns the architecture with dropout before fc6 and fc7, or after them.

        Args:
            position: `"before"` or `"after"`.

        Raises:
            ValueError: There is no such position.
        """
        if position not in _DROPOUT:
            raise UserError(unknown(str(position), "position of dropout", _DROPOUT))
        first = next(spec for spec in self.top if spec.role == "dropout")
        top = []
        for spec in self.top:
            if spec.role == "dropout":
                continue
            beside = [spec]
            if name := _DROPOUT[position].get(spec.name):
                drop = dataclasses.replace(first, name=name)
                beside = [drop, spec] if position == "before" else [spec, drop]
            top += beside
        return dataclasses.replace(self, top=tuple(top))


def _size_behind(spec: LayerSpec, size: int) -> int:
    """Returns the height of the maps behind a layer that takes maps of a height."""
    options = spec.options
    if spec.role == "resize":
        return options["output_size"]
    if spec.role == "pad":
        padding = options["padding"]
        return size + (2 * padding if isinstance(padding, int) else sum(padding[0]))
    if spec.role not in ("conv", "pool"):
        return size
    if options.get("padding") == "same":
        return -(-size // options["strides"])
    window = options["kernel_size" if spec.role == "conv" else "pool_size"]
    rounding = math.ceil if options.get("rounding") == "ceil" else math.floor
    return 1 + rounding((size - window) / options["strides"])


# Which layers dropout stands beside, and what it is called there.
_DROPOUT = {
    "before": {"fc6": "drop5", "fc7": "drop6"},
    "after": {"relu6": "drop6", "relu7": "drop7"},
}


def _spec(role: str, name: str, layer: str | None, **options: Any) -> LayerSpec:
    return LayerSpec(role, name, layer, MappingProxyType(options))


def _conv(
    name: str,
    filters: int,
    kernel: int,
    weights: Initial,
    bias: Initial,
    **options: Any,
) -> LayerSpec:
    """A convolution; `groups` above one makes it a two-tower layer."""
    return _spec(
        "conv",
        name,
        "grouped_conv",
        filters=filters,
        kernel_size=kernel,
        kernel_initializer=weights,
        bias_initializer=bias,
        **{"strides": 1, "padding": "same", "groups": 1, **options},
    )


def _relu(name: str) -> LayerSpec:
    return _spec("activation", name, "relu")


def _lrn(name: str, k: float, **options: Any) -> LayerSpec:
    """Normalisation across channels; all systems agree on these three numbers."""
    options = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": k, **options}
    return _spec("norm", name, "lrn", **options)


def _no_norm(name: str) -> LayerSpec:
    """The place where the 2012 network normalises, empty."""
    return _spec("norm", name, None)


def _spatial_norm(name: str) -> LayerSpec:
    """The source's second normalisation; a `norm` of the user's stands in the first."""
    options = {"size": 5, "alpha": 1e-3, "beta": 0.75, "k": 1.0}
    spec = _spec("norm", name, "spatial_response_norm", **options)
    return dataclasses.replace(spec, replaceable=False)


def _batch_norm(name: str) -> LayerSpec:
    return _spec("norm", name, "fused_batch_normalization", momentum=0.9)


def _pool(name: str, rounding: str = "floor") -> LayerSpec:
    options = {"pool_size": 3, "strides": 2, "rounding": rounding}
    return _spec("pool", name, "overlapping_max_pooling", **options)


def _pad(name: str, padding: int | tuple) -> LayerSpec:
    return _spec("pad", name, "zero_padding2d", padding=padding)


def _flatten() -> LayerSpec:
    return _spec("flatten", "flatten", "flatten")


def _dense(name: str, units: int | None, weights: Initial, bias: Initial) -> LayerSpec:
    return _spec(
        "dense",
        name,
        "dense",
        units=units,
        kernel_initializer=weights,
        bias_initializer=bias,
    )


def _dropout(name: str, layer: str = "scheduled_dropout") -> LayerSpec:
    return _spec("dropout", name, layer, rate=0.5)


def _top(
    units: int, weights: Initial, bias: Initial, dropout: str = "scheduled_dropout"
) -> tuple[LayerSpec, ...]:
    """Two hidden layers with ReLU and dropout, and the output layer."""
    return (
        _flatten(),
        _dense("fc6", units, weights, bias),
        _relu("relu6"),
        _dropout("drop6", dropout),
        _dense("fc7", units, weights, bias),
        _relu("relu7"),
        _dropout("drop7", dropout),
        _dense("fc8", None, 0.01, 0.0),
    )


def _features(
    *convolutions: LayerSpec,
    norm: Callable[[str], LayerSpec] = _no_norm,
    rounding: str = "floor",
    pool_first: bool = False,
) -> tuple[LayerSpec, ...]:
    """Five convolutions with ReLU; normalisation and pooling after two, pooling last.

    Args:
        convolutions: conv1 to conv5.
        norm: Makes the normalisation of a name.
        rounding: How pooling rounds.
        pool_first: Whether pooling stands before normalisation.
    """
    layers: list[LayerSpec] = []
    for number, convolution in enumerate(convolutions, 1):
        layers += [convolution, _relu(f"relu{number}")]
        pool = _pool(f"pool{number}", rounding)
        if number <= 2:
            both = [norm(f"norm{number}"), pool]
            layers += both[::-1] if pool_first else both
    return (*layers, pool)


def _two_towers(bias: float, **options: Any) -> tuple[LayerSpec, ...]:
    """The convolutional part of the paper's network and of Caffe's two.

    Args:
        bias: What the biases of conv2, conv4 and conv5 start at.
        **options: Those of `_features`.
    """
    return _features(
        _conv("conv1", 96, 11, 0.01, 0.0, strides=4, padding="valid"),
        _conv("conv2", 256, 5, 0.01, bias, groups=2),
        _conv("conv3", 384, 3, 0.01, 0.0),
        _conv("conv4", 384, 3, 0.01, bias, groups=2),
        _conv("conv5", 256, 3, 0.01, bias, groups=2),
        **options,
    )


def _source(filters: tuple[int, ...], towers: int) -> tuple[LayerSpec, ...]:
    """The convolutional part of the 2012 program's networks, of one tower or two.

    Args:
        filters: Of conv1 to conv5.
        towers: Into how many conv2, conv4, conv5 and the normalisations are cut.
    """
    norm = {"k": 2.0, "alpha_over_size": True, "groups": towers}
    one, two, three, four, five = filters
    return (
        _pad("pad1", ((0, 3), (0, 3))),
        _conv("conv1", one, 11, 0.01, 0.0, strides=4, padding="valid"),
        _lrn("norm1", **norm),
        _pool("pool1", "ceil"),
        _relu("relu1"),
        _conv("conv2", two, 5, 0.01, 1.0, groups=towers),
        _relu("relu2"),
        _lrn("norm2", **norm),
        _spatial_norm("spatial_norm2"),
        _pool("pool2", "ceil"),
        _conv("conv3", three, 3, 0.03, 0.0),
        _relu("relu3"),
        _conv("conv4", four, 3, 0.03, 1.0, groups=towers),
        _relu("relu4"),
        _conv("conv5", five, 3, 0.03, 1.0, groups=towers),
        _pool("pool5", "ceil"),
        _relu("relu5"),
    )


# The paper (section 3 and figure 2). It calls the input 224 pixels wide; its own sizes
# (55, 27, 13) need 227 without padding. Weights are N(0, 0.01^2) in every layer, biases
# 1 in conv2, conv4, conv5 and the hidden dense layers, and 0 elsewhere (section 5).
_ALEXNET_2012 = Architecture(
    name="alexnet_2012",
    summary="the network of the 2012 paper, as written",
    input_size=227,
    features=_two_towers(1.0, norm=functools.partial(_lrn, k=2.0)),
    top=_top(4096, 0.01, 1.0),
)

# The run that gave 40.7 / 18.2 % in the paper's table 2: layers-145.cfg and
# layer-params-145.cfg of the published source. conv1 and conv5 carry no ReLU, their
# pooling layers do, so LRN sees conv1's linear output. Its convolutions round up and
# read zeros outside the image: 1 + ceil((224 - 11) / 4) = 55 pixels, of which the last
# need 3 rows and columns more than there are. The towers never meet in a norm.
_ALEXNET_2012_SOURCE = Architecture(
    name="alexnet_2012_source",
    summary="the network behind the paper's results, as its program ran it",
    input_size=224,
    features=_source((96, 256, 384, 384, 256), towers=2),
    top=_top(4096, 0.01, 1.0, dropout="classic_dropout"),
)

# layers-145-half.cfg: one tower of the source, of which the paper's section 3.5 says
# that conv5 and the dense layers keep their width, lest the net be half as large.
_ALEXNET_2012_HALF = Architecture(
    name="alexnet_2012_half",
    summary="one tower of the source, for the paper's comparison with two",
    input_size=224,
    features=_source((48, 128, 192, 192, 256), towers=1),
    top=_top(4096, 0.01, 1.0, dropout="classic_dropout"),
)

_CAFFE_NORM = functools.partial(_lrn, k=1.0, alpha_over_size=True)

# models/bvlc_alexnet/train_val.prototxt. Biases of 1 left the loss flat, says its
# readme, hence 0.1. Caffe's pooling rounds up, its convolutions round down.
_BVLC_ALEXNET = Architecture(
    name="bvlc_alexnet",
    summary="Caffe's AlexNet",
    input_size=227,
    features=_two_towers(0.1, norm=_CAFFE_NORM, rounding="ceil"),
    top=_top(4096, 0.005, 0.1),
)

# models/bvlc_reference_caffenet/train_val.prototxt: pooling before normalisation, which
# saves normalising what pooling throws away, and biases of 1 as in the paper.
_CAFFENET = Architecture(
    name="caffenet",
    summary="Caffe's reference model, which pools before it normalises",
    input_size=227,
    features=_two_towers(1.0, norm=_CAFFE_NORM, rounding="ceil", pool_first=True),
    top=_top(4096, 0.005, 1.0),
)


# PyTorch's defaults: weights and biases uniform within 1 / sqrt(fan-in).
def _pytorch(fan_in: int) -> tuple[Initial, Initial]:
    bound = fan_in**-0.5
    weights = ("VarianceScaling", 1 / 3, "fan_in", "uniform")
    return weights, ("RandomUniform", -bound, bound)


# torchvision/models/alexnet.py, after "One weird trick" (arXiv 1404.5997) in the shape
# of cuda-convnet2's layers-imagenet-1gpu.cfg. Its pixels are on a scale of 0-1 and
# divided by a deviation of about 0.226.
_ALEXNET_OWT = Architecture(
    name="alexnet_owt",
    summary="torchvision's AlexNet, after 'One weird trick'",
    input_size=224,
    features=(
        _pad("pad1", 2),
        *_features(
            _conv("conv1", 64, 11, *_pytorch(3 * 121), strides=4, padding="valid"),
            _conv("conv2", 192, 5, *_pytorch(64 * 25)),
            _conv("conv3", 384, 3, *_pytorch(192 * 9)),
            _conv("conv4", 256, 3, *_pytorch(384 * 9)),
            _conv("conv5", 256, 3, *_pytorch(256 * 9)),
        ),
    ),
    top=(
        _spec("resize", "avgpool", "adaptive_average_pooling", output_size=6),
        _flatten(),
        _dropout("drop5"),
        _dense("fc6", 4096, *_pytorch(256 * 36)),
        _relu("relu6"),
        _dropout("drop6"),
        _dense("fc7", 4096, *_pytorch(4096)),
        _relu("relu7"),
        _dense("fc8", None, *_pytorch(4096)),
    ),
    pixel_scale=1 / (255 * 0.226),
)

# research/slim/nets/alexnet.py, alexnet_v2. Nothing is padded around conv1 and the
# pools, which leaves 54-26-12-5 pixels; the dense layers are convolutions, so that an
# image larger than 224 gives one answer per place. slim squeezes the single one of 224,
# or averages with global_pool, before fc8, which is linear: the mean here is both.
_SLIM_HIDDEN = ("TruncatedNormal", 0.0, 0.005)
_ALEXNET_SLIM_V2 = Architecture(
    name="alexnet_slim_v2",
    summary="TF-slim's alexnet_v2, convolutional to the end",
    input_size=224,
    features=_features(
        _conv("conv1", 64, 11, "glorot_uniform", 0.1, strides=4, padding="valid"),
        _conv("conv2", 192, 5, "glorot_uniform", 0.1),
        _conv("conv3", 384, 3, "glorot_uniform", 0.1),
        _conv("conv4", 384, 3, "glorot_uniform", 0.1),
        _conv("conv5", 256, 3, "glorot_uniform", 0.1),
    ),
    top=(
        _conv("fc6", 4096, 5, _SLIM_HIDDEN, 0.1, padding="valid"),
        _relu("relu6"),
        _dropout("drop6"),
        _conv("fc7", 4096, 1, _SLIM_HIDDEN, 0.1),
        _relu("relu7"),
        _dropout("drop7"),
        _conv("fc8", None, 1, _SLIM_HIDDEN, 0.0),
        _spec("flatten", "squeeze", "global_average_pooling2d"),
    ),
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
    classes=10,
    features=_features(
        _conv("conv1", 32, 5, "he_normal", 0.0),
        _conv("conv2", 64, 5, "he_normal", 0.0, groups=2),
        _conv("conv3", 96, 3, "he_normal", 0.0),
        _conv("conv4", 96, 3, "he_normal", 0.0, groups=2),
        _conv("conv5", 64, 3, "he_normal", 0.0, groups=2),
        norm=functools.partial(_lrn, k=2.0),
    ),
    top=_top(256, "he_normal", 0.0),
    pixel_scale=1 / 64,
)


def _block(number: int, filters: int, kernel: int, **options: Any) -> tuple:
    """A convolution without bias, batch normalisation and ReLU."""
    spec = _conv(f"conv{number}", filters, kernel, "he_normal", 0.0, **options)
    options = {**spec.options, "use_bias": False}
    del options["bias_initializer"]
    return (
        dataclasses.replace(spec, options=MappingProxyType(options)),
        _batch_norm(f"norm{number}"),
        _relu(f"relu{number}"),
    )


# AlexNet-BN of the large-batch papers (You et al., arXiv 1708.03888, section 4):
# batch normalisation in place of LRN, here after every convolution; one tower.
_ALEXNET_BN = Architecture(
    name="alexnet_bn",
    summary="batch normalisation in place of local response normalisation",
    input_size=227,
    features=(
        *_block(1, 96, 11, strides=4, padding="valid"),
        _pool("pool1"),
        *_block(2, 256, 5),
        _pool("pool2"),
        *_block(3, 384, 3),
        *_block(4, 384, 3),
        *_block(5, 256, 3),
        _pool("pool5"),
    ),
    top=_top(4096, "he_normal", 0.0),
    pixel_scale=1 / 64,
)

_ALEXNET_SMALL = Architecture(
    name="alexnet_small",
    summary="five convolutions with batch normalisation, for images of 24 to 96 pixels",
    input_size=32,
    classes=10,
    features=(
        *_block(1, 64, 3),
        _pool("pool1"),
        *_block(2, 128, 3),
        _pool("pool2"),
        *_block(3, 256, 3),
        _pool("pool3"),
        *_block(4, 256, 3),
        *_block(5, 256, 3),
    ),
    top=(
        _spec("flatten", "avgpool", "global_average_pooling2d"),
        _dropout("drop7"),
        _dense("fc8", None, 0.01, 0.0),
    ),
    pixel_scale=1 / 64,
)


def _cifar(name: str, error: str, hidden: tuple[LayerSpec, ...], norm: Any, out: float):
    """Returns a network of cuda-convnet for CIFAR-10, of `layers-{name}.cfg`.

    Pooling layers carry the ReLU of conv1, as in the 2012 network. The last windows
    reach over the border of even sizes; an average counts no pixel beyond it
    (`AvgPooler` of `conv_util.cuh`), as under `padding="same"` in TensorFlow.
    """

    def average(name: str) -> LayerSpec:
        options = {"pool_size": 3, "strides": 2, "padding": "same"}
        return _spec("pool", name, "average_pooling2d", **options)

    return Architecture(
        name=f"cifar_{name}",
        summary=f"the 2012 program's network for CIFAR-10, {error} test error",
        input_size=32,
        classes=10,
        features=(
            _conv("conv1", 32, 5, 0.0001, 0.0),
            _pool("pool1", "ceil"),
            _relu("relu1"),
            norm("norm1"),
            _conv("conv2", 32, 5, 0.01, 0.0),
            _relu("relu2"),
            average("pool2"),
            norm("norm2"),
            _conv("conv3", 64, 5, 0.01, 0.0),
            _relu("relu3"),
            average("pool3"),
        ),
        top=(_flatten(), *hidden, _dense("fc10", None, out, 0.0)),
    )


def _cifar_norm(name: str) -> LayerSpec:
    options = {"size": 3, "alpha": 5e-5, "beta": 0.75, "k": 1.0}
    return _spec("norm", name, "spatial_response_norm", **options)


_CIFAR_HIDDEN = (_dense("fc64", 64, 0.1, 0.0), _relu("relu64"))
_CIFAR = (
    _cifar("80sec", "26 %", _CIFAR_HIDDEN, _no_norm, 0.1),
    _cifar("19pct", "19 %", (), _no_norm, 0.01),
    _cifar("18pct", "18 %", (), _cifar_norm, 0.01),
)

_ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        _ALEXNET_2012,
        _ALEXNET_2012_SOURCE,
        _ALEXNET_2012_HALF,
        _BVLC_ALEXNET,
        _CAFFENET,
        _ALEXNET_OWT,
        _ALEXNET_SLIM_V2,
        _ALEXNET_BN,
        _ALEXNET_MINI,
        _ALEXNET_SMALL,
        *_CIFAR,
    )
}


def list_architectures(pattern: str = "*") -> list[str]:
    """Lists the names of the architectures that match a shell pattern."""
    return sorted(fnmatch.filter(_ARCHITECTURES, pattern))


def get_architecture(name: str) -> Architecture:
    """Returns the architecture of a name.

    Raises:
        ValueError: There is none; the message lists those that exist.
    """
    if name not in _ARCHITECTURES:
        raise UserError(unknown(name, "architecture", _ARCHITECTURES))
    return _ARCHITECTURES[name]
