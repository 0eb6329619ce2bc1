"""Evaluation: every image once, by 1 or 10 views, top-1 and top-5 error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.data.dataset import Dataset, Split
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.errors import UserError, unknown
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.model import AlexNet, Metadata
from keras_alexnet.weights.labels import imagenet_classes


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model makes of a set of labelled images.

    Attributes:
        probabilities: `(images, classes)`.
        labels: The true classes, `(images,)`.
        positions: Which of its split's examples each image is, `(images,)`; None where
            all of one split are there, in order.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    positions: np.ndarray | None = None

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

    def by_class(self) -> dict[str, np.ndarray]:
        """Returns images, recall, precision and F1 score of each class.

        With the confusion matrix C, of true class by predicted class:
        `recall[i] = C[i, i] / sum(C[i])`, `precision[i] = C[i, i] / sum(C[:, i])` and
        `f1[i] = 2 C[i, i] / (sum(C[i]) + sum(C[:, i]))`.

        Returns:
            `images`, int64, and `recall`, `precision` and `f1`, float64, each
            `(classes,)`. Where there is nothing to divide by, that is NaN: recall of a
            class without images, precision of one that is never predicted.
        """
        counts = self.confusion()
        right, true, found = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
        with np.errstate(invalid="ignore"):
            return {
                "images": true,
                "recall": right / true,
                "precision": right / found,
                "f1": 2 * right / (true + found),
            }

    def balanced_metrics(self) -> dict[str, float]:
        """Returns metrics in which each class counts equally, however many images.

        Returns:
            `balanced_accuracy`, the mean recall of the classes that have images, and
            `macro_f1`, the mean F1 score of those that have images or are predicted.
        """
        scores = self.by_class()
        return {
            "balanced_accuracy": float(np.nanmean(scores["recall"])),
            "macro_f1": float(np.nanmean(scores["f1"])),
        }

    def never_predicted(self) -> np.ndarray:
        """Returns the classes that have images and are predicted for no image."""
        counts = self.confusion()
        return np.flatnonzero((counts.sum(axis=1) > 0) & (counts.sum(axis=0) == 0))

    def mistakes(self, most: int) -> np.ndarray:
        """Returns which images are mistaken for others, the surest mistakes first."""
        wrong = np.flatnonzero(self.predictions != self.labels)
        certainty = self.probabilities[wrong].max(axis=1)
        return wrong[np.argsort(-certainty, kind="stable")][:most]

    def metrics(self) -> dict[str, float]:
        """Returns loss, top-1 and top-5 error."""
        return {
            "loss": self.loss,
            "top1_error": self.top_k_error(1),
            "top5_error": self.top_k_error(5),
        }


# Of the batches of an evaluation that is repeated, what is kept in memory at most.
MAX_BYTES = 2**28


class Evaluator:
    """Runs a model over labelled images, on all devices of a strategy.

    To be made once and called as often as one likes: the step is traced once.

    Args:
        model: Returns probabilities.
        strategy: The devices, in whose scope the model was made; by default the current
            one. Also several hosts, under which Keras's `predict` does not work.
        views: 1, or 10: the four corners and the centre of the resized image, and the
            same mirrored, whose probabilities are averaged (paper section 4.1).
        preprocessing: What the model expects of images; needed for 10 views.

    Raises:
        ValueError: There is no such number of views, or images have no corners.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        strategy: tf.distribute.Strategy | None = None,
        views: int = 1,
        preprocessing: Preprocessing | None = None,
    ):
        if views not in (1, 10):
            raise UserError(f"views must be 1 or 10. Received: {views}")
        if views == 10 and preprocessing is None:
            raise UserError("10 views need the preprocessing that the model expects.")
        if views == 10 and preprocessing.resize_size <= preprocessing.image_size:
            raise UserError(
                "10 views need images that are larger than the network's input. "
                f"Received: resize_size={preprocessing.resize_size}, "
                f"image_size={preprocessing.image_size}"
            )
        self._strategy = strategy or tf.distribute.get_strategy()

        def predict(images: tf.Tensor) -> tf.Tensor:
            if views == 10:
                return ten_views(model, images, preprocessing)
            return tf.cast(model.predict_step((images,)), tf.float32)

        def step(images, labels, weights):
            # In one order on every device: what a replica has stays together.
            probabilities = self._strategy.run(predict, args=(images,))
            return tuple(
                self._strategy.gather(one, axis=0)
                for one in (probabilities, labels, weights)
            )

        self._step = tf.function(step, autograph=False, reduce_retracing=True)

    def repeated(self, batches: tf.data.Dataset) -> Iterable[Any]:
        """Returns batches for several evaluations, read once and kept if small.

        An iterator of a `tf.data` pipeline takes up to a second to start, which a small
        evaluation after each epoch need not pay again.

        Args:
            batches: As for a call; the same each time that they are read.
        """
        batches, kept, size = self._distributed(batches), [], 0
        for batch in batches:
            size += sum(
                one.dtype.size * math.prod(one.shape)
                for one in tf.nest.flatten(batch, expand_composites=True)
            )
            if size > MAX_BYTES:
                return batches
            kept.append(batch)
        return kept

    def _distributed(self, batches: tf.data.Dataset) -> Iterable[Any]:
        return self._strategy.distribute_datasets_from_function(lambda _: batches)

    def __call__(self, batches: tf.data.Dataset | Iterable[Any]) -> Evaluation:
        """Evaluates the model.

        Args:
            batches: Images, int32 labels and float32 weights; for each step one batch
                for each replica of this host, all equally large. Normalised images for
                1 view; for 10 resized ones of 0-255, `(batch, resize_size, resize_size,
                channels)`. What has a weight of 0 is left out. Or what `repeated`
                made of such batches.

        Returns:
            The evaluation, on which all figures are based.

        Raises:
            ValueError: There are no images.
        """
        if isinstance(batches, tf.data.Dataset):
            batches = self._distributed(batches)
        parts = [[one.numpy() for one in self._step(*batch)] for batch in batches]
        if not parts:
            raise UserError("There are no images to evaluate.")
        probabilities, labels, weights = map(np.concatenate, zip(*parts, strict=True))
        positions = np.flatnonzero(weights > 0)
        if not len(positions):
            raise UserError("There are no images to evaluate.")
        return Evaluation(probabilities[positions], labels[positions], positions)


