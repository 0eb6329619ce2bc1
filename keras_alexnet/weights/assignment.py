"""Weight assignment: from a `WeightFile` to a model's variables, with shape checks.

Preprocessing, class names and origin are bound to the model with the weights.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from keras_alexnet.files import sha256
from keras_alexnet.images.preprocessing import Preprocessing, get_preprocessing
from keras_alexnet.weights.reading import read_weights
from keras_alexnet.weights.recognition import recognise
from keras_alexnet.weights.weight_file import (
    DENSE,
    LAYER_NAMES,
    WeightFile,
    WeightFileError,
)

if TYPE_CHECKING:
    from keras_alexnet.model import AlexNet

# How a model may differ from the network that a file's weights were trained in: images
# of other colours change what conv1 reads, images of another size what fc6 reads, other
# classes what fc8 returns. The position is that of the kernel's changed dimension.
_MAY_DIFFER = {"conv1": (2, "channels"), "fc6": (0, "inputs"), "fc8": (1, "classes")}


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of a file's weights.

    Attributes:
        loaded: Layers that have the file's weights now.
        initial: Layers that were left at their initial values, and why.
        unused: Layers of the file that the model does not have.
    """

    loaded: tuple[str, ...]
    initial: dict[str, str]
    unused: tuple[str, ...]

    def __str__(self):
        lines = [f"Loaded {', '.join(self.loaded) or 'nothing'}."]
        lines += [
            f"Left {n} at its initial value: {why}." for n, why in self.initial.items()
        ]
        if self.unused:
            lines.append(f"Not in the model: {', '.join(self.unused)}.")
        return " ".join(lines)


def assign_weights(model: AlexNet, weight_file: WeightFile) -> None:
    """Gives a model the weights of a file, all of them or none.

    Args:
        model: A model of `keras_alexnet.build()`.
        weight_file: The weights; their layers are those of the model.

    Raises:
        WeightFileError: A layer is missing, or of another shape. The message names the
            layers, what was found and what was expected; nothing has been assigned.
    """
    ours = _variables(model)
    _check(model, weight_file, ours, LAYER_NAMES)
    for name in weight_file.layers:
        _assign(ours[name], weight_file.layers[name])
    bind_weights(model, weight_file)


def load_weights_into(
    model: AlexNet,
    weights: str | Path | WeightFile,
    *,
    convert: Callable[[WeightFile], WeightFile] | None = None,
) -> LoadReport:
    """Gives a model what fits of a file's weights, and says what does not.

    A model may lack the classifier, and may have other classes, another input size or
    other input channels than the network that the weights come from. The layers which
    that changes - fc8, fc6, conv1 - keep their initial values, and a warning says so;
    likewise where the file lacks the classifier or its last layer. Anything else that
    differs is an error.

    Args:
        model: A model of `keras_alexnet.build()`.
        weights: A file that `read_weights()` reads, or what it returned.
        convert: A function of `keras_alexnet.weights.conversions`, say, to apply.

    Returns:
        What was loaded and what was not.

    Raises:
        WeightFileError: The file cannot be read, or does not fit. Nothing has been
            assigned.
    """
    weight_file = weights if isinstance(weights, WeightFile) else read_weights(weights)
    if convert is not None:
        weight_file = convert(weight_file)
    others = [
        layer.name
        for layer in model.layers
        if layer.weights and layer.name not in LAYER_NAMES
    ]
    if others and weight_file.format == "keras" and convert is None:
        _load_own(model, weight_file.path)
        bind_weights(model, weight_file)
        return LoadReport(tuple(layer.name for layer in model.layers), {}, ())
    ours, layers = _variables(model), weight_file.layers
    initial = _left_initial(ours, layers)
    unused = ()
    if not any(name in ours for name in DENSE):
        unused = tuple(name for name in DENSE if name in layers)
    compared = [name for name in LAYER_NAMES if name not in (*initial, *unused)]
    _check(model, weight_file, ours, compared)
    loaded = tuple(name for name in layers if name in ours and name not in initial)
    for name in loaded:
        _assign(ours[name], layers[name])
    if "conv1" in loaded:
        bind_weights(model, weight_file)
    # Layers that take part in the network but not in any published file.
    initial |= dict.fromkeys(others, "the file does not have it")
    report = LoadReport(loaded, initial, unused)
    if initial:
        warnings.warn(f"{weight_file.path}: {report}", stacklevel=2)
    return report


def _left_initial(ours: dict[str, list], layers: Mapping) -> dict[str, str]:
    """Returns the model's layers that a file may leave as they are, and why."""
    initial = {}
    for name, (dimension, what) in _MAY_DIFFER.items():
        if name not in layers or name not in ours:
            continue
        found, expected = layers[name].kernel.shape, _shape(name, ours[name][0])
        alike = _without(found, dimension) == _without(expected, dimension)
        if alike and found != expected:
            initial[name] = (
                f"{found[dimension]} {what} in the "
                f"file, {expected[dimension]} in the model"
            )
    expected = [name for name in DENSE if name in ours]
    missing = [name for name in expected if name not in layers]
    if missing in (["fc8"], expected):
        initial |= dict.fromkeys(missing, "the file does not have it")
    return initial


