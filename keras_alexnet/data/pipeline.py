"""Batches, as a function of the step.

The position of an example in training is one integer, step * batch size + place in the
batch, counted on from epoch to epoch. Which image stands there, and how it is
augmented, follows from that integer and the seed alone. A run can therefore start at
any step at no cost and sees exactly what it would have seen, whatever happened before
and however many devices share the work; every image is used once per epoch, and every
batch is full.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.sources import Examples
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
) -> tf.data.Dataset:
    """Returns the batches of the steps from `first_step` up to `last_step`.

    Args:
        examples: The training images.
        preprocessing: What the network expects.
        augmentation: The random changes.
        batch_size: Images per step, over all replicas.
        seed: Decides order and augmentation.
        first_step: The first step, counted from 0.
        last_step: The step after the last.

    Returns:
        Batches of float32 images `(batch_size, height, width, channels)` and int32
        labels `(batch_size,)`.
    """
    count = len(examples)
    labels = tf.constant(examples.labels)

    def example(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, place = position // count, position % count
        # Hashed: keys that count upwards give orders that resemble each other (over
        # 2,000 epochs of 1,437 images, a distance between neighbours repeats six times
        # as often as by chance). Negative, unlike what seeds the augmentation.
        key = tf.random.stateless_uniform(
            (2,),
            tf.stack([tf.constant(seed, tf.int64), -1 - epoch]),
            minval=None,
            maxval=None,
            dtype=tf.int32,
            alg="philox",
        )
        index = tf.random.experimental.index_shuffle(place, key, count - 1)
        image = preprocessing.resize(examples.read(index))
        # Positions are never repeated, so neither are the random numbers.
        image = augmentation(image, tf.stack([tf.constant(seed, tf.int64), position]))
        return image, tf.gather(labels, index)

    positions = tf.data.Dataset.range(first_step * batch_size, last_step * batch_size)
    return (
        positions.map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size, drop_remainder=True)
        .map(lambda images, labels: (preprocessing.normalize(images), labels))
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(
    examples: Examples, preprocessing: Preprocessing, batch_size: int
) -> tf.data.Dataset:
    """Returns the centre crop of every image, in order, in batches of one size.

    The last batch is filled up with the last image, so that every device has a share
    of it and one traced function serves all; whoever uses the batches leaves out what
    comes after `len(examples)` images.

    Returns:
        Batches of float32 images `(batch_size, height, width, channels)`.
    """
    count = len(examples)

    def image(position: tf.Tensor) -> tf.Tensor:
        index = tf.minimum(position, count - 1)
        return preprocessing.prepare(examples.read(index))

    return (
        tf.data.Dataset.range(-(-count // batch_size) * batch_size)
        .map(image, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size, drop_remainder=True)
        .map(preprocessing.normalize)
        .prefetch(tf.data.AUTOTUNE)
    )


def measure_colors(
    examples: Examples, preprocessing: Preprocessing, *, seed: int, most: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Measures the mean colour of images and the principal axes of their colours.

    Args:
        examples: The training images.
        preprocessing: How they are resized; its mean and scale are not used.
        seed: Decides which images are measured where there are more than `most`.
        most: Largest number of images to measure.

    Returns:
        The mean, float64 `(channels,)`, and the axes, float64 `(channels, channels)`:
        one a row, as long as the standard deviation along it, the longest first.
    """
    count = len(examples)
    chosen = np.random.default_rng(seed).permutation(count)[:most]

    def moments(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = preprocessing.resize(examples.read(index))
        pixels = tf.cast(tf.reshape(pixels, (-1, preprocessing.channels)), tf.float64)
        size = tf.cast(tf.shape(pixels)[0], tf.float64)
        return (
            tf.reduce_mean(pixels, axis=0),
            tf.matmul(pixels, pixels, transpose_a=True) / size,
        )

    measured = tf.data.Dataset.from_tensor_slices(chosen.astype(np.int64)).map(
        moments, num_parallel_calls=tf.data.AUTOTUNE
    )
    means, squares = zip(*measured.as_numpy_iterator(), strict=True)
    mean = np.mean(means, axis=0)
    covariance = np.mean(squares, axis=0) - np.outer(mean, mean)
    variances, directions = np.linalg.eigh(covariance)
    axes = directions.T * np.sqrt(np.maximum(variances, 0))[:, None]
    return mean, axes[::-1]
