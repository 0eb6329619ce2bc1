"""Dropout whose rate a schedule may move during training."""

from __future__ import annotations

import types

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.registry import register_layer


@register_layer("scheduled_dropout")
class ScheduledDropout(keras.layers.Layer):
    """Inverted dropout with a rate that may change without retracing.

    In training, each element is set to zero with probability `rate` and the others are
    divided by `1 - rate`; in inference the layer is the identity. (The 2012 program
    multiplied by `1 - rate` in inference instead: the same network up to a constant
    factor in the next layer's kernel.)

    `keras.layers.Dropout` keeps its rate as a Python number that is fixed when the
    training step is traced. Here `layer.rate = 0.3` assigns a variable that the traced
    step reads.

    The mask is a function of the seed, the number of training calls so far and the
    replica, so replicas draw different masks and a restored layer goes on where it
    stopped.

    Args:
        rate: Probability that an element is dropped, in [0, 1). Defaults to 0.5.
        seed: An int. Defaults to one that is drawn from Keras's global seed.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Any.

    Output shape:
        The same.

    Raises:
        ValueError: `rate` is not in [0, 1).

    Example:
    >>> layer = ScheduledDropout(0.5, seed=0)
    >>> layer.rate = 0.25
    >>> layer.rate
    0.25
    """

    def __init__(self, rate: float = 0.5, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        # Out of Keras's sight: the rate is a setting, not a weight. It is saved with
        # the configuration, not counted as a parameter, not kept in weight files.
        self._setting = types.SimpleNamespace(
            # Not rounded to bfloat16 with the inputs of a mixed-precision layer.
            rate=keras.Variable(
                _check_rate(rate), dtype="float32", trainable=False, autocast=False
            )
        )
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    @property
    def rate(self) -> float:
        """The probability, at this moment, that an element is dropped."""
        return round(float(self._setting.rate.numpy()), 7)

    @rate.setter
    def rate(self, rate: float) -> None:
        self._setting.rate.assign(_check_rate(rate))

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Drops elements when `training`, returns `inputs` otherwise."""
        if not training:
            return inputs
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        # Each replica holds the same seed state; without its number they would all
        # drop the same units.
        context = tf.distribute.get_replica_context()
        # None where a strategy is in scope but no replica runs: building a model, say.
        replica = context.replica_id_in_sync_group if context else 0
        seed = seed + tf.stack([tf.cast(replica, tf.int32) * 1_000_003, 0])
        rate = tf.convert_to_tensor(self._setting.rate.value)
        uniform = tf.random.stateless_uniform(tf.shape(inputs), seed, alg="philox")
        scale = tf.cast(1.0 / (1.0 - rate), inputs.dtype)
        return tf.where(uniform >= rate, inputs * scale, tf.zeros((), inputs.dtype))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict:
        """Returns the constructor's arguments, with the rate as it is now."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def _check_rate(rate: float) -> float:
    # At 1, which float32 makes of a rate that is near enough, everything would be
    # dropped and the rest divided by zero.
    if not 0 <= rate or not np.float32(rate) < 1:
        raise ValueError(f"rate must be in [0, 1). Received: rate={rate}")
    return float(rate)
