"""Batches, as a function of the step.

The position of an example in training is one integer, step * batch size + place in the
batch, counted on from epoch to epoch. Which image stands there, and how it is
augmented, follows from that integer and the seed alone. A run can therefore start at
any step at no cost and sees exactly what it would have seen, whatever happened before
and however many devices share the work; every image is used once per epoch, and every
batch is full.
"""

from __future__ import annotations

import tensorflow as tf

from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.mixing import Mixing
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
    mixing: Mixing | None = None,
    on_device: bool = False,
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
        mixing: Mixes the images of a batch, which makes probabilities of labels.
        on_device: Whether to leave the random changes to `augment_batch`.

    Returns:
        Batches of float32 images `(batch_size, height, width, channels)`, int32 labels
        or float32 probabilities, and float32 weights `(batch_size,)`. With `on_device`
        images are `(uint8 pixels, draws)`.
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
        random = tf.stack([tf.constant(seed, tf.int64), position])
        if on_device:
            image = tf.cast(tf.round(image), tf.uint8)
            image = image, augmentation.draw(random, epoch)
        else:
            image = augmentation(image, random, epoch)
        return image, tf.gather(labels, index), tf.constant(1.0)

    def finish(step, batch):
        images, labels, weights = batch
        if mixing is not None:
            position = step * batch_size
            random = tf.stack([tf.constant(seed, tf.int64), position])
            images, labels, weights = mixing(images, labels, weights, random)
        if not on_device:
            images = preprocessing.normalize(images)
        return images, labels, weights

    positions = tf.data.Dataset.range(first_step * batch_size, last_step * batch_size)
    return (
        positions.map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size, drop_remainder=True)
        .enumerate(first_step)
        .map(finish)
        .prefetch(tf.data.AUTOTUNE)
    )


def augment_batch(
    batch: tuple, preprocessing: Preprocessing, augmentation: Augmentation
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Does on a device what `training_batches` left to it.

    Args:
        batch: `((pixels, draws), labels, weights)`.
        preprocessing: What the network expects.
        augmentation: The random changes.

    Returns:
        Normalised float32 images, labels and weights.
    """
    (pixels, draws), labels, weights = batch
    images = augmentation.batch(pixels, draws)
    return preprocessing.normalize(images), labels, weights


def evaluation_batches(
    examples: Examples,
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    whole: bool = False,
) -> tf.data.Dataset:
    """Returns every image, in order, in batches of one size.

    The last batch is filled up with the last image, at a weight of 0, so that every
    device has a share of it and one traced function serves all.

    Args:
        examples: The images.
        preprocessing: What the network expects.
        batch_size: Images per batch, over all replicas.
        whole: Whether images are as `Preprocessing.resize` leaves them, 0-255, for 10
            views. Otherwise they are the normalised centre.

    Returns:
        Batches of float32 images `(batch_size, height, width, channels)`, int32 labels
        and float32 weights `(batch_size,)`.
    """
    count = len(examples)
    labels = tf.constant(examples.labels)

    def example(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        index = tf.minimum(position, count - 1)
        image = examples.read(index)
        image = preprocessing.resize(image) if whole else preprocessing.prepare(image)
        weight = tf.cast(position < count, tf.float32)
        return image, tf.gather(labels, index), weight

    batches = (
        tf.data.Dataset.range(-(-count // batch_size) * batch_size)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size, drop_remainder=True)
    )
    if not whole:
        batches = batches.map(
            lambda images, *others: (preprocessing.normalize(images), *others)
        )
    return batches.prefetch(tf.data.AUTOTUNE)
