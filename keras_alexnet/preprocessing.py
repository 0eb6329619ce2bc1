"""From an image file to a network's input.

The same steps in training, evaluation and export, described by one value that travels
with the model.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

# Rec. 601, as in JPEG itself.
LUMINANCE = (0.299, 0.587, 0.114)


def decode(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes JPEG, PNG, GIF (its first frame) or BMP.

    Args:
        encoded: The file's bytes, a scalar string.
        channels: 1 for grey, 3 for RGB. Alpha is left out.

    Returns:
        A uint8 image of shape `(height, width, channels)`.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are no such image.
    """
    # In colour always: TensorFlow refuses one channel of a GIF, a BMP or a CMYK JPEG.
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image = tf.ensure_shape(image, (None, None, 3))
    if channels == 1:
        grey = tf.tensordot(tf.cast(image, tf.float32), LUMINANCE, axes=1)
        image = tf.cast(tf.round(grey), tf.uint8)[..., None]
    return image


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its input.

    An image is decoded, its shorter side resized to `resize_size`, the centre square
    cut out, and of that the centre of `image_size` (in training, a random part). Pixels
    are on a scale of 0-255; the network sees `(pixel - mean) * scale`.

    Attributes:
        image_size: Height and width of the network's input, in pixels.
        resize_size: Length of the shorter side after resizing, in pixels.
        channels: 1 for grey, 3 for RGB.
        mean: Mean of the training images, one number per channel.
        scale: What mean-free pixels are multiplied by.
    """

    image_size: int
    resize_size: int
    channels: int
    mean: tuple[float, ...]
    scale: float

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decodes JPEG, PNG, GIF (its first frame) or BMP.

        Args:
            encoded: The file's bytes, a scalar string.

        Returns:
            A uint8 image of shape `(height, width, channels)`.

        Raises:
            tf.errors.InvalidArgumentError: The bytes are no such image.
        """
        return decode(encoded, self.channels)

    def resize(self, image: tf.Tensor) -> tf.Tensor:
        """Resizes the shorter side to `resize_size` and cuts out the centre square.

        Args:
            image: `(height, width, channels)`, any real dtype, 0-255.

        Returns:
            float32, `(resize_size, resize_size, channels)`, 0-255.
        """
        size = self.resize_size
        height, width = tf.unstack(tf.shape(image)[:2])
        shorter = tf.minimum(height, width)
        # The centre square first: the same pixels, and fewer of them to resize.
        image = image[
            (height - shorter) // 2 : (height - shorter) // 2 + shorter,
            (width - shorter) // 2 : (width - shorter) // 2 + shorter,
        ]
        image = tf.image.resize(image, (size, size), antialias=True)
        return tf.ensure_shape(image, (size, size, self.channels))

    def center_crop(self, image: tf.Tensor) -> tf.Tensor:
        """Cuts the network's input out of the middle of a resized image.

        Args:
            image: `(resize_size, resize_size, channels)`.

        Returns:
            `(image_size, image_size, channels)`.
        """
        return tf.image.resize_with_crop_or_pad(image, self.image_size, self.image_size)

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """Subtracts the mean and scales.

        Args:
            images: `(..., channels)`, any real dtype, 0-255.

        Returns:
            float32 of the same shape: what the network takes.
        """
        return (tf.cast(images, tf.float32) - self.mean) * self.scale
