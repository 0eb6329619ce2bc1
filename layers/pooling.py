"""Max pooling whose windows overlap."""

from __future__ import annotations

import warnings
from typing import Literal

import keras
import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.registry import register_layer


@register_layer("overlapping_max_pooling")
class OverlappingMaxPooling2D(keras.layers.MaxPooling2D):
    """2D max pooling with overlapping windows (paper section 3.4).

    Args:
        pool_size: Height and width of the window; an int for both. Defaults to 3.
        strides: Step between windows; an int for both. Defaults to 2.
        rounding: What happens to a last, incomplete window under `padding="valid"`:
            `"floor"` leaves it out (TensorFlow, PyTorch), `"ceil"` keeps it, clipped to
            the image (cuda-convnet, Caffe). Defaults to `"floor"`.
        padding: `"valid"` or `"same"`. Defaults to `"valid"`.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `keras.config.image_data_format()`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)`.

    Output shape:
        Height and width become `(size - pool_size) / strides + 1`, rounded down or up.

    Raises:
        ValueError: `strides` is larger than `pool_size`, which would skip pixels;
            `rounding="ceil"` with `padding="same"`.

    Warns:
        UserWarning: `strides` equals `pool_size`, so that windows do not overlap.

    Example:
    >>> OverlappingMaxPooling2D()(np.zeros((1, 55, 55, 96), "float32")).shape
    TensorShape([1, 27, 27, 96])
    >>> OverlappingMaxPooling2D(rounding="ceil")(np.zeros((1, 54, 54, 8))).shape
    TensorShape([1, 27, 27, 8])
    """

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 3,
        strides: int | tuple[int, int] = 2,
        rounding: Literal["floor", "ceil"] = "floor",
        padding: Literal["valid", "same"] = "valid",
        data_format: str | None = None,
        **kwargs,
    ):
        super().__init__(
            pool_size, strides, padding=padding, data_format=data_format, **kwargs
        )
        if rounding not in ("floor", "ceil"):
            raise UserError(
                f"rounding must be 'floor' or 'ceil'. Received: rounding={rounding!r}"
            )
        if rounding == "ceil" and padding == "same":
            raise UserError(
                "rounding='ceil' is about incomplete windows, and padding='same' "
                "leaves none. Use padding='valid'."
            )
        for size, stride in zip(self.pool_size, self.strides, strict=True):
            if stride > size:
                raise UserError(
                    "strides larger than pool_size would skip pixels. Received: "
                    f"pool_size={self.pool_size}, strides={self.strides}"
                )
        if self.strides == self.pool_size:
            warnings.warn(
                f"Windows of {self.pool_size} with strides of {self.strides} do not "
                "overlap.",
                stacklevel=2,
            )
        self.rounding = rounding

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the maximum of each window."""
        if self.rounding == "ceil":
            inputs = self._pad_to_whole_windows(inputs)
        return super().call(inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape of the output for an input of `input_shape`."""
        if self.rounding == "ceil":
            padding = self._missing(input_shape)
            input_shape = tuple(
                None if size is None else size + extra
                for size, extra in zip(input_shape, padding, strict=True)
            )
        return super().compute_output_shape(input_shape)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "rounding": self.rounding}

    def _missing(self, shape: tuple) -> list:
        """Pixels that the last window lacks at the end of each axis of `shape`."""
        missing = [0] * 4
        first = 1 if self.data_format == "channels_last" else 2
        for axis, size, stride in zip(
            (first, first + 1), self.pool_size, self.strides, strict=True
        ):
            if shape[axis] is not None:
                missing[axis] = (size - shape[axis]) % stride
        return missing

    def _pad_to_whole_windows(self, inputs: tf.Tensor) -> tf.Tensor:
        # Minus infinity loses against every pixel, as if the window were clipped. No
        # window can lie beyond the image, because less than a stride is added and a
        # stride is at most a window.
        shape = [
            dynamic if static is None else static
            for static, dynamic in zip(
                inputs.shape, tf.unstack(tf.shape(inputs)), strict=True
            )
        ]
        padding = [[0, extra] for extra in self._missing(shape)]
        return tf.pad(inputs, padding, constant_values=float("-inf"))
