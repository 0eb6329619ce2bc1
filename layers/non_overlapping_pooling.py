"""Max pooling whose windows lie side by side."""

from __future__ import annotations

from typing import Literal

import keras
import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.registry import register_layer


@register_layer("non_overlapping_max_pooling")
class NonOverlappingMaxPooling2D(keras.layers.MaxPooling2D):
    """2D max pooling that the paper compares its overlapping windows with.

    Paper section 3.4: windows of 2x2 with strides of 2 instead of windows of 3x3, for
    an output of the same size. So each window is as large as its stride, and there are
    as many windows as those of `pool_size` would be, for images of any size: the layers
    behind keep their number of weights.

    Args:
        pool_size: Height and width of the overlapping windows that these stand in for;
            an int for both. Decides how many windows there are. Defaults to 3.
        strides: Height and width of the windows, and the step between them; an int for
            both. Defaults to 2.
        padding: `"valid"` or `"same"`. Defaults to `"valid"`.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `keras.config.image_data_format()`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)`.

    Output shape:
        Height and width become `(size - pool_size) / strides + 1`, rounded down.

    Raises:
        ValueError: `strides` is larger than `pool_size`.

    Example:
    >>> NonOverlappingMaxPooling2D()(np.zeros((1, 55, 55, 96), "float32")).shape
    TensorShape([1, 27, 27, 96])
    """

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 3,
        strides: int | tuple[int, int] = 2,
        padding: Literal["valid", "same"] = "valid",
        data_format: str | None = None,
        **kwargs,
    ):
        super().__init__(
            pool_size, strides, padding=padding, data_format=data_format, **kwargs
        )
        for size, stride in zip(self.pool_size, self.strides, strict=True):
            if stride > size:
                raise UserError(
                    "pool_size must be at least strides. Received: "
                    f"pool_size={self.pool_size}, strides={self.strides}"
                )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the maximum of each window."""
        if self.padding == "valid":
            # What only the overlapping windows would reach, so that no window more
            # fits in than there are of those.
            height, width = (
                slice(stride - size or None)
                for size, stride in zip(self.pool_size, self.strides, strict=True)
            )
            if self.data_format == "channels_last":
                inputs = inputs[:, height, width, :]
            else:
                inputs = inputs[:, :, height, width]
        return keras.ops.max_pool(
            inputs,
            self.strides,
            self.strides,
            padding=self.padding,
            data_format=self.data_format,
        )
