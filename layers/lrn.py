"""Local response normalisation across channels."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.layers.implementations import choose
from keras_alexnet.layers.lrn_implementations import Formula
from keras_alexnet.registry import register_layer


@register_layer("lrn")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each activation by a power of the energy in the channels around it.

    For channel c (paper section 3.3)

        y_c = x_c / (k + A * sum of x_j^2 over the window of c) ^ beta

    where the window is the `size` channels around c, clipped at the first and the last
    channel, and A is `alpha` or `alpha / size`. Published systems differ in just this
    point, so it is an argument: the paper's formula, TensorFlow and PaddlePaddle use
    `alpha` as it stands; cuda-convnet (which trained the 2012 network), Caffe, PyTorch
    and ONNX divide it by `size`.

    Windows of even size lean to the lower channels, as in cuda-convnet and PyTorch.

    Args:
        size: Number of channels in a window. Defaults to 5.
        alpha: Scale of the sum of squares. Defaults to 1e-4.
        beta: The exponent. Defaults to 0.75.
        k: The additive constant. Defaults to 2.0.
        alpha_over_size: Whether A is `alpha / size`. Defaults to False.
        groups: Number of towers. The channels are split into as many equal parts and
            no window crosses from one to another. Defaults to 1.
        data_format: `"channels_last"` (channels on the last axis) or
            `"channels_first"` (on axis 1). Defaults to
            `keras.config.image_data_format()`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Any of rank two or more with a channel axis, of a floating dtype. Everything is
        computed in float32, or in float64 for float64, and the result is rounded once.

    Output shape:
        The same.

    Raises:
        ValueError: An argument is out of range, `groups` does not divide the number of
            channels, or activations are integers.

    Example:
    >>> x = np.ones((1, 2, 2, 8), "float32")
    >>> layer = LocalResponseNormalization(size=3, alpha=1.0, beta=1.0, k=1.0)
    >>> layer(x)[0, 0, 0, :3].numpy()
    array([0.33333334, 0.25      , 0.25      ], dtype=float32)
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
        alpha_over_size: bool = False,
        groups: int = 1,
        data_format: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if size < 1 or size != int(size):
            raise UserError(f"size must be a whole number above 0. Received: {size}")
        if alpha < 0 or k <= 0:
            # Without k, windows of zeros, of which ReLU leaves many, would give NaN.
            raise UserError(
                "alpha must not be negative, and k must be positive. Received: "
                f"alpha={alpha}, k={k}"
            )
        if groups < 1:
            raise UserError(f"groups must be at least 1. Received: groups={groups}")
        if data_format not in (None, "channels_last", "channels_first"):
            raise UserError(
                "data_format must be 'channels_last' or 'channels_first'. Received: "
                f"data_format={data_format!r}"
            )
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.alpha_over_size = alpha_over_size
        self.groups = groups
        self.data_format = data_format or keras.config.image_data_format()
        self.supports_masking = True

    def build(self, input_shape: tuple) -> None:
        """Checks that the channels can be split into `groups`."""
        channels = input_shape[self._axis]
        if channels is None:
            raise UserError(
                f"The number of channels must be known. Received: {input_shape}"
            )
        if channels % self.groups:
            raise UserError(
                f"groups must divide the number of channels. Received: "
                f"groups={self.groups}, channels={channels}"
            )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the normalised activations."""
        alpha = self.alpha / self.size if self.alpha_over_size else self.alpha
        formula = Formula(self.size, float(alpha), float(self.beta), float(self.k))
        return formula.normalise(
            inputs,
            choose("lrn", inputs, training),
            groups=self.groups,
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
            "alpha_over_size": self.alpha_over_size,
            "groups": self.groups,
            "data_format": self.data_format,
        }

    @property
    def _axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1
