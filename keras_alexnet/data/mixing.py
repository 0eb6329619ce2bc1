"""MixUp and CutMix: training images that are two images, with both labels.

The images are mixed by Keras's layers; what is mixed, and how much, follows from a
seed, of which the layers' own random numbers know nothing.
"""

from __future__ import annotations

import keras
import tensorflow as tf


class Mixing:
    """Mixes each image of a batch with the next one.

    Args:
        classes: How many there are.
        mixup: Both shapes of the beta distribution that the share of an image is drawn
            from (arXiv:1710.09412); 0 for none.
        cutmix: The same for the share of its area that an image keeps
            (arXiv:1905.04899); 0 for none. With both, each batch has one of them.
    """

    def __init__(self, classes: int, mixup: float = 0.0, cutmix: float = 0.0):
        self.classes, self.mixup, self.cutmix = classes, mixup, cutmix
        self._mix_up = keras.layers.MixUp(data_format="channels_last")
        self._cut_mix = keras.layers.CutMix(data_format="channels_last")

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mixes a batch by a seed of two integers.

        What has a weight of 0 is mixed into nothing. Returns images, probabilities of
        `(batch, classes)`, and weights.
        """
        probabilities = tf.one_hot(labels, self.classes)
        # The order of images is random already.
        partners = tf.roll(tf.range(tf.size(labels)), -1, axis=0)
        present = tf.roll(weights, -1, axis=0) > 0

        def mix_up():
            share = _beta(self.mixup, tf.shape(labels), seed)
            mixed = {
                "mix_weight": tf.where(present, share, 1.0),
                "permutation_order": partners,
            }
            return (
                self._mix_up.transform_images(images, mixed),
                self._mix_up.transform_labels(probabilities, mixed),
            )

        def cut_mix():
            share = _beta(self.cutmix, tf.shape(labels), seed)
            masks, kept = _boxes(images, share, seed)
            mixed = {
                "mix_weight": tf.where(present, kept, 1.0),
                "permutation_order": partners,
                "batch_masks": masks & present[:, None, None, None],
            }
            return (
                self._cut_mix.transform_images(images, mixed),
                self._cut_mix.transform_labels(probabilities, mixed),
            )

        if self.mixup and self.cutmix:
            coin = tf.random.stateless_uniform((), seed + [2, 0], alg="philox")
            mixed_images, mixed_labels = tf.cond(coin < 0.5, mix_up, cut_mix)
        else:
            mixed_images, mixed_labels = mix_up() if self.mixup else cut_mix()
        mixed_images = tf.ensure_shape(mixed_images, images.shape)
        return mixed_images, tf.ensure_shape(mixed_labels, probabilities.shape), weights


def _beta(shape: float, count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws from a symmetric beta distribution: a part of two gamma variables' sum."""
    pair = tf.random.stateless_gamma(
        tf.concat([count, [2]], axis=0), seed + [3, 0], alpha=shape
    )
    # Of small shapes both may be 0.
    return (pair[:, 0] + 1e-30) / (pair[:, 0] + pair[:, 1] + 2e-30)


def _boxes(
    images: tf.Tensor, share: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes of 1 - share of the area, booleans of `(batch, height, width, 1)`.

    They are cut off at the edges; with the share of each image that lies outside.
    """
    count, height, width = tf.unstack(tf.shape(images)[:3])
    places = tf.random.stateless_uniform((2, count), seed + [4, 0], alg="philox")
    side = tf.sqrt(1 - share)

    def inside(length: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        length = tf.cast(length, tf.float32)
        start = tf.round(place * length - side * length / 2)[:, None]
        end = tf.round(place * length + side * length / 2)[:, None]
        pixels = tf.range(length)
        return (pixels >= start) & (pixels < end)

    rows, columns = inside(height, places[0]), inside(width, places[1])
    masks = rows[:, :, None, None] & columns[:, None, :, None]
    return masks, 1 - tf.reduce_mean(tf.cast(masks, tf.float32), axis=(1, 2, 3))
