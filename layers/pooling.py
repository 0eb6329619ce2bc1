"""Max pooling with overlapping windows, and with windows that lie side by side."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Sequence
from typing import Literal

import keras
import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.layers.implementations import choose
from keras_alexnet.registry import register_layer

IMPLEMENTATIONS = ("native", "argmax")


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
        _check_strides(self)
        if self.strides == self.pool_size:
            warnings.warn(
                f"Windows of {self.pool_size} with strides of {self.strides} do not "
                "overlap.",
                stacklevel=2,
            )
        self.rounding = rounding

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the maximum of each window."""
        spatial = (1, 2) if self.data_format == "channels_last" else (2, 3)
        # Only its gradient is faster.
        positions = training and choose("max_pool", inputs, training) == "argmax"
        positions = positions and all(inputs.shape[axis] for axis in spatial)
        if self.rounding == "ceil" or (positions and self.padding == "same"):
            # Minus infinity loses against every pixel, as if the window were clipped.
            # No window can lie beyond the image, because less than a stride is added
            # and a stride is at most a window.
            shape = tf.unstack(tf.shape(inputs))
            shape = [n or shape[axis] for axis, n in enumerate(inputs.shape)]
            padding = self._borders(shape)
            inputs = tf.pad(inputs, padding, constant_values=float("-inf"))
        if not positions:
            return super().call(inputs)
        pool = _argmax_pooling(tuple(self.pool_size), tuple(self.strides), spatial)
        return pool(inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape of the output for an input of `input_shape`."""
        if self.rounding == "ceil":
            borders = self._borders(input_shape)
            input_shape = tuple(
                None if size is None else size + sum(border)
                for size, border in zip(input_shape, borders, strict=True)
            )
        return super().compute_output_shape(input_shape)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "rounding": self.rounding}

    def _borders(self, shape: Sequence) -> list[tuple]:
        """Pixels to add before and after each axis, so that all windows are whole."""
        borders = [(0, 0)] * 4
        first = 1 if self.data_format == "channels_last" else 2
        for axis, size, stride in zip(
            (first, first + 1), self.pool_size, self.strides, strict=True
        ):
            length = shape[axis]
            if length is not None and self.padding == "same":
                total = max((-(-length // stride) - 1) * stride + size - length, 0)
                borders[axis] = (total // 2, total - total // 2)
            elif length is not None:
                borders[axis] = (0, (size - length) % stride)
        return borders


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
        _check_strides(self)

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


def _check_strides(layer: keras.layers.MaxPooling2D) -> None:
    if any(s > size for s, size in zip(layer.strides, layer.pool_size, strict=True)):
        raise UserError(
            "strides larger than pool_size would skip pixels. Received: "
            f"pool_size={layer.pool_size}, strides={layer.strides}"
        )


# Made once for each kind of window; holds no variables and may be shared by replicas.
@functools.cache
def _argmax_pooling(
    pool_size: tuple[int, int], strides: tuple[int, int], spatial: tuple[int, int]
):
    """Makes max pooling that keeps where each maximum was, compiled by XLA.

    XLA's own gradient searches each window again and scatters into it with atomic
    additions. Here the position in the window, one byte, is kept from the forward
    pass, and each pixel gathers from the few windows that hold it: a quarter of the
    time on a GPU, and deterministic. Of equal maxima the first has the gradient.

    Args:
        pool_size: Height and width of a window.
        strides: Steps between windows.
        spatial: The axes of height and width.

    Returns:
        A function of images of known height and width, padded already.
    """
    compiled = functools.partial(tf.function, jit_compile=True, autograph=False)
    offsets = list(itertools.product(*map(range, pool_size)))

    @compiled
    def forward(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        counts = [
            (x.shape[axis] - size) // step + 1
            for axis, size, step in zip(spatial, pool_size, strides, strict=True)
        ]
        largest, where = None, None
        for number, offset in enumerate(offsets):
            index = [slice(None)] * 4
            for axis, first, step, count in zip(
                spatial, offset, strides, counts, strict=True
            ):
                index[axis] = slice(first, first + (count - 1) * step + 1, step)
            candidate = x[tuple(index)]
            if largest is None:
                largest, where = candidate, tf.zeros(tf.shape(candidate), tf.uint8)
                continue
            better = (candidate > largest) | tf.math.is_nan(candidate)
            largest = tf.where(better, candidate, largest)
            where = tf.where(better, tf.constant(number, tf.uint8), where)
        return largest, where

    @functools.cache
    def backward(size: tuple[int, int]):
        return compiled(
            functools.partial(
                _scatter_to_maxima, size, pool_size, strides, spatial, offsets
            )
        )

    @tf.custom_gradient
    def pool(x: tf.Tensor):
        largest, where = forward(x)
        gradient = backward(tuple(x.shape[axis] for axis in spatial))
        return largest, lambda dy: gradient(dy, where)

    return pool


def _scatter_to_maxima(
    size: tuple[int, int],
    pool_size: tuple[int, int],
    strides: tuple[int, int],
    spatial: tuple[int, int],
    offsets: list[tuple[int, int]],
    dy: tf.Tensor,
    where: tf.Tensor,
) -> tf.Tensor:
    """Adds each window's gradient to the pixel that was its maximum.

    Pixels whose row and column have the same remainders by the strides form a plane of
    the size of the output; a window adds to one place of one plane. The planes are
    added up in float32 and interleaved.
    """
    reach = [(k - 1) // s for k, s in zip(pool_size, strides, strict=True)]
    zero = tf.zeros((), dy.dtype)
    planes: dict[tuple[int, int], list[tf.Tensor]] = {}
    for number, offset in enumerate(offsets):
        part = tf.cast(tf.where(where == number, dy, zero), tf.float32)
        padding = [[0, 0]] * 4
        for axis, first, step, most in zip(
            spatial, offset, strides, reach, strict=True
        ):
            padding[axis] = [first // step, most - first // step]
        plane = tuple(o % s for o, s in zip(offset, strides, strict=True))
        planes.setdefault(plane, []).append(tf.pad(part, padding))
    rows = [
        tf.stack(
            [tf.add_n(planes[down, across]) for across in range(strides[1])],
            spatial[1] + 1,
        )
        for down in range(strides[0])
    ]
    dx = tf.stack(rows, spatial[0] + 1)
    shape = [tf.shape(dy)[axis] for axis in range(4)]
    padding, index = [[0, 0]] * 4, [slice(None)] * 4
    for axis, length, step, most in zip(spatial, size, strides, reach, strict=True):
        covered = (dy.shape[axis] + most) * step
        shape[axis] = covered
        padding[axis] = [0, max(length - covered, 0)]
        index[axis] = slice(length)
    dx = tf.pad(tf.reshape(dx, shape)[tuple(index)], padding)
    return tf.cast(dx, dy.dtype)
