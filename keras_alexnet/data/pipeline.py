"""Batches, as a function of the step.

The position of an example in training is one integer, step * batch size + place in the
batch, counted on from epoch to epoch. Which image stands there, and how it is
augmented, follows from that integer and the seed alone. A run can therefore start at
any step at no cost and sees exactly what it would have seen, whatever happened before
and however many devices share the work; every image is used once per epoch, and every
batch is full. An image that is damaged leaves its place empty, which counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_alexnet.data.attempts import read_or_skip
from keras_alexnet.data.augmentation import NUMBERS, Augmentation
from keras_alexnet.data.dataset import Split
from keras_alexnet.data.mixing import Mixing
from keras_alexnet.data.order import Shard, numbers_at
from keras_alexnet.data.pixels import Pixels
from keras_alexnet.images.preprocessing import Preprocessing


def training_batches(
    examples: Split,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    shard: Shard | None = None,
    mixing: Mixing | None = None,
    on_device: bool = False,
    class_weights: Sequence[float] = (),
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
        shard: The part of the batches that this host takes; all by default.
        mixing: Mixes the images of a replica's batch, which makes probabilities of
            labels.
        on_device: Whether to leave the random changes to `augment_batch`.
        class_weights: What an image counts by its class; 1 by default.

    Returns:
        Batches of float32 images `(n, height, width, channels)`, int32 labels `(n,)` or
        float32 probabilities, and float32 weights `(n,)`: 0 for damaged images, which
        are blank, and 1 for all others. With `n` images for a replica, each step has
        one batch for each replica of this host, in their order. With `on_device` images
        are `(uint8 pixels, draws)`.

    Raises:
        ValueError: The batch cannot be shared equally.
    """
    shard = shard or Shard()
    size = shard.per_replica(batch_size)
    items = shard.positions(batch_size, first_step, last_step)
    blank = _blank(preprocessing)
    if on_device:
        side = preprocessing.resize_size
        pixels = tf.zeros((side, side, preprocessing.channels), tf.uint8)
        blank = (pixels, tf.zeros((NUMBERS,)), *blank[1:])

    @tf.autograph.experimental.do_not_convert
    def finish(ordinal: tf.Tensor, parts: tuple[tf.Tensor, ...]):
        *images, labels, weights = parts
        if class_weights:
            weights *= tf.gather(tf.constant(class_weights, tf.float32), labels)
        if on_device:
            return tuple(images), labels, weights
        if mixing is None:
            return images[0], labels, weights
        # Where the replica's batch begins: no other mixing has the same seed.
        position = shard.start(batch_size, first_step, ordinal)
        random = tf.stack([tf.constant(seed, tf.int64), position])
        return mixing(images[0], labels, weights, random)

    items = items.batch(size, drop_remainder=True)
    items = items.map(_drawn(examples, augmentation, seed))
    steps = preprocessing, augmentation, on_device
    if pixels := examples.decoded(preprocessing):
        kept = _kept(pixels, *steps)
        batches = items.map(kept, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        batches = read_or_skip(items, _example(examples, *steps), examples, blank)
    return _ahead(batches.enumerate().map(finish))


def _drawn(
    examples: Split, augmentation: Augmentation, seed: int
) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Returns what decides which examples stand at positions, and their changes."""

    # Autograph takes a second of every start, and there is nothing for it to do.
    @tf.autograph.experimental.do_not_convert
    def drawn(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Positions are never repeated, so neither are the random numbers.
        random = tf.stack([tf.constant(seed, tf.int64), positions[0]])
        draws = augmentation.draw(random, positions // len(examples))
        return numbers_at(examples, positions, seed), draws

    return drawn


def _example(
    examples: Split,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    on_device: bool,
) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Returns what reads an example, and changes it as far as that is done singly."""

    def example(number: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, ...]:
        encoded, label = examples.load(number)
        if on_device:
            # As bytes, a quarter of what floating point numbers take.
            image = preprocessing.resize(preprocessing.decode(encoded))
            image = tf.cast(tf.round(image), tf.uint8)
            return image, draws, label, tf.constant(1.0)
        # Normalised here, where it is in the processor's cache, not by the batch.
        image = augmentation.of_file(encoded, preprocessing, draws)
        return image, label, tf.constant(1.0)

    return example


def _kept(
    pixels: Pixels,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    on_device: bool,
) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Returns what takes a batch of decoded images, and changes it, as `_example`."""

    @tf.autograph.experimental.do_not_convert
    def kept(numbers: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images, labels, weights = pixels.batch(numbers)
        if on_device:
            if images.dtype != tf.uint8:
                images = tf.cast(tf.round(images), tf.uint8)
            return images, draws, labels, weights
        images = preprocessing.normalize(augmentation.batch(images, draws))
        return _blanked(images, weights), labels, weights

    return kept


def augment_batch(
    batch: tuple, preprocessing: Preprocessing, augmentation: Augmentation
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What `training_batches` left to a device: images, labels and weights."""
    (pixels, draws), labels, weights = batch
    images = augmentation.batch(pixels, draws)
    return preprocessing.normalize(images), labels, weights


def evaluation_batches(
    examples: Split,
    preprocessing: Preprocessing,
    batch_size: int,
    shard: Shard | None = None,
    *,
    whole: bool = False,
) -> tf.data.Dataset:
    """Returns every image, in order, in batches of one size.

    The last batch is filled up with blank images, so that every device has a share of
    it and one traced function serves all.

    Args:
        examples: The images.
        preprocessing: What the network expects.
        batch_size: Images per step, over all replicas of all hosts.
        shard: The part of the batches that this host takes; all by default.
        whole: Whether images are as `Preprocessing.resize` leaves them, 0-255, for 10
            views. Otherwise they are the normalised centre.

    Returns:
        Batches of float32 images `(n, height, width, channels)`, int32 labels and
        float32 weights `(n,)`, one for each replica. What fills up the last batch
        weighs 0, as damaged images do.

    Raises:
        ValueError: The batch cannot be shared equally.
    """
    shard = shard or Shard()
    steps = -(-len(examples) // batch_size)
    items = shard.positions(batch_size, 0, steps)
    items = items.batch(shard.per_replica(batch_size), drop_remainder=True)
    if examples.decoded(preprocessing):
        kept = _kept_in_order(examples, preprocessing, whole)
        return _ahead(items.map(kept, num_parallel_calls=tf.data.AUTOTUNE))
    side = preprocessing.resize_size if whole else preprocessing.image_size
    blank = _blank(preprocessing, side)

    def example(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def image():
            encoded, label = examples.load(position)
            if whole:
                pixels = preprocessing.resize(preprocessing.decode(encoded))
            else:
                pixels = preprocessing.normalize(preprocessing.prepare_file(encoded))
            return pixels, label, tf.constant(1.0)

        return tf.cond(position < len(examples), image, lambda: blank)

    return _ahead(read_or_skip(items, example, examples, blank))


def _kept_in_order(
    examples: Split, preprocessing: Preprocessing, whole: bool
) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """Returns what makes a batch for evaluation of decoded images."""

    @tf.autograph.experimental.do_not_convert
    def kept(positions: tf.Tensor) -> tuple[tf.Tensor, ...]:
        inside = positions < len(examples)
        images, labels, weights = examples.pixels.batch(tf.where(inside, positions, 0))
        weights *= tf.cast(inside, tf.float32)
        images = tf.cast(images, tf.float32)
        if not whole:
            images = preprocessing.normalize(preprocessing.center_crop(images))
        return _blanked(images, weights), tf.where(inside, labels, 0), weights

    return kept


def _blanked(images: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Images, of which those with a weight of 0 are 0."""
    return images * weights[:, None, None, None]


def _ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches that are computed before they are asked for."""
    options = tf.data.Options()
    # Images are computed side by side; to divide each of them, too, only costs.
    options.threading.max_intra_op_parallelism = 1
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _blank(
    preprocessing: Preprocessing, side: int | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Image, label and weight of 0 that stand in an empty place."""
    side = side or preprocessing.image_size
    image = tf.zeros((side, side, preprocessing.channels))
    return image, tf.constant(0, tf.int32), tf.constant(0.0)
