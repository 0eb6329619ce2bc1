"""Batch normalisation of images by TensorFlow's fused operation."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_alexnet.layers.implementations import device_kind
from keras_alexnet.registry import register_layer


@register_layer("fused_batch_normalization")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` by TensorFlow's fused operation.

    For each channel, with the mean and the variance of the batch in training and their
    moving averages in inference (https://arxiv.org/abs/1502.03167)

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    Keras computes it by separate operations, in float32 on copies of 16-bit
    activations; the fused one reads 16-bit activations as they are, computes in float32
    and has a gradient of its own. What it does not know falls back to Keras's: inputs
    that are not images, channels first on CPUs, masks, `renorm`, `synchronized`, and
    layers without `center` or `scale`.

    Args:
        **kwargs: Arguments of `keras.layers.BatchNormalization`.

    Input shape:
        `(batch, height, width, channels)`, or channels on the axis named by `axis`.

    Output shape:
        The same.

    Example:
    >>> layer = FusedBatchNormalization(momentum=0.9)
    >>> layer(np.ones((2, 4, 4, 8), "float32"), training=True).shape
    TensorShape([2, 4, 4, 8])
    """

    def call(
        self,
        inputs: tf.Tensor,
        training: bool | None = None,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the normalised activations; in training, moves the averages."""
        if mask is not None or not self._is_fused(inputs):
            return super().call(inputs, training=training, mask=mask)
        training = bool(training and self.trainable)
        empty = tf.zeros(0)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=empty if training else tf.convert_to_tensor(self.moving_mean),
            variance=empty if training else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            data_format="NHWC" if self._is_last(inputs) else "NCHW",
            is_training=training,
        )
        if training:
            # TensorFlow returns the variance of the population, Keras averages that of
            # the batch.
            count = tf.size(inputs, tf.int64) // inputs.shape[self.axis]
            count = tf.cast(count, tf.float32)
            variance *= (count - 1) / count
            for average, value in (
                (self.moving_mean, mean),
                (self.moving_variance, variance),
            ):
                average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs

    def _is_last(self, inputs: tf.Tensor) -> bool:
        return self.axis in (-1, len(inputs.shape) - 1)

    def _is_fused(self, inputs: tf.Tensor) -> bool:
        known = inputs.dtype in ("float32", "bfloat16", "float16")
        if len(inputs.shape) != 4 or not known or self.variable_dtype != "float32":
            return False
        if self.renorm or self.synchronized or not (self.center and self.scale):
            return False
        return self._is_last(inputs) or (
            self.axis in (1, -3) and device_kind(inputs) == "GPU"
        )
