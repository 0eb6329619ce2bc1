"""Keras export: a `.keras` file, for programs that have this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from keras_alexnet.export.artefact import Format, in_precision
from keras_alexnet.export.comparison import Example, Run
from keras_alexnet.model import AlexNet
from keras_alexnet.registry import list_layers

FILE = "model.keras"


def open_keras(folder: Path) -> Run:
    """Returns a function that runs `model.keras`."""
    list_layers()  # Keras finds classes that have been imported.
    model = keras.models.load_model(folder / FILE, compile=False)
    normalize = model.metadata.preprocessing.normalize
    return lambda pixels: model.predict_on_batch(normalize(pixels))


def _write(
    model: AlexNet, folder: Path, precision: str | None, calibration: Sequence[Example]
) -> None:
    in_precision(model, precision, rounded=True).save(folder / FILE)


FORMAT = Format(
    f"`{FILE}` is a Keras model that knows its preprocessing and class names: "
    '`model = keras_alexnet.load_model("model.keras")`, then '
    "`model.predict(model.preprocess(images))`.",
    (None, "float32", "float16", "bfloat16"),
    False,
    _write,
    open_keras,
)
