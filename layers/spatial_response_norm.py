"""Response normalisation over the pixels around an activation, in its own map."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_alexnet.errors import UserError
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
        return spatial_response_normalization(
            inputs,
            size=self.size,
            alpha=self.alpha,
            beta=self.beta,
            k=self.k,
            channels_last=self.data_format == "channels_last",
        )

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


def spatial_response_normalization(
    x: tf.Tensor,
    *,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    channels_last: bool = True,
) -> tf.Tensor:
    """Computes x / (k + alpha * windowed mean of squares) ^ beta.

    The function behind `SpatialResponseNormalization`.

    Args:
        x: Activations, rank four, any floating dtype.
        size: Height and width of a window, in pixels.
        alpha: Scale of the mean of squares.
        beta: The exponent.
        k: The additive constant.
        channels_last: Whether channels are on the last axis, or else on axis 1.

    Returns:
        The shape and dtype of `x`; computed in float32.
    """
    wide = tf.cast(x, tf.float32)
    squares = tf.square(wide)
    if not channels_last:
        # CPUs pool channels-last images only. No window leaves its map, so every map
        # may be an image of its own.
        height, width = tf.shape(x)[2], tf.shape(x)[3]
        squares = tf.reshape(squares, (-1, height, width, 1))
    # Padded here, because TensorFlow's own padding would not count in the mean.
    border = (size // 2, (size - 1) // 2)
    squares = tf.pad(squares, ((0, 0), border, border, (0, 0)))
    mean = tf.nn.avg_pool2d(squares, size, strides=1, padding="VALID")
    root = tf.math.rsqrt(k + alpha * tf.reshape(mean, tf.shape(x)))
    # A general power costs more than the pooling.
    power = root * tf.sqrt(root) if beta == 0.75 else tf.pow(root, 2 * beta)
    return tf.cast(wide * power, x.dtype)
