"""Average pooling to a fixed size."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.registry import register_layer


@register_layer("adaptive_average_pooling")
class AdaptiveAveragePooling2D(keras.layers.Layer):
    """Averages an image of any size down, or repeats it up, to a fixed size.

    Output row i is the mean of the input rows from floor(i * height / rows) to
    ceil((i + 1) * height / rows), and columns alike, as in PyTorch, whose AlexNet does
    it between pool5 and fc6. An image of that size already passes unchanged.

    `keras.layers.AdaptiveAveragePooling2D` is the same; Keras has it since 3.13 only.

    Args:
        output_size: Height and width of the output, in pixels; an int for both.
            Defaults to 6.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `keras.config.image_data_format()`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)`.

    Output shape:
        The same with height and width of `output_size`.

    Raises:
        ValueError: `output_size` is not positive.

    Example:
    >>> x = np.arange(4, dtype="float32").reshape(1, 4, 1, 1)
    >>> AdaptiveAveragePooling2D((2, 1))(x).numpy().ravel()
    array([0.5, 2.5], dtype=float32)
    """

    def __init__(
        self,
        output_size: int | tuple[int, int] = 6,
        data_format: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if isinstance(output_size, int):
            output_size = (output_size, output_size)
        if len(output_size) != 2 or min(output_size) < 1:
            raise UserError(
                "output_size must be one or two positive numbers. Received: "
                f"output_size={output_size}"
            )
        if data_format not in (None, "channels_last", "channels_first"):
            raise UserError(
                "data_format must be 'channels_last' or 'channels_first'. Received: "
                f"data_format={data_format!r}"
            )
        self.output_size = tuple(output_size)
        self.data_format = data_format or keras.config.image_data_format()
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the mean of each cell; computed in float32."""
        x = tf.cast(inputs, tf.float32)
        first = 1 if self.data_format == "channels_last" else 2
        for axis, size in zip((first, first + 1), self.output_size, strict=True):
            if inputs.shape[axis] != size:
                length = inputs.shape[axis] or tf.shape(inputs)[axis]
                x = _average(x, cells(length, size), axis)
        return tf.cast(x, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape` with the new height and width."""
        height, width = self.output_size
        if self.data_format == "channels_last":
            return (input_shape[0], height, width, input_shape[3])
        return (input_shape[0], input_shape[1], height, width)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "data_format": self.data_format,
        }


def cells(length: int | tf.Tensor, cells: int) -> tf.Tensor:
    """Returns the (length, cells) matrix whose columns average one cell each."""
    index = tf.range(cells)
    first = index * length // cells
    end = -(-(index + 1) * length // cells)
    position = tf.range(length)[:, None]
    inside = tf.cast((position >= first) & (position < end), tf.float32)
    return inside / tf.cast(end - first, tf.float32)


def _average(x: tf.Tensor, cells: tf.Tensor, axis: int) -> tf.Tensor:
    source = "abcd"
    target = source.replace(source[axis], "x")
    return tf.einsum(f"{source},{source[axis]}x->{target}", x, cells)
