"""Dropout whose rate a schedule may move during training, today's and that of 2012."""

from __future__ import annotations

import types

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.registry import register_layer


@register_layer("scheduled_dropout")
class ScheduledDropout(keras.layers.Layer):
    """Inverted dropout with a rate that may change without retracing.

    In training, each element is set to zero with probability `rate` and the others are
    divided by `1 - rate`; in inference the layer is the identity. `ClassicDropout` is
    the form of 2012.

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
        scale = tf.cast(1.0 / (1.0 - self._current_rate()), inputs.dtype)
        return self._drop(inputs, inputs * scale)

    def _current_rate(self) -> tf.Tensor:
        return tf.convert_to_tensor(self._setting.rate.value)

    def _drop(self, inputs: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """Returns `kept` where the next mask keeps an element of `inputs`, or zero."""
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        # Each replica holds the same seed state; without its number they would all
        # drop the same units.
        context = tf.distribute.get_replica_context()
        # None where a strategy is in scope but no replica runs: building a model, say.
        replica = context.replica_id_in_sync_group if context else 0
        seed = seed + tf.stack([tf.cast(replica, tf.int32) * 1_000_003, 0])
        uniform = tf.random.stateless_uniform(tf.shape(inputs), seed, alg="philox")
        zero = tf.zeros((), inputs.dtype)
        return tf.where(uniform >= self._current_rate(), kept, zero)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict:
        """Returns the constructor's arguments, with the rate as it is now."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@register_layer("classic_dropout")
class ClassicDropout(ScheduledDropout):
    """Dropout as in 2012: nothing is rescaled in training, everything in inference.

    In training, each element is set to zero with probability `rate` and the others stay
    as they are; in inference all are multiplied by `1 - rate` (paper section 4.2; the
    `hs` layers of layers-145.cfg, `dropout2` of cuda-convnet2).

    In inference a network with inverted dropout computes the same if the kernels of the
    layers that follow are multiplied by `1 - rate`. In training it does not: its
    activations are larger by `1 / (1 - rate)`.

    The rate may change without retracing and is read in inference too, so a model that
    is exported keeps the rate of that moment.

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
    >>> ClassicDropout(0.25)(np.ones(3, "float32")).numpy()
    array([0.75, 0.75, 0.75], dtype=float32)
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Drops elements when `training`, scales all of them otherwise."""
        if training:
            return self._drop(inputs, inputs)
        return inputs * tf.cast(1.0 - self._current_rate(), inputs.dtype)


def _check_rate(rate: float) -> float:
    # At 1, which float32 makes of a rate that is near enough, everything would be
    # dropped and the rest divided by zero.
    if not 0 <= rate or not np.float32(rate) < 1:
        raise UserError(f"rate must be in [0, 1). Received: rate={rate}")
    return float(rate)
