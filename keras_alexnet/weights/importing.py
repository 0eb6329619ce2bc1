"""From a file of weights to a model of the architecture that it belongs to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from keras_alexnet.errors import UserError
from keras_alexnet.weights.assignment import assign_weights
from keras_alexnet.weights.binding import bind_preprocessing
from keras_alexnet.weights.conversions import convert_lrn, to_inverted_dropout
from keras_alexnet.weights.reading import read_weights
from keras_alexnet.weights.recognition import describe, recognise
from keras_alexnet.weights.weight_file import WeightFile, WeightFileError

if TYPE_CHECKING:
    from keras_alexnet.model import AlexNet

Conversion = Literal["inverted-dropout", "lrn-k1", "lrn-k2"]

# What the command line calls the conversions of `conversions`.
CONVERSIONS: Mapping[str, Callable[[WeightFile], WeightFile]] = MappingProxyType(
    {
        "inverted-dropout": to_inverted_dropout,
        "lrn-k1": functools.partial(convert_lrn, from_k=2.0, to_k=1.0),
        "lrn-k2": functools.partial(convert_lrn, from_k=1.0, to_k=2.0),
    }
)


def import_model(
    path: str | Path,
    *,
    architecture: str | None = None,
    mean: str | Path | None = None,
    convert: Sequence[Conversion] = (),
) -> tuple[AlexNet, WeightFile, tuple[str, ...]]:
    """Builds the model that a file's weights belong to, with these weights.

    Args:
        path: A file that `read_weights()` reads.
        architecture: The architecture's name; by default it is recognised.
        mean: Caffe's mean image that goes with the file.
        convert: Names of `CONVERSIONS`, applied in this order.

    Returns:
        The model, with as many classes as the file has; the file's content; and the
        architectures that it fits, the one that was taken first.

    Raises:
        WeightFileError: The file cannot be read, or fits no architecture.
        ValueError: There is no such architecture.
    """
    from keras_alexnet.architectures import get_architecture
    from keras_alexnet.builder import build

    if architecture is not None:
        get_architecture(architecture)
    weight_file = read_weights(path, mean=mean)
    for name in convert:
        weight_file = CONVERSIONS[name](weight_file)
    candidates = recognise(weight_file)
    if architecture is not None:
        candidates = (architecture, *(c for c in candidates if c != architecture))
    if not candidates:
        raise WeightFileError(
            f"{path}: no architecture has these layers ({describe(weight_file)}). Name "
            "the one that they are meant for, to see what differs."
        )
    top = weight_file.layers.get("fc8")
    if top is None:
        model = build(candidates[0], include_top=False)
    else:
        model = build(candidates[0], classes=top.bias.size)
    assign_weights(model, weight_file)
    bind_preprocessing(model, weight_file)
    return model, weight_file, candidates


def import_weights(
    path: str | Path,
    out: str | Path,
    *,
    architecture: str | None = None,
    mean: str | Path | None = None,
    convert: Sequence[Conversion] = (),
) -> str:
    """Saves a file of weights as a model: the command `import-weights`.

    Args:
        path: A file that `read_weights()` reads.
        out: The `.keras` file to write.
        architecture: See `import_model()`.
        mean: See `import_model()`.
        convert: See `import_model()`.

    Returns:
        What was done, in a few sentences.

    Raises:
        ValueError: As `import_model()`; or `out` is no place for a `.keras` file.
    """
    out = Path(out)
    if out.suffix != ".keras":
        raise UserError(f"The model must be written to a .keras file. Received: {out}")
    if not out.parent.is_dir():
        raise UserError(f"There is no directory {out.parent} to write to.")
    model, weight_file, candidates = import_model(
        path, architecture=architecture, mean=mean, convert=convert
    )
    model.save(out)
    text = (
        f"{path} holds {weight_file.count_params():,} weights in the format "
        f"{weight_file.format}. Saved as {candidates[0]} to {out}."
    )
    if len(candidates) > 1 and architecture is None:
        text += (
            f" They fit {', '.join(candidates[1:])} just as well: choose with "
            "--architecture."
        )
    return text
