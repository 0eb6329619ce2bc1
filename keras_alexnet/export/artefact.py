"""What all exports share: their directory, their precision, files beside them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from keras_alexnet.errors import UserError
from keras_alexnet.export.comparison import Example, Run
from keras_alexnet.model import POLICIES, AlexNet

# What an export of any format may consist of.
PARTS = {
    *("assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables"),
    *("model.keras", "model.onnx", "model.tflite", "model.xml", "model.bin"),
    *("labels.txt", "preprocessing.json", "model_card.md"),
}
# How many of the likeliest classes an export names.
TOP = 5


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that a network can be exported to.

    Attributes:
        about: What a program gives and gets, in Markdown.
        precisions: What it can keep and compute numbers in; None is the network's own.
            The first is the default.
        any_size: Whether it takes images of any size, or else of the network's.
        write: Writes a model that knows its preprocessing to a directory that exists,
            in one of the precisions. `"int8"` takes images to calibrate by.
        open: From such a directory to a function that runs the export.
    """

    about: str
    precisions: tuple[str | None, ...]
    any_size: bool
    write: Callable[[AlexNet, Path, str | None, Sequence[Example]], None]
    open: Callable[[Path], Run]


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raises unless an export may be written to a directory.

    Args:
        path: The directory, which need not exist.
        overwrite: Whether an earlier export may be replaced.

    Raises:
        UserError: There is an earlier export, or something else.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: choose another --out.")
    found = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if foreign := sorted(found - PARTS):
        raise UserError(
            f"{path} holds files that are not an export's, such as {foreign[0]}: "
            "choose another --out."
        )
    if found and not overwrite:
        raise UserError(
            f"{path} holds an export already: replace it with --overwrite, or choose "
            "another --out."
        )


def in_precision(
    model: keras.Model, precision: str | None, *, rounded: bool = False
) -> keras.Model:
    """Returns a model that computes in another precision, or itself.

    Args:
        model: One of layers that were called one on another.
        precision: A key of `POLICIES`; the last layer computes in float32 in any case.
            None is the model's own.
        rounded: Whether convolutions and products keep their weights in the dtype that
            they compute in, so that they need not be cast in every call. Other layers,
            such as normalisations with weights, may use theirs uncast.
    """

    def dtype(layer: keras.Layer) -> str:
        policy = layer.dtype_policy
        if precision is not None:
            last = layer is model.layers[-1]
            policy = keras.DTypePolicy("float32" if last else POLICIES[precision])
        weighted = isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
        return policy.compute_dtype if rounded and weighted else policy.name

    def converted(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": dtype(layer)})

    if all(dtype(layer) == layer.dtype_policy.name for layer in model.layers):
        return model
    copy = keras.models.clone_model(model, clone_function=converted)
    copy.set_weights(model.get_weights())
    if isinstance(model, AlexNet):
        copy.metadata = model.metadata
    return copy


def write_companions(folder: Path, model: AlexNet, about: str) -> None:
    """Writes `labels.txt`, `preprocessing.json` and `model_card.md` beside an export.

    Args:
        folder: The export's directory.
        model: The network, which knows its preprocessing and class names.
        about: Format, input, and what was measured, in Markdown.
    """
    known, preprocessing = model.metadata, model.metadata.preprocessing
    names = "".join(f"{name}\n" for name in known.class_names)
    (folder / "labels.txt").write_text(names, encoding="utf-8")
    config = json.dumps(preprocessing.to_config(), indent=2)
    (folder / "preprocessing.json").write_text(config, encoding="utf-8")
    lines = [
        f"# {known.architecture or model.name}, {len(known.class_names)} classes",
        f"Weights: {known.weights or 'trained or given by the user'}"
        + (f" ({known.digest})." if known.digest else "."),
        about,
        "`labels.txt` has the classes in the order of the probabilities, one a line. "
        "Images become the network's input as `preprocessing.json` says: resized to "
        f"{preprocessing.resize_size} pixels (`{preprocessing.resize_rule}`), of which "
        f"the central {preprocessing.image_size} x {preprocessing.image_size} are "
        "taken, then `(pixel * pixel_max / 255 - mean) / std * scale` for each channel "
        f"of {preprocessing.channel_order.upper()}.",
    ]
    (folder / "model_card.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def size_of(folder: Path) -> int:
    """Returns how many bytes the files of an export take."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