def evaluate(
    model: keras.Model,
    batches: tf.data.Dataset,
    *,
    strategy: tf.distribute.Strategy | None = None,
    views: int = 1,
    preprocessing: Preprocessing | None = None,
) -> Evaluation:
    """Runs a model over labelled images, once: see `Evaluator`."""
    evaluator = Evaluator(
        model, strategy=strategy, views=views, preprocessing=preprocessing
    )
    return evaluator(batches)


def evaluate_dataset(
    model: AlexNet, dataset: Dataset, *, views: int = 1, batch_size: int = 128
) -> tuple[Evaluation, list[tuple[Split, int]]]:
    """Runs a model over all splits of a dataset.

    Args:
        model: Knows its preprocessing and the names of its classes.
        dataset: Its classes are found among the model's by `match_classes`.
        views: 1 or 10, see `Evaluator`.
        batch_size: Images per pass.

    Returns:
        The evaluation, its labels the numbers of the model's outputs; and of each image
        its split and its index there.

    Raises:
        ValueError: There are no images, a class is not the model's, or the views are
            impossible.
    """
    preprocessing = model.metadata.preprocessing
    outputs = match_classes(dataset.class_names, model.metadata)
    evaluator = Evaluator(model, views=views, preprocessing=preprocessing)
    options = {"batch_size": batch_size, "whole": views == 10}
    parts, images = [], []
    for split in dataset.splits.values():
        part = evaluator(evaluation_batches(split, preprocessing, **options))
        parts.append((part.probabilities, outputs[part.labels], part.positions))
        images += [(split, int(index)) for index in part.positions]
    return Evaluation(*map(np.concatenate, zip(*parts, strict=True))), images


def ten_views(
    model: keras.Model, images: tf.Tensor, preprocessing: Preprocessing
) -> tf.Tensor:
    """Averages a model's outputs over ten views of each image.

    Views follow each other, so that memory is that of one.

    Args:
        model: Returns probabilities.
        images: `(batch, resize_size, resize_size, channels)`, 0-255.
        preprocessing: What the model expects.

    Returns:
        float32, `(batch, classes)`.
    """
    size = preprocessing.image_size
    end = preprocessing.resize_size - size
    # The order of the 2012 program.
    corners = [(0, 0), (0, end), (end // 2, end // 2), (end, 0), (end, end)]
    tops, lefts = zip(*corners * 2, strict=True)

    def view(place: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        top, left, mirrored = place
        columns = tf.range(size)
        columns = tf.where(mirrored, size - 1 - columns, columns) + left
        crops = tf.gather(images[:, top : top + size], columns, axis=2)
        crops = tf.ensure_shape(crops, (None, size, size, preprocessing.channels))
        outputs = model.predict_step((preprocessing.normalize(crops),))
        return tf.cast(outputs, tf.float32)

    outputs = tf.map_fn(
        view,
        (tf.constant(tops), tf.constant(lefts), tf.constant([False] * 5 + [True] * 5)),
        fn_output_signature=tf.float32,
        parallel_iterations=1,
    )
    return tf.reduce_mean(outputs, axis=0)


def match_classes(names: Sequence[str], metadata: Metadata) -> np.ndarray:
    """Finds a data set's classes among a model's, by name.

    Args:
        names: The data set's classes; WordNet ids too, where the model's classes are
            ImageNet's.
        metadata: What is known of the model.

    Returns:
        For each of the names the number of the model's output, int32.

    Raises:
        ValueError: A class is none of the model's, or of two, or the model does not
            know the names of its classes.
    """
    known = [list(metadata.class_names)]
    if metadata.class_order is not None:
        known.append([wnid for wnid, _ in imagenet_classes(metadata.class_order)])
    if not any(known):
        raise UserError(
            "The model does not know the names of its classes, so images cannot be "
            "told right from wrong. Name them with model.bind(..., class_names=...)."
        )
    for candidates in known:
        counts = [candidates.count(name) for name in names]
        if all(count == 1 for count in counts):
            return np.array([candidates.index(name) for name in names], np.int32)
    for name in names:
        counts = [candidates.count(name) for candidates in known]
        if 1 not in counts:
            if any(counts):
                raise UserError(f"Two classes of the model are called {name!r}.")
            hint = f"and {len(known[0]) - 20} others" if len(known[0]) > 20 else ""
            raise UserError(
                "The model does not have every class of the images. "
                + unknown(name, "class", known[0][:20], hint, known[0])
            )
    raise UserError("Some classes are named by WordNet ids and others by words.")
