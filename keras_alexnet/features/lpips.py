"""LPIPS, the perceptual distance between images by AlexNet's features."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.builder import build
from keras_alexnet.errors import UserError
from keras_alexnet.features import feature_extractor
from keras_alexnet.weights.catalog import find_weights
from keras_alexnet.weights.reading import read_tensors

LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5")
# Smaller images leave nothing for conv3.
MIN_SIZE = 31
# Of version 0.1: what pixels of -1 to 1 are reduced by, and divided by.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


@keras.saving.register_keras_serializable("keras_alexnet")
class LPIPS(keras.losses.Loss):
    """Learned perceptual image patch similarity (LPIPS), version 0.1, of AlexNet.

    With f_l the activations behind the l-th ReLU, divided by their norm over the
    channels, and w_l the published weights of their channels
    (https://arxiv.org/abs/1801.03924, equation 1)

        d(x, y) = sum over l of mean over pixels of
                  sum over c of w_lc (f_lc(x) - f_lc(y))^2

    0 for equal images; differentiable by either. As a loss it returns the mean of a
    batch; `distances` returns one number for each pair, and `metric()` a Keras metric.

    Args:
        weights: The convolutions: the name of published weights, or a file of
            torchvision's `alexnet`, also without its dense layers. Defaults to
            torchvision's, with which the heads were trained.
        heads: The weights of the channels: the name of published ones, or a file that
            holds five tensors, `lin0` to `lin4`. Defaults to `"lpips-alex"`.
        max_value: White: 255, or 1 for images of 0 to 1. Defaults to 255.
        dtype: Dtype policy of the network, such as `"mixed_bfloat16"`; distances are
            computed in float32 from its activations. Defaults to
            `keras.config.dtype_policy()`.
        **kwargs: `name` and `reduction` of `keras.losses.Loss`.

    Raises:
        ValueError: The heads are none of AlexNet's.
        OSError: A file could not be downloaded; the message says where to put a copy.

    Example:
    >>> lpips = keras_alexnet.LPIPS()
    >>> lpips.distances(images, images).numpy()
    array([0., 0.], dtype=float32)
    >>> model.compile("adam", loss=lpips, metrics=[lpips.metric()])
    """

    def __init__(
        self,
        weights: str | Path = "torchvision-alexnet",
        heads: str | Path = "lpips-alex",
        *,
        max_value: float = 255.0,
        dtype: str | keras.DTypePolicy | None = None,
        **kwargs,
    ):
        super().__init__(**{"name": "lpips", **kwargs})
        if max_value <= 0:
            raise UserError(f"max_value must be positive. Received: {max_value}")
        self.weights, self.heads, self.max_value = str(weights), str(heads), max_value
        base = build(
            "alexnet_owt",
            include_top=False,
            input_shape=(None, None, 3),
            weights=weights,
            dtype=dtype,
        )
        base.trainable = False
        self.network = feature_extractor(base, LAYERS)
        self._heads = _read_heads(find_weights(heads))
        self._distances = tf.function(self._compute, reduce_retracing=True)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the distance of each pair; see `distances`."""
        return self.distances(y_true, y_pred)

    def distances(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """Returns the distance between the images of each pair.

        Args:
            first: RGB images, `(batch, height, width, 3)`, of 0 to `max_value`; 31
                pixels high and wide at least.
            second: Images of the same shape.

        Returns:
            float32, `(batch,)`.

        Raises:
            ValueError: The shapes differ, or are those of no images or too small ones.
        """
        first, second = (tf.cast(x, tf.float32) for x in (first, second))
        if first.shape.rank != 4 or first.shape[-1] not in (3, None):
            raise UserError(
                "Images must be (batch, height, width, 3). Received: "
                f"{tuple(first.shape)}"
            )
        if not first.shape.is_compatible_with(second.shape):
            raise UserError(
                "Images of a pair must have the same shape. Received: "
                f"{tuple(first.shape)} and {tuple(second.shape)}"
            )
        if any(size is not None and size < MIN_SIZE for size in first.shape[1:3]):
            raise UserError(
                f"Images must be {MIN_SIZE} pixels high and wide at least. Received: "
                f"{tuple(first.shape)}"
            )
        return self._distances(first, second)

    def metric(self, name: str = "lpips") -> keras.metrics.Metric:
        """Returns a Keras metric: the mean distance of the images it has seen."""
        return keras.metrics.MeanMetricWrapper(self.distances, name=name)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        names = {"weights": self.weights, "heads": self.heads}
        return {**super().get_config(), **names, "max_value": self.max_value}

    def _compute(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        pixels = tf.concat([first, second], 0) * (2 / self.max_value) - 1
        features = self.network((pixels - SHIFT) / SCALE)
        total = 0.0
        for layer, head in zip(LAYERS, self._heads, strict=True):
            x = tf.cast(features[layer], tf.float32)
            # Where all are 0 they stay so, and have a gradient.
            energy = tf.reduce_sum(tf.square(x), -1, keepdims=True)
            x *= tf.math.rsqrt(tf.maximum(energy, 1e-20))
            one, other = tf.split(x, 2)
            total += tf.reduce_mean(tf.square(one - other) @ head, (1, 2, 3))
        return total


def _read_heads(path: Path) -> list[np.ndarray]:
    """Reads the weights of the channels, each of `(channels, 1)`."""
    found = {}
    for key, value in read_tensors(path).items():
        found[key.split(".")[0]] = value.reshape(-1, 1).astype("float32")
    sizes = [found[name].size for name in sorted(found) if name.startswith("lin")]
    if sizes != [64, 192, 384, 256, 256]:
        raise UserError(
            f"{path} holds no heads of LPIPS for AlexNet: expected lin0 to lin4 of 64, "
            f"192, 384, 256 and 256 numbers. Received: {sizes or sorted(found)[:5]}"
        )
    return [found[f"lin{number}"] for number in range(5)]
