"""Divisive normalisation: a layer that keras_alexnet learns of when it is installed."""

import keras

from keras_alexnet import register_layer


@register_layer("divisive_norm", package="divisive_norm")
class DivisiveNormalization(keras.layers.Layer):
    """Divides each activation by the energy over all channels at its pixel.

    y = x / sqrt(sigma^2 + mean of x_j^2 over the channels j): the model of gain control
    in visual cortex of Heeger (1992), with every channel in the pool.

    Args:
        sigma: The constant that keeps weak responses from being amplified. Defaults to
            1.0.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, sigma: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.sigma = sigma

    def call(self, inputs):
        """Returns the normalised activations."""
        energy = keras.ops.mean(keras.ops.square(inputs), axis=-1, keepdims=True)
        return inputs / keras.ops.sqrt(self.sigma**2 + energy)

    def compute_output_shape(self, input_shape):
        """Returns `input_shape`."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "sigma": self.sigma}
