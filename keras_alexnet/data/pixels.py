"""Decoded images of one size, in memory or in files that are mapped into it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_alexnet.images.preprocessing import Preprocessing

# Images, labels and weights.
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Decoded images, squares of one size, read by the batch.

    Attributes:
        side: Height and width, in pixels.
        channels: 1 for grey, 3 for RGB.
        take: From indices, int64 `(n,)`, to uint8 or float32 images `(n, side, side,
            channels)`, 0-255; int32 labels `(n,)`; and float32 weights `(n,)`, 0 for
            damaged images, of which all is 0, and 1 for others.
        dtype: That of the images.
        geometry: What they were resized by; None where any square of this side is fine.
    """

    side: int
    channels: int
    take: Callable[[np.ndarray], Batch]
    dtype: type[np.generic] = np.uint8
    geometry: Preprocessing | None = None

    def fits(self, preprocessing: Preprocessing) -> bool:
        """Says whether the images are as `preprocessing.resize` would leave them."""
        size = preprocessing.resize_size, preprocessing.channels
        geometry = self.geometry in (None, preprocessing.geometry)
        return geometry and size == (self.side, self.channels)

    def select(self, indices: np.ndarray) -> Pixels:
        """Returns some of the images."""
        return dataclasses.replace(
            self, take=lambda numbers: self.take(indices[numbers])
        )

    def batch(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns what `take` returns, in a TensorFlow graph."""
        images, labels, weights = tf.numpy_function(
            self.take,
            [indices],
            [tf.as_dtype(self.dtype), tf.int32, tf.float32],
            stateful=False,
        )
        shape = (self.side, self.side, self.channels)
        return (
            tf.ensure_shape(images, (*indices.shape, *shape)),
            tf.ensure_shape(labels, indices.shape),
            tf.ensure_shape(weights, indices.shape),
        )
