"""Grouped convolution: the two towers of the 2012 network in one layer."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_alexnet.registry import register_layer


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
        kernel = tf.convert_to_tensor(kernel)
        if self.groups == 1:
            return self._convolve(inputs, kernel)
        # One convolution for each tower. tf.nn.conv2d can do all at once, but on CPUs
        # its gradient then depends on oneDNN, which not every build and dtype has, and
        # is no faster.
        axis = -1 if self.data_format == "channels_last" else 1
        towers = zip(
            tf.split(inputs, self.groups, axis),
            tf.split(kernel, self.groups, axis=-1),
            strict=True,
        )
        return tf.concat([self._convolve(*tower) for tower in towers], axis)

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding.upper(),
            data_format=self._tf_data_format,
            dilations=self.dilation_rate,
        )

    @property
    def _tf_data_format(self) -> str:
        return "NHWC" if self.data_format == "channels_last" else "NCHW"
