"""Evaluation: every image once, top-1 and top-5 error."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model makes of a set of labelled images.

    Attributes:
        probabilities: `(images, classes)`.
        labels: The true classes, `(images,)`.
    """

    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def of_label(self) -> np.ndarray:
        """The probability of each image's true class."""
        return self.probabilities[np.arange(len(self.labels)), self.labels]

    @property
    def loss(self) -> float:
        """Mean negative log probability of the true class, in nats."""
        smallest = np.finfo(np.float32).tiny
        return float(-np.log(np.maximum(self.of_label, smallest)).mean())

    def top_k_error(self, k: int) -> float:
        """Returns the fraction of images whose true class is not among the k likeliest.

        Classes of equal probability share the places that are left for them, as in the
        2012 program: a constant output is right in k of all classes, not always.
        """
        of_label = self.of_label[:, None]
        equal = (self.probabilities == of_label).sum(axis=1)
        # Not `>`: every class is likelier than one whose probability is NaN.
        likelier = (~(self.probabilities <= of_label)).sum(axis=1)
        credit = np.clip((k - likelier) / np.maximum(equal, 1), 0.0, 1.0)
        return float((1.0 - credit).mean())

    @property
    def predictions(self) -> np.ndarray:
        """The likeliest class of each image."""
        return self.probabilities.argmax(axis=1)

    def confusion(self) -> np.ndarray:
        """Counts images by true class (row) and predicted class (column)."""
        classes = self.probabilities.shape[1]
        flat = self.labels.astype(np.int64) * classes + self.predictions
        return np.bincount(flat, minlength=classes**2).reshape(classes, classes)

    def metrics(self) -> dict[str, float]:
        """Returns loss, top-1 and top-5 error."""
        return {
            "loss": self.loss,
            "top1_error": self.top_k_error(1),
            "top5_error": self.top_k_error(5),
        }


def evaluate(
    model: keras.Model, batches: tf.data.Dataset, labels: np.ndarray
) -> Evaluation:
    """Runs a model over labelled images.

    Args:
        model: Returns probabilities.
        batches: The images, normalised, in the order of the labels; more than there
            are labels are not counted.
        labels: The true classes.

    Returns:
        The evaluation, on which all figures are based.
    """
    labels = np.asarray(labels)
    return Evaluation(model.predict(batches, verbose=0)[: len(labels)], labels)
