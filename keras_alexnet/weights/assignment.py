"""From a `WeightFile` into a model."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from keras_alexnet.files import sha256
from keras_alexnet.weights.binding import bind_preprocessing
from keras_alexnet.weights.reading import read_weights
from keras_alexnet.weights.recognition import recognise
from keras_alexnet.weights.weight_file import (
    DENSE,
    LAYER_NAMES,
    WeightFile,
    WeightFileError,
)

if TYPE_CHECKING:
    import keras

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


def assign_weights(model: keras.Model, weight_file: WeightFile) -> None:
    """Gives a model the weights of a file, all of them or none.

    Args:
        model: A model of `keras_alexnet.build()`.
        weight_file: The weights; their layers are those of the model.

    Raises:
        WeightFileError: A layer is missing, or of another shape. The message names the
            layers, what was found and what was expected; nothing has been assigned.
    """
    ours = _variables(model)
    wrong = [_mismatch(name, weight_file, ours) for name in LAYER_NAMES]
    _raise(model, [text for text in wrong if text], weight_file)
    for name in weight_file.layers:
        _assign(ours[name], weight_file.layers[name])


def load_weights_into(
    model: keras.Model,
    path: str | Path,
    *,
    convert: Callable[[WeightFile], WeightFile] | None = None,
) -> LoadReport:
    """Gives a model what fits of a file's weights, and says what does not.

    A model may lack the classifier, and may have other classes, another input size or
    other input channels than the network that the weights come from. The layers which
    that changes - fc8, fc6, conv1 - keep their initial values, and a warning says so.
    Anything else that differs is an error.

    Args:
        model: A model of `keras_alexnet.build()`.
        path: A file that `read_weights()` reads.
        convert: A function of `keras_alexnet.weights.conversions`, say, to apply.

    Returns:
        What was loaded and what was not.

    Raises:
        WeightFileError: The file cannot be read, or does not fit. Nothing has been
            assigned.
    """
    weight_file = read_weights(path)
    if convert is not None:
        weight_file = convert(weight_file)
    others = [
        layer.name
        for layer in model.layers
        if layer.weights and layer.name not in LAYER_NAMES
    ]
    if others and weight_file.format == "keras" and convert is None:
        _load_own(model, path)
        _bind(model, weight_file, path)
        return LoadReport(tuple(layer.name for layer in model.layers), {}, ())
    ours, layers = _variables(model), dict(weight_file.layers)
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
    # Either may lack the classifier as a whole.
    unused = ()
    if not any(name in ours for name in DENSE):
        unused = tuple(name for name in DENSE if name in layers)
    if not any(name in layers for name in DENSE):
        missing = [name for name in DENSE if name in ours]
        initial |= dict.fromkeys(missing, "the file does not have it")
    wrong = [
        _mismatch(name, weight_file, ours)
        for name in LAYER_NAMES
        if name not in initial and name not in unused
    ]
    _raise(model, [f"{path}: {text}" for text in wrong if text], weight_file)
    loaded = tuple(name for name in layers if name in ours and name not in initial)
    if "conv1" in loaded:
        _bind(model, weight_file, path)
    del weight_file
    for name in loaded:
        # Freed one by one, so that file and model are never in memory together.
        _assign(ours[name], layers.pop(name))
    # Layers that take part in the network but not in any published file.
    initial |= dict.fromkeys(others, "the file does not have it")
    report = LoadReport(loaded, initial, unused)
    if initial:
        warnings.warn(f"{path}: {report}", stacklevel=2)
    return report


def _bind(model: keras.Model, weight_file: WeightFile, path: str | Path) -> None:
    bind_preprocessing(model, weight_file)
    model.bind(weights=Path(path).name, digest=sha256(path))


def _load_own(model: keras.Model, path: str | Path) -> None:
    """Loads a model with layers of a user's own, which only Keras can tell apart."""
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise WeightFileError(
            f"{path} is not of a model with the same layers as {model.name}: {error}"
        ) from None


def _variables(model: keras.Model) -> dict[str, list]:
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


def _raise(model: keras.Model, wrong: list[str], weight_file: WeightFile) -> None:
    if wrong:
        theirs = recognise(weight_file)
        text = f"The weights do not fit the model {model.name}. {'. '.join(wrong)}."
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
