"""Response normalisation over the pixels around an activation, in its own map."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.layers.lrn_implementations import inverse_power
from keras_alexnet.registry import register_layer


@register_layer("spatial_response_norm")
class SpatialResponseNormalization(keras.layers.Layer):
    """Divides each activation by a power of the energy around it in the same map.

    For the pixel p of one channel (`rnorm` of cuda-convnet; it stands between norm2 and
    pool2 in layers-145.cfg and not in the paper)

        y_p = x_p / (k + alpha / size^2 * sum of x_q^2 over the window of p) ^ beta

    where the window is the `size` x `size` pixels around p, clipped at the border. The
    divisor stays `size^2` there, so the border is normalised less.

    This is Caffe's LRN with `norm_region: WITHIN_CHANNEL`, whose average pooling
    divides by `size^2` over a zero-padded map: the same `size`, `alpha` and `beta`
    with k = 1 give the same numbers.

    Windows of even size lean to the top left, as in cuda-convnet.

    Args:
        size: Height and width of a window, in pixels. Defaults to 5.
        alpha: Scale of the mean of squares. Defaults to 1e-3.
        beta: The exponent. Defaults to 0.75.
        k: The additive constant. Defaults to 1.0.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `keras.config.image_data_format()`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)`;
        float32, float16 or bfloat16. Computed in float32 and rounded once.

    Output shape:
        The same.

    Raises:
        ValueError: An argument is out of range.

    Example:
    >>> x = np.ones((1, 3, 3, 1), "float32")
    >>> layer = SpatialResponseNormalization(size=3, alpha=9.0, beta=1.0)
    >>> layer(x)[0, 1, :, 0].numpy()
    array([0.14285715, 0.1       , 0.14285715], dtype=float32)
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-3,
        beta: float = 0.75,
        k: float = 1.0,
        data_format: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if size < 1:
            raise UserError(f"size must be at least 1. Received: size={size}")
        if alpha < 0 or k < 0 or (alpha == 0 and k == 0):
            raise UserError(
                "alpha and k must not be negative, nor both zero. Received: "
                f"alpha={alpha}, k={k}"
            )
        if data_format not in (None, "channels_last", "channels_first"):
            raise UserError(
                "data_format must be 'channels_last' or 'channels_first'. Received: "
                f"data_format={data_format!r}"
            )
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.data_format = data_format or keras.config.image_data_format()
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalised activations."""
        wide = tf.cast(inputs, tf.float32)
        squares = tf.square(wide)
        if self.data_format == "channels_first":
            # CPUs pool channels-last images only. No window leaves its map, so every
            # map may be an image of its own.
            height, width = tf.shape(inputs)[2], tf.shape(inputs)[3]
            squares = tf.reshape(squares, (-1, height, width, 1))
        # Padded here, because TensorFlow's own padding would not count in the mean.
        border = (self.size // 2, (self.size - 1) // 2)
        squares = tf.pad(squares, ((0, 0), border, border, (0, 0)))
        mean = tf.nn.avg_pool2d(squares, self.size, strides=1, padding="VALID")
        energy = self.k + self.alpha * tf.reshape(mean, tf.shape(inputs))
        return tf.cast(wide * inverse_power(energy, self.beta), inputs.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "k": self.k,
            "data_format": self.data_format,
        }
