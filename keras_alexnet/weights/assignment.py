"""Weight assignment: from a `WeightFile` to a model's variables, with shape checks.

Preprocessing, class names and origin are bound to the model with the weights.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_alexnet.files import digest_of
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


def load_weights_into(
    model: AlexNet,
    weights: str | Path | WeightFile,
    *,
    strict: bool = False,
) -> LoadReport:
    """Gives a model what fits of a file's weights, and says what does not.

    A model may lack the classifier, and may have other classes, another input size or
    other input channels than the network that the weights come from. The layers which
    that changes - fc8, fc6, conv1 - keep their initial values, and a warning says so;
    likewise where the file lacks the classifier or its last layer, and layers that no
    published network has. Anything else that differs is an error.

    Args:
        model: A model of `keras_alexnet.build()`.
        weights: A file that `read_weights()` reads, or what it returned.
        strict: Whether all layers must be in both and alike, or else it is an error.

    Returns:
        What was loaded and what was not.

    Raises:
        WeightFileError: The file cannot be read, or does not fit. The message names the
            layers, what was found and what was expected; nothing has been assigned.
    """
    weight_file = weights if isinstance(weights, WeightFile) else read_weights(weights)
    differences, initial, unused = _compare(model, weight_file)
    known = weight_file.arrays()
    if any(known.get(name) == () for name in initial):
        _load_own(model, weight_file.path)
        bind_weights(model, weight_file)
        return LoadReport(tuple(layer.name for layer in model.layers), {}, ())
    allowed = () if strict else (*initial, *unused)
    wrong = [text for name, text in differences.items() if name not in allowed]
    _refuse(model, weight_file, wrong)
    loaded = tuple(
        layer.name
        for layer in model.layers
        if known.get(layer.name) and layer.name not in initial
    )
    _assign(model, weight_file, loaded)
    if "conv1" in loaded:
        bind_weights(model, weight_file)
    report = LoadReport(loaded, initial, unused)
    if initial or not set(unused) <= set(DENSE):
        warnings.warn(f"{weight_file.path}: {report}", stacklevel=2)
    return report


def _compare(
    model: AlexNet, weight_file: WeightFile
) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    """Compares a model's layers with a file's.

    Returns:
        How each layer differs that does; why some of these may keep their initial
        value; and which of the file's layers the model may lack.
    """
    ours = {layer.name: layer.weights for layer in model.layers if layer.weights}
    theirs = {n: a for n, a in weight_file.arrays().items() if a or n in ours}
    dense = [name for name in DENSE if name in ours]
    missing = [name for name in dense if name not in theirs]
    differences, initial, unused = {}, {}, []
    for name in {**dict.fromkeys(LAYER_NAMES), **ours, **theirs}:
        found, expected = (
            name in arrays and [_shape(name, array) for array in arrays[name]]
            for arrays in (theirs, ours)
        )
        if found == expected:
            continue
        differences[name] = f"{name}: found {_text(found)}; expected {_text(expected)}"
        if not expected and (name not in LAYER_NAMES or (name in DENSE and not dense)):
            unused.append(name)
        elif not found and (name not in LAYER_NAMES or missing in (["fc8"], dense)):
            initial[name] = "the file does not have it"
        elif why := _other_size(name, found, expected):
            initial[name] = why
    return differences, initial, tuple(unused)


def _other_size(name: str, found: list[tuple], expected: list[tuple]) -> str | None:
    """Says how a layer differs because of other images or classes, if it does."""
    if name not in LAYER_NAMES:
        return f"{_text(found)} in the file, {_text(expected)} in the model"
    if name not in _MAY_DIFFER or not found or not expected:
        return None
    dimension, what = _MAY_DIFFER[name]
    (found, *_), (expected, *_) = found, expected
    alike = [shape[:dimension] + shape[dimension + 1 :] for shape in (found, expected)]
    if alike[0] != alike[1] or found == expected:
        return None
    return f"{found[dimension]} {what} in the file, {expected[dimension]} in the model"


def _refuse(model: AlexNet, weight_file: WeightFile, wrong: Iterable[str]) -> None:
    """Raises if layers of the file are not as the model's."""
    if not wrong:
        return
    where = "The weights do" if weight_file.path is None else f"{weight_file.path} does"
    text = f"{where} not fit the model {model.name}. {'. '.join(wrong)}."
    theirs = recognise(weight_file)
    if theirs and model.metadata.architecture not in theirs:
        text += f" They are of {theirs[0]}: try that architecture."
    raise WeightFileError(text)


def _assign(model: AlexNet, weight_file: WeightFile, names: Iterable[str]) -> None:
    arrays = weight_file.arrays()
    for name in names:
        variables = model.get_layer(name).weights
        for variable, array in zip(variables, arrays[name], strict=True):
            variable.assign(array.reshape(variable.shape))


def _load_own(model: AlexNet, path: str | Path) -> None:
    """Loads a model with layers inside layers, which only Keras can tell apart."""
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise WeightFileError(
            f"{path} is not of a model with the same layers as {model.name}: {error}"
        ) from None


def _shape(name: str, array: Any) -> tuple[int, ...]:
    """Returns an array's shape; of a dense layer written as a convolution, flat."""
    shape = tuple(int(size) for size in array.shape)
    if name in DENSE and len(shape) == 4:
        return (math.prod(shape[:3]), shape[3])
    return shape


def _text(shapes: list[tuple] | bool) -> str:
    return ", ".join(map(str, shapes)) if shapes else "no such layer"


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
    outputs = model.output_shape[-1]
    last = [layer.name for layer in model.layers if layer.weights][-1]
    arrays = weight_file.arrays().get(last)
    names, order = None, None
    if last.startswith("fc") and arrays and arrays[0].shape[-1] == outputs:
        names, order = metadata.get("class_names") or None, metadata.get("class_order")
        if published and outputs == IMAGENET_CLASSES:
            order = "wordnet"
    path, origin, digest = weight_file.path, weight_file.name, None
    if path is not None:
        origin, digest = path.name, digest_of(path)
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
    height, width, channels = model.image_shape
    if channels != preprocessing.channels or height != width:
        return None
    return preprocessing.with_image_size(height) if height else preprocessing
