"""ImageNet's 1,000 class names, in the two orders that networks use.

Caffe, torchvision, ONNX's zoo and Keras number the classes by ascending WordNet id. The
challenge's development kit, and the 2012 program with it, numbers them otherwise
(`ILSVRC2012_ID` minus one): kit fox, English setter, Siberian husky ...
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_alexnet.errors import UserError, unknown

# Where the lists and their licences come from is said at the top of the file.
CLASSES_FILE = "imagenet_classes.tsv"
ORDERS = ("ilsvrc2012", "wordnet")
# Their first synonym is another class's too.
_TWINS = {"n02012849": "crane_bird", "n03710721": "maillot_tank_suit"}


@functools.cache
def imagenet_classes(order: str = "wordnet") -> tuple[tuple[str, str], ...]:
    """Returns the classes of ImageNet's challenge of 2012.

    Args:
        order: `"wordnet"`: by ascending WordNet id. `"ilsvrc2012"`: by the numbers of
            the challenge's development kit.

    Returns:
        1,000 pairs of WordNet id and name, such as `("n01440764", "tench")`. Names
        are those of `keras.applications`, but for the two that it gives twice: the bird
        is "crane_bird", the second maillot "maillot_tank_suit", as in torchvision.

    Raises:
        ValueError: There is no such order.
    """
    if order not in ORDERS:
        raise UserError(unknown(str(order), "order of classes", ORDERS))
    file = importlib.resources.files("keras_alexnet.weights") / CLASSES_FILE
    rows = [
        line.split("\t")
        for line in file.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    # The file is in WordNet's order.
    if order == "ilsvrc2012":
        rows.sort(key=lambda row: int(row[1]))
    return tuple(
        (wnid, _TWINS.get(wnid) or words.split(", ")[0].replace(" ", "_"))
        for wnid, _, words in rows
    )


def decode_predictions(
    predictions: Any, top: int = 5, order: str = "wordnet"
) -> list[list[tuple[str, str, float]]]:
    """Names the likeliest of ImageNet's classes for each image.

    Args:
        predictions: Probabilities or logits, `(batch, 1000)`.
        top: How many classes for each image.
        order: How the network numbers the classes: `"wordnet"`, as weights for Caffe,
            torchvision and ONNX do, or `"ilsvrc2012"`, as the 2012 program does.

    Returns:
        For each image a list of `(WordNet id, name, score)`, the likeliest first, as
        from `keras.applications`. Between equal scores the lower number comes first.

    Raises:
        ValueError: Another shape or order, or `top` is not in 1 to 1,000.

    Example:
    >>> keras_alexnet.decode_predictions(model.predict(images), top=1)
    [[('n02123159', 'tiger_cat', 0.62)]]
    """
    return name_classes(predictions, imagenet_classes(order), top)


def name_classes(
    predictions: Any, classes: Sequence[tuple[str, str]], top: int
) -> list[list[tuple[str, str, float]]]:
    """Names the likeliest of `classes`, of which each has an id and a name."""
    predictions = np.asarray(predictions)
    if predictions.ndim != 2 or predictions.shape[1] != len(classes):
        raise UserError(
            f"Predictions must be of shape (batch, {len(classes)}), one number for "
            f"each class. Received: shape {predictions.shape}"
        )
    if not 1 <= top <= len(classes):
        raise UserError(f"top must be from 1 to {len(classes)}. Received: top={top}")
    best = np.argsort(-predictions, axis=1, kind="stable")[:, :top]
    return [
        [(*classes[index], float(row[index])) for index in indices]
        for row, indices in zip(predictions, best, strict=True)
    ]
