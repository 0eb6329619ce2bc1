"""Random changes of training images.

Each is a pure function of the image and of numbers that are drawn for it.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The random changes that a training image goes through.

    The 2012 scheme (paper section 4.1) is a random crop, a random reflection and colour
    noise; rotation and zoom suit small drawings such as digits.

    Attributes:
        image_size: Height and width of the crop, in pixels.
        crop_padding: Zeros added on each side first, in pixels.
        horizontal_flip: Whether half of the images are mirrored.
        rotation: Largest angle either way, in degrees.
        zoom: Largest change of scale either way, as a fraction.
        color_noise: Standard deviation of the noise along each colour axis, in units of
            the axis's own; 0 for none.
        color_axes: The principal axes of the training images' colours, one a row, each
            as long as the standard deviation along it (grey levels).
    """

    image_size: int
    crop_padding: int = 0
    horizontal_flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    color_noise: float = 0.0
    color_axes: tuple[tuple[float, ...], ...] = ()

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Changes one image.

        Args:
            image: float32, `(height, width, channels)`, 0-255.
            seed: Two integers that decide everything.

        Returns:
            float32, `(image_size, image_size, channels)`; colour noise may lead out of
            0-255.
        """
        # All random numbers at once: each call costs more than the numbers.
        uniform = tf.random.stateless_uniform((5,), seed, alg="philox")
        if self.rotation or self.zoom:
            image = rotate_and_zoom(
                image,
                angle=(2 * uniform[0] - 1) * (self.rotation * math.pi / 180),
                scale=1 + (2 * uniform[1] - 1) * self.zoom,
            )
        image = crop(image, self.image_size, self.crop_padding, uniform[2], uniform[3])
        if self.horizontal_flip:
            image = tf.where(uniform[4] < 0.5, image[:, ::-1], image)
        if self.color_noise and self.color_axes:
            alphas = tf.random.stateless_normal((3,), seed + [1, 0], alg="philox")
            image += color_shift(alphas * self.color_noise, self.color_axes)
        return image


def crop(
    image: tf.Tensor,
    size: int,
    padding: int,
    vertical: tf.Tensor,
    horizontal: tf.Tensor,
) -> tf.Tensor:
    """Cuts a square out of an image with a border of zeros.

    Args:
        image: `(height, width, channels)`.
        size: Height and width of the square.
        padding: Width of the border on each side.
        vertical: Where the square lies, from 0 (top) to 1 (exclusive, bottom).
        horizontal: The same from left to right.

    Returns:
        `(size, size, channels)`. Uniform numbers give each possible offset the same
        probability.
    """
    image = tf.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    height, width = tf.unstack(tf.shape(image)[:2])
    top = tf.cast(vertical * tf.cast(height - size + 1, tf.float32), tf.int32)
    left = tf.cast(horizontal * tf.cast(width - size + 1, tf.float32), tf.int32)
    return tf.image.crop_to_bounding_box(image, top, left, size, size)


def rotate_and_zoom(image: tf.Tensor, angle: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Turns an image about its centre and enlarges it, with bilinear interpolation.

    Args:
        image: float32, `(height, width, channels)`.
        angle: Counter-clockwise, in radians.
        scale: Above 1 enlarges.

    Returns:
        float32 of the same shape; what comes from outside the image is 0.
    """
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    # From each pixel of the result to where it comes from.
    transform = tf.stack(
        [
            cosine,
            -sine,
            center_x - cosine * center_x + sine * center_y,
            sine,
            cosine,
            center_y - sine * center_x - cosine * center_y,
            0.0,
            0.0,
        ]
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=transform[None],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]


def color_shift(
    alphas: tf.Tensor, color_axes: tuple[tuple[float, ...], ...]
) -> tf.Tensor:
    """Returns the colour that noise adds to every pixel of an image.

    The paper writes [p1 p2 p3][a1 l1, a2 l2, a3 l3]^T, with p the eigenvectors and l
    the eigenvalues of the colours' covariance. The program took standard deviations,
    the eigenvalues' square roots, without which the noise would be a hundred times as
    large; so does this.

    Args:
        alphas: One number per axis.
        color_axes: The axes, one a row, as long as the standard deviation along each.

    Returns:
        float32, `(3,)`, in grey levels.
    """
    return tf.linalg.matvec(
        tf.constant(color_axes, tf.float32), alphas, transpose_a=True
    )
