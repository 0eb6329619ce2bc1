"""Grouped convolution: the two towers of the 2012 network in one layer."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.layers.implementations import choose, device_kind, has_onednn
from keras_alexnet.registry import register_layer

IMPLEMENTATIONS = ("split", "native")
STRIDED_IMPLEMENTATIONS = ("direct", "space_to_depth")
# Images have few channels, of which a GPU's matrix units make poor use.
MAX_IMAGE_CHANNELS = 4


@register_layer("grouped_conv")
class GroupedConv2D(keras.layers.Conv2D):
    """2D convolution in which each group of filters sees its own input channels.

    With `groups=2` this is the split over two GPUs of the 2012 network: input and
    output channels are ordered tower a, then tower b, and the first half of the filters
    reads the first half of the channels only.

    The mathematics is that of `keras.layers.Conv2D(groups=...)`. The difference is that
    Keras forces every grouped convolution through XLA, which is several times slower on
    CPUs and leaves a jitted function in exported models; this layer calls TensorFlow's
    own convolution.

    Args:
        filters: Number of output channels, over all groups.
        kernel_size: Height and width of the window; an int for both.
        groups: Number of towers. Divides both the input channels and `filters`.
            Defaults to 2.
        **kwargs: All other arguments of `keras.layers.Conv2D`.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` with
        `data_format="channels_first"`.

    Output shape:
        The same with `filters` channels and the height and width that
        `keras.layers.Conv2D` gives.

    Raises:
        ValueError: `groups` does not divide the channels or `filters`.

    Example:
    >>> layer = GroupedConv2D(256, 5, groups=2, padding="same")
    >>> layer(np.zeros((1, 27, 27, 96), "float32")).shape
    TensorShape([1, 27, 27, 256])
    >>> layer.kernel.shape
    (5, 5, 48, 256)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        *,
        groups: int = 2,
        **kwargs,
    ):
        super().__init__(filters, kernel_size, groups=groups, **kwargs)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the convolution, with bias and activation."""
        outputs = self.convolution_op(inputs, self.kernel)
        if self.use_bias:
            # Not keras.ops.add, which takes the bias for one along the width where the
            # width happens to equal the number of filters in channels_first.
            bias = tf.convert_to_tensor(self.bias)
            outputs = tf.nn.bias_add(outputs, bias, self._tf_data_format)
        return outputs if self.activation is None else self.activation(outputs)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolves `inputs` with a kernel of (height, width, in / groups, out)."""
        return grouped_convolution(
            inputs,
            tf.convert_to_tensor(kernel),
            groups=self.groups,
            strides=self.strides,
            padding=self.padding,
            dilations=self.dilation_rate,
            channels_last=self.data_format == "channels_last",
        )

    @property
    def _tf_data_format(self) -> str:
        return "NHWC" if self.data_format == "channels_last" else "NCHW"


def grouped_convolution(
    x: tf.Tensor,
    kernel: tf.Tensor,
    *,
    groups: int,
    strides: int | tuple[int, int] = 1,
    padding: str = "valid",
    dilations: int | tuple[int, int] = 1,
    channels_last: bool = True,
    implementation: str | None = None,
) -> tf.Tensor:
    """Convolves each of `groups` equal parts of the channels with its own filters.

    The function behind `GroupedConv2D`.

    Args:
        x: `(batch, height, width, channels)`, or with the channels on axis 1.
        kernel: `(height, width, channels / groups, filters)`; its filters are ordered
            by group.
        groups: Number of parts.
        strides: Steps down and across.
        padding: `"valid"` or `"same"`.
        dilations: Distances between the kernel's elements.
        channels_last: Whether channels are on the last axis, or else on axis 1.
        implementation: Of a grouped convolution `"split"`: a convolution for each
            group; `"native"`: TensorFlow's grouped convolution, whose gradient on CPUs
            needs oneDNN, and for bfloat16 AVX-512. Of one with strides over an image,
            without groups, `"direct"`, or `"space_to_depth"`: blocks of as many pixels
            as the strides become channels first. By default what
            `layers/implementations.py` names.

    Returns:
        `(batch, height, width, filters)`, or with the filters on axis 1.

    Raises:
        ValueError: There is no such implementation.
    """
    if not channels_last and not _takes_channels_first(x):
        y = grouped_convolution(
            tf.transpose(x, (0, 2, 3, 1)),
            kernel,
            groups=groups,
            strides=strides,
            padding=padding,
            dilations=dilations,
            implementation=implementation,
        )
        return tf.transpose(y, (0, 3, 1, 2))
    image = (
        groups == 1
        and channels_last
        and None not in x.shape[1:]
        and x.shape[3] <= MAX_IMAGE_CHANNELS
        and min(_pair(strides)) > 1
        and _pair(dilations) == (1, 1)
    )
    known = STRIDED_IMPLEMENTATIONS if image else IMPLEMENTATIONS
    operation = "strided_conv" if image else "grouped_conv"
    implementation = implementation or choose(operation, x)
    if implementation not in known:
        raise UserError(
            f"implementation must be one of {', '.join(known)}. "
            f"Received: {implementation}"
        )
    if implementation == "space_to_depth":
        return _space_to_depth_convolution(x, kernel, _pair(strides), padding)
    convolve = functools.partial(
        _convolve,
        strides=strides,
        padding=padding.upper(),
        data_format="NHWC" if channels_last else "NCHW",
        dilations=dilations,
    )
    if groups == 1 or implementation == "native":
        return convolve(x, kernel)
    axis = -1 if channels_last else 1
    parts = zip(tf.split(x, groups, axis), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([convolve(*part) for part in parts], axis)


def _takes_channels_first(x: tf.Tensor) -> bool:
    """Says whether TensorFlow convolves `x` with the channels first."""
    return device_kind(x) == "GPU" or has_onednn(x.dtype)


def _convolve(
    x: tf.Tensor, kernel: tf.Tensor, dilations: int | tuple[int, int], **options: object
) -> tf.Tensor:
    """Does as `tf.nn.conv2d`, with a gradient for dilated kernels in 16 bits too.

    On CPUs only oneDNN has that gradient, for bfloat16 with AVX-512: else the
    convolution is one of float32.
    """
    narrow = x.dtype in (tf.float16, tf.bfloat16) and device_kind(x) == "CPU"
    if _pair(dilations) == (1, 1) or not narrow or has_onednn(x.dtype):
        return tf.nn.conv2d(x, kernel, dilations=dilations, **options)
    wide = (tf.cast(one, tf.float32) for one in (x, kernel))
    return tf.cast(tf.nn.conv2d(*wide, dilations=dilations, **options), x.dtype)


def _space_to_depth_convolution(
    x: tf.Tensor, kernel: tf.Tensor, strides: tuple[int, int], padding: str
) -> tf.Tensor:
    """Convolves with strides as if without, over blocks of strides[0] x strides[1].

    The kernel gets zeros up to a whole number of blocks, so conv1 of AlexNet, 11 x 11
    over 3 channels with strides of 4, becomes 3 x 3 over 48 channels. (As in MLPerf's
    ResNet-50: https://arxiv.org/abs/1909.09756, section 3.)
    """
    borders, blocks = [], []
    for size, length, stride in zip(x.shape[1:3], kernel.shape, strides, strict=False):
        whole = -(-length // stride)  # Blocks that the kernel spans.
        if padding.lower() == "same":
            outputs = -(-size // stride)
            before = max((outputs - 1) * stride + length - size, 0) // 2
        else:
            outputs, before = (size - length) // stride + 1, 0
        after = (outputs - 1 + whole) * stride - size - before
        borders.append((before, after))
        blocks.append(whole)
    (top, bottom), (left, right) = borders
    # A valid convolution may leave pixels at the end unread: a negative border.
    x = x[:, : bottom if bottom < 0 else None, : right if right < 0 else None]
    x = tf.pad(x, ((0, 0), (top, max(bottom, 0)), (left, max(right, 0)), (0, 0)))
    (rows, columns), (down, across) = blocks, strides
    channels, filters = kernel.shape[2:]
    height, width = x.shape[1] // down, x.shape[2] // across
    depth = down * across * channels
    x = tf.reshape(x, (-1, height, down, width, across, channels))
    x = tf.reshape(tf.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height, width, depth))
    borders = [
        (0, whole * stride - length)
        for whole, stride, length in zip(blocks, strides, kernel.shape, strict=False)
    ]
    kernel = tf.pad(kernel, (*borders, (0, 0), (0, 0)))
    kernel = tf.reshape(kernel, (rows, down, columns, across, channels, filters))
    kernel = tf.transpose(kernel, (0, 2, 1, 3, 4, 5))
    kernel = tf.reshape(kernel, (rows, columns, depth, filters))
    return tf.nn.conv2d(x, kernel, 1, "VALID")


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