# === What comes with the weights ===

IMAGENET_CLASSES = 1000


def bind_weights(model: AlexNet, weight_file: WeightFile) -> None:
    """Tells a model what its new weights expect of images, and what its outputs mean.

    A `.keras` file says so itself, as far as the model that was saved knew it. Where
    nothing says it, the preprocessing stays unbound, and a warning says so.

    Args:
        model: A model that has been given the weights, conv1 at least.
        weight_file: Where they come from.
    """
    metadata, published = weight_file.metadata, weight_file.format != "keras"
    top = weight_file.layers.get("fc8")
    names, order = None, None
    if top is not None and model.output_shape[-1] == top.bias.size:
        names, order = metadata.get("class_names") or None, metadata.get("class_order")
        if published and top.bias.size == IMAGENET_CLASSES:
            order = "wordnet"
    path, origin, digest = weight_file.path, weight_file.name, None
    if path is not None:
        origin, digest = path.name, sha256(path)
    preprocessing = _preprocessing(model, weight_file)
    model.bind(
        preprocessing,
        class_names=names,
        class_order=order,
        weights=origin,
        digest=digest,
    )
    if preprocessing is None and published:
        warnings.warn(
            f"{path or origin}: nothing in the file says what the weights expect of "
            "images. Say it with model.bind(preprocessing), of "
            "keras_alexnet.images.preprocessing.get_preprocessing('torch'), say.",
            stacklevel=3,
        )


def _preprocessing(model: AlexNet, weight_file: WeightFile) -> Preprocessing | None:
    """Returns what a file's weights expect, at the size of a model's images."""
    if saved := weight_file.metadata.get("preprocessing"):
        preprocessing = Preprocessing.from_config(saved)
    elif weight_file.preprocessing is not None:
        mean = weight_file.mean_image
        changes = {} if mean is None else {"mean_image": mean}
        preprocessing = get_preprocessing(weight_file.preprocessing, **changes)
    else:
        return None
    *sizes, channels = model.input_shape[1:]
    if keras.config.image_data_format() == "channels_first":
        channels, *sizes = model.input_shape[1:]
    if channels != preprocessing.channels or sizes[0] != sizes[1]:
        return None
    return preprocessing.with_image_size(sizes[0]) if sizes[0] else preprocessing


# === Layers ===


def _load_own(model: AlexNet, path: str | Path) -> None:
    """Loads a model with layers of a user's own, which only Keras can tell apart."""
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise WeightFileError(
            f"{path} is not of a model with the same layers as {model.name}: {error}"
        ) from None


def _variables(model: AlexNet) -> dict[str, list]:
    """Returns kernel and bias, or the kernel alone, of each layer that we name."""
    return {
        layer.name: list(layer.weights)
        for layer in model.layers
        if layer.name in LAYER_NAMES
    }


def _mismatch(name: str, weight_file: WeightFile, ours: dict) -> str | None:
    """Says how a layer of the file differs from the model's, if it does."""
    if name not in ours and name not in weight_file.layers:
        return None
    expected = found = "no such layer"
    if name in ours:
        expected = ", ".join(str(_shape(name, variable)) for variable in ours[name])
    if name in weight_file.layers:
        found = ", ".join(str(array.shape) for array in weight_file.layers[name])
    if found == expected:
        return None
    return f"{name}: found {found}; expected {expected}"


def _check(
    model: AlexNet, weight_file: WeightFile, ours: dict, names: Iterable[str]
) -> None:
    """Raises if layers of the file are not as the model's."""
    wrong = [text for name in names if (text := _mismatch(name, weight_file, ours))]
    if not wrong:
        return
    where = "The weights do" if weight_file.path is None else f"{weight_file.path} does"
    text = f"{where} not fit the model {model.name}. {'. '.join(wrong)}."
    theirs = recognise(weight_file)
    if theirs and model.metadata.architecture not in theirs:
        text += f" They are of {theirs[0]}: try that architecture."
    raise WeightFileError(text)


def _assign(variables: list, weights: tuple) -> None:
    for variable, array in zip(variables, weights, strict=True):
        variable.assign(array.reshape(variable.shape))


def _shape(name: str, variable) -> tuple[int, ...]:
    """Returns a variable's shape; of a dense layer written as a convolution, flat."""
    shape = tuple(int(size) for size in variable.shape)
    if name in DENSE and len(shape) == 4:
        return (math.prod(shape[:3]), shape[3])
    return shape


def _without(shape: tuple[int, ...], dimension: int) -> tuple[int, ...]:
    return shape[:dimension] + shape[dimension + 1 :]
