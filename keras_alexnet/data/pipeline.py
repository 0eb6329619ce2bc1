"""Batches, as a function of the step.

The position of an example in training is one integer, step * batch size + place in the
batch, counted on from epoch to epoch. Which image stands there, and how it is
augmented, follows from that integer and the seed alone. A run can therefore start at
any step at no cost and sees exactly what it would have seen, whatever happened before
and however many devices share the work; every image is used once per epoch, and every
batch is full. An image that is damaged leaves its place empty, which counts nothing.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_alexnet.data.attempts import read_or_skip
from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.examples import Examples
from keras_alexnet.data.limits import checked
from keras_alexnet.data.order import Share, from_stream, number_at
from keras_alexnet.preprocessing import Preprocessing


def training_batches(
    examples: Examples,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    share: Share | None = None,
) -> tf.data.Dataset:
    """Returns the batches of the steps from `first_step` up to `last_step`.

    Args:
        examples: The training images.
        preprocessing: What the network expects.
        augmentation: The random changes.
        batch_size: Images per step, over all replicas of all hosts.
        seed: Decides order and augmentation.
        first_step: The first step, counted from 0.
        last_step: The step after the last.
        share: The part of the batches that this host takes; all by default.

    Returns:
        Batches of float32 images `(n, height, width, channels)`, int32 labels `(n,)`
        and float32 weights `(n,)`: 0 for damaged images, which are blank, and 1 for all
        others. With `n` images for a replica, each step has one batch for each replica
        of this host, in their order.

    Raises:
        ValueError: The batch cannot be shared equally.
    """
    share = share or Share()
    size = share.per_replica(batch_size)

    def number(position: tf.Tensor, index: tf.Tensor | None = None, *_) -> tf.Tensor:
        return number_at(examples, position, seed) if index is None else index

    def example(position: tf.Tensor, *streamed: tf.Tensor):
        index = number(position, *streamed)
        encoded, label = examples.load(index, *streamed[1:])
        image = preprocessing.resize(preprocessing.decode(checked(encoded)))
        # Positions are never repeated, so neither are the random numbers.
        image = augmentation(image, tf.stack([tf.constant(seed, tf.int64), position]))
        return image, label, tf.constant(1.0)

    if examples.stream is None:
        items = share.positions(batch_size, first_step, last_step).map(lambda p: (p,))
    else:
        items = from_stream(examples, seed, batch_size, first_step, last_step, share)
    batches = read_or_skip(
        items.batch(size, drop_remainder=True),
        example,
        examples=examples,
        number=number,
        blank=_blank(preprocessing),
    )
    return _normalised(batches, preprocessing)


def evaluation_batches(
    examples: Examples,
    preprocessing: Preprocessing,
    batch_size: int,
    share: Share | None = None,
) -> tf.data.Dataset:
    """Returns the centre crop of every image, in order, in batches of one size.

    The last batch is filled up with blank images, so that every device has a share of
    it and one traced function serves all.

    Args:
        examples: The images.
        preprocessing: What the network expects.
        batch_size: Images per step, over all replicas of all hosts.
        share: The part of the batches that this host takes; all by default.

    Returns:
        Batches as `training_batches` returns them. What fills up the last batch weighs
        0, as damaged images do.

    Raises:
        ValueError: The batch cannot be shared equally.
    """
    share = share or Share()
    steps = -(-len(examples) // batch_size)
    blank = _blank(preprocessing)

    def example(position: tf.Tensor, *record: tf.Tensor):
        def image():
            encoded, label = examples.load(position, *record)
            image = preprocessing.prepare(preprocessing.decode(checked(encoded)))
            return image, label, tf.constant(1.0)

        return tf.cond(position < len(examples), image, lambda: blank)

    if examples.stream is None:
        items = share.positions(batch_size, 0, steps).map(lambda p: (p,))
    else:
        filling = tf.data.Dataset.from_tensors((b"", 0)).repeat(steps * batch_size)
        items = (
            examples.stream(0)
            .map(lambda encoded, label: (encoded, tf.cast(label, tf.int32)))
            .concatenate(filling)
            .take(steps * batch_size)
            .enumerate()
            .filter(lambda position, _: share.holds(position, batch_size))
            .map(lambda position, record: (position, *record))
        )
    batches = read_or_skip(
        items.batch(share.per_replica(batch_size), drop_remainder=True),
        example,
        examples=examples,
        number=lambda position, *_: position,
        blank=blank,
    )
    return _normalised(batches, preprocessing)


def _blank(preprocessing: Preprocessing) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    size = preprocessing.image_size
    return (
        tf.zeros((size, size, preprocessing.channels)),
        tf.constant(0, tf.int32),
        tf.constant(0.0),
    )


def _normalised(
    batches: tf.data.Dataset, preprocessing: Preprocessing
) -> tf.data.Dataset:
    return batches.map(
        lambda images, *rest: (preprocessing.normalize(images), *rest)
    ).prefetch(tf.data.AUTOTUNE)


def measure_colors(
    examples: Examples, preprocessing: Preprocessing, *, seed: int, most: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Measures the mean colour of images and the principal axes of their colours.

    Args:
        examples: The training images. Damaged ones are left out, and named.
        preprocessing: How they are resized; its mean and scale are not used.
        seed: Decides which images are measured where there are more than `most`; of a
            stream, the first are.
        most: Largest number of images to measure.

    Returns:
        The mean, float64 `(channels,)`, and the axes, float64 `(channels, channels)`:
        one a row, as long as the standard deviation along it, the longest first.

    Raises:
        ValueError: None of the images can be read.
    """
    channels = preprocessing.channels

    def moments(index: tf.Tensor, *record: tf.Tensor):
        encoded, _ = examples.load(index, *record)
        pixels = preprocessing.resize(preprocessing.decode(checked(encoded)))
        pixels = tf.cast(tf.reshape(pixels, (-1, channels)), tf.float64)
        size = tf.cast(tf.shape(pixels)[0], tf.float64)
        mean = tf.reduce_mean(pixels, axis=0)
        return mean, tf.matmul(pixels, pixels, transpose_a=True) / size

    # A mean that is no number tells what was damaged.
    blank = (
        tf.fill((channels,), tf.constant(np.nan, tf.float64)),
        tf.zeros((channels, channels), tf.float64),
    )
    measured = read_or_skip(
        _some(examples, seed, most).batch(64),
        moments,
        examples=examples,
        number=lambda index, *_: index,
        blank=blank,
    )
    means, squares = map(
        np.concatenate, zip(*measured.as_numpy_iterator(), strict=True)
    )
    whole = np.isfinite(means).all(axis=1)
    if not whole.any():
        name, why = next(iter(examples.skipped))
        raise ValueError(f"None of the images can be read; the first: {name}: {why}")
    mean = means[whole].mean(axis=0)
    covariance = squares[whole].mean(axis=0) - np.outer(mean, mean)
    variances, directions = np.linalg.eigh(covariance)
    axes = directions.T * np.sqrt(np.maximum(variances, 0))[:, None]
    return mean, axes[::-1]


def _some(examples: Examples, seed: int, most: int) -> tf.data.Dataset:
    """Returns the numbers of some examples, and of a stream what is read of them."""
    if examples.stream is not None:
        chosen = examples.stream(0).take(most).enumerate()
        return chosen.map(lambda index, record: (index, *record))
    chosen = np.random.default_rng(seed).permutation(len(examples))[:most]
    return tf.data.Dataset.from_tensor_slices((chosen.astype(np.int64),))
