"""Random numbers that belong to positions in training.

Philox is a function of a key and a counter (Salmon et al. 2011,
doi:10.1145/2063384.2063405), four numbers for each count. So the numbers of all images
of a batch, which stand at consecutive positions, are drawn by one operation, and each
image's follow from the seed and its position alone, whatever the batch.
"""

from __future__ import annotations

import tensorflow as tf

PER_COUNT = 4


def uniform(seed: tf.Tensor, count: tf.Tensor | int, numbers: int) -> tf.Tensor:
    """Uniform numbers from 0 to 1 (exclusive), float32 `(count, numbers)`.

    The seed is two integers: the seed, and the first position, not negative.
    """
    return _draw(tf.raw_ops.StatelessRandomUniformV2, seed, count, numbers, stream=0)


def normal(seed: tf.Tensor, count: tf.Tensor | int, numbers: int) -> tf.Tensor:
    """Draws standard normal numbers, independent of the uniform ones; else the same."""
    return _draw(tf.raw_ops.StatelessRandomNormalV2, seed, count, numbers, stream=1)


def _draw(operation, seed, count, numbers, stream) -> tf.Tensor:
    counts = -(-numbers // PER_COUNT)
    seed = tf.cast(seed, tf.int64)
    hashed = tf.raw_ops.StatelessRandomGetKeyCounter(
        seed=tf.stack([seed[0], tf.constant(stream, tf.int64)])
    )
    drawn = operation(
        shape=tf.stack([count, counts * PER_COUNT]),
        key=hashed.key,
        counter=tf.cast(tf.stack([seed[1] * counts, 0]), tf.uint64),
        alg=tf.random.Algorithm.PHILOX.value,
    )
    return drawn[:, :numbers]
