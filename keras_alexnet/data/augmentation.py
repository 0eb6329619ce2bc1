"""Random changes of training images.

Each is a pure function of images and of numbers that are drawn for them, so that a
seed and a position in training decide everything, on the host and on a device.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import keras
import tensorflow as tf

from keras_alexnet.data.draws import normal, uniform
from keras_alexnet.images.mean_image import MeanImage
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.images.resizing import Window, resize_window

# Of a random resized crop: the least share of the area, and the largest ratio of its
# sides (Inception; torchvision's and timm's defaults too).
LEAST_AREA = 0.08
LARGEST_ASPECT = 4 / 3

# Largest change of brightness, as a share of white, and of contrast and saturation, as
# a factor either way.
BRIGHTNESS = 0.2
CONTRAST = 0.4
SATURATION = 0.4

# How many uniform numbers are drawn for an image, and how many numbers in all: with the
# colour that is added, and its strength.
UNIFORM = 9
NUMBERS = UNIFORM + 4


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The random changes that a training image goes through.

    The 2012 scheme (paper section 4.1) is a random crop, a random reflection and colour
    noise; rotation and zoom suit small drawings such as digits. The modern one is a
    random part of random size, a reflection, and jitter of brightness, contrast and
    saturation by Keras's layers.

    Attributes:
        image_size: Height and width of the crop, in pixels.
        crop_padding: Zeros added on each side first, in pixels.
        horizontal_flip: Whether half of the images are mirrored.
        rotation: Largest angle either way, in degrees.
        zoom: Largest change of scale either way, as a fraction.
        color_noise: Standard deviation of the noise along each colour axis, in units of
            the axis's own; 0 for none. Several numbers are those of the first epochs,
            of which the last remains.
        color_axes: The principal axes of the training images' colours, one a row, each
            as long as the standard deviation along it (grey levels).
        color_mean: None for the paper's noise, which is added. The training images'
            mean pixel or mean image for that of the 2012 program, which divides what
            is left of an image without the mean by 1 + `color_noise`.
        modern: Whether the scheme is the modern one; its crops come from the whole
            resized image, without padding, rotation, zoom and colour noise.
    """

    image_size: int
    crop_padding: int = 0
    horizontal_flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    color_noise: float | tuple[float, ...] = 0.0
    color_axes: tuple[tuple[float, ...], ...] = ()
    color_mean: tuple[float, ...] | MeanImage | None = None
    modern: bool = False

    def draw(
        self, seed: tf.Tensor, epochs: tf.Tensor | tuple[int, ...] = (0,)
    ) -> tf.Tensor:
        """Draws the random numbers for images at consecutive positions in training.

        Args:
            seed: The seed, and the position of the first image.
            epochs: `(count,)`, which one each position is in, from 0; decides the
                strength of the colour noise.

        Returns:
            float32, `(count, NUMBERS)`: uniform numbers, and for the colour noise the
            colour that is added, and its strength.
        """
        count = tf.size(epochs)
        numbers = uniform(seed, count, UNIFORM)
        if not self._has_color_noise:
            return tf.concat([numbers, tf.zeros((count, 4))], axis=1)
        strengths = tf.reshape(tf.constant(self.color_noise, tf.float32), (-1,))
        last = tf.size(strengths) - 1
        strength = tf.gather(strengths, tf.minimum(tf.cast(epochs, tf.int32), last))
        alphas = normal(seed, count, 3) * strength[:, None]
        # The paper writes [p1 p2 p3][a1 l1, a2 l2, a3 l3]^T, with p the eigenvectors
        # and l the eigenvalues of the colours' covariance. The program took standard
        # deviations, the eigenvalues' square roots, without which the noise would be
        # a hundred times as large; so does this.
        axes = tf.constant(self.color_axes, tf.float32)
        shift = tf.linalg.matvec(axes, alphas, transpose_a=True)
        return tf.concat([numbers, shift, strength[:, None]], axis=1)

    def of_file(
        self, encoded: tf.Tensor, preprocessing: Preprocessing, draws: tf.Tensor
    ) -> tf.Tensor:
        """Makes a network's input of one image, without work for what is cut away.

        Args:
            encoded: The file's bytes, a scalar string.
            preprocessing: What the network expects.
            draws: From `draw`, a row.

        Returns:
            `preprocessing.normalize` of what `batch` makes of the image when it is
            decoded and resized, but for rounding.

        Raises:
            tf.errors.InvalidArgumentError: The bytes are no image.
        """
        image = self._placed_file(encoded, preprocessing, draws)
        if self.modern or self.color_mean is not None:
            return preprocessing.normalize(self._colors(image[None], draws[None])[0])
        # The mean and the noise's colour are subtracted as one.
        shift = draws[UNIFORM : UNIFORM + 3] if self._has_color_noise else None
        return preprocessing.normalize(image, shift)

    def batch(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Changes images, on any device.

        Args:
            images: Any real dtype, `(batch, height, width, channels)`, 0-255.
            draws: From `draw`, one row for each.

        Returns:
            float32, `(batch, image_size, image_size, channels)`.
        """
        return self._colors(self._placed(images, draws), draws)

    @property
    def _has_color_noise(self) -> bool:
        strengths = self.color_noise
        strengths = strengths if isinstance(strengths, tuple) else (strengths,)
        return any(strengths) and bool(self.color_axes) and not self.modern

    def _part(self, shape: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the corner of the part that is used, and its height and width."""
        shape = tf.cast(shape, tf.float32)
        if not self.modern:
            extent = tf.fill((2,), float(self.image_size))
            return tf.floor(draws[2:4] * (shape - extent + 1)), extent
        area = tf.reduce_prod(shape) * (LEAST_AREA + draws[0] * (1 - LEAST_AREA))
        aspect = tf.exp((2 * draws[1] - 1) * math.log(LARGEST_ASPECT))
        extent = tf.sqrt(tf.stack([area / aspect, area * aspect]))
        extent = tf.minimum(extent, shape)
        return draws[2:4] * (shape - extent), extent

    def _placed_file(
        self, encoded: tf.Tensor, preprocessing: Preprocessing, draws: tf.Tensor
    ) -> tf.Tensor:
        """Decodes and resizes the part of a file that is used."""
        if self.crop_padding or self.rotation or self.zoom:
            image = preprocessing.resize(preprocessing.decode(encoded))
            return self._placed(image[None], draws[None])[0]
        corner, extent = self._part(tf.fill((2,), preprocessing.resize_size), draws)
        return preprocessing.part_of_file(
            encoded,
            corner,
            self.image_size,
            # Of the 2012 scheme the part is as large as the result.
            extent=extent if self.modern else None,
            mirrored=draws[4] < 0.5 if self.horizontal_flip else False,
        )

    def _placed(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns the parts of images that are used, turned, zoomed and mirrored."""
        if self.modern:
            # Windows of different sizes; rows of pixels are what the kernel is fast on.
            return tf.map_fn(
                lambda pair: self._resized_part(*pair),
                (images, draws),
                fn_output_signature=tf.float32,
            )
        if self.rotation or self.zoom:
            images = _rotate_and_zoom(
                tf.cast(images, tf.float32),
                angle=(2 * draws[:, 0] - 1) * (self.rotation * math.pi / 180),
                scale=1 + (2 * draws[:, 1] - 1) * self.zoom,
            )
        mirrored = draws[:, 4] < (0.5 if self.horizontal_flip else 0.0)
        images = _crop(
            images, self.image_size, self.crop_padding, draws[:, 2:4], mirrored
        )
        return tf.cast(images, tf.float32)

    def _resized_part(self, image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        mirrored = draws[4] < 0.5 if self.horizontal_flip else False
        window = Window(*self._part(tf.shape(image)[:2], draws))
        return resize_window(image, window, self.image_size, mirrored=mirrored)

    def _colors(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        if self.modern:
            return jitter(images, draws[:, 5:UNIFORM])
        if not self._has_color_noise:
            return images
        shift = draws[:, None, None, UNIFORM : UNIFORM + 3]
        if self.color_mean is None:
            # A whole row of pixels at a time: three numbers at a time are slow to add.
            return images + tf.tile(shift, (1, 1, self.image_size, 1))
        strength = draws[:, None, None, UNIFORM + 3 :]
        if isinstance(self.color_mean, MeanImage):
            mean = self.color_mean.center_crop(self.image_size, self.image_size)
        else:
            mean = tf.constant(self.color_mean, tf.float32)
        return (images - mean + shift) / (1 + strength) + mean


def _crop(
    images: tf.Tensor, size: int, padding: int, places: tf.Tensor, mirrored: tf.Tensor
) -> tf.Tensor:
    """Squares cut out of images with a border of zeros, and mirrored or not.

    `places`, `(batch, 2)` from 0 to 1 (exclusive), say where each lies: uniform numbers
    give each possible offset the same probability.
    """
    border = (padding, padding)
    images = tf.pad(images, ((0, 0), border, border, (0, 0)))
    room = tf.cast(tf.shape(images)[1:3] - size + 1, tf.float32)
    corners = tf.cast(places * room, tf.int32)
    order = tf.range(size)
    columns = tf.where(mirrored[:, None], size - 1 - order, order) + corners[:, 1:]
    images = tf.gather(images, corners[:, :1] + order, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)


def _rotate_and_zoom(
    images: tf.Tensor, angle: tf.Tensor, scale: tf.Tensor
) -> tf.Tensor:
    """Images turned about their centres, counter-clockwise, and enlarged bilinearly.

    There is an angle in radians and a scale for each; what comes from outside is 0.
    """
    height, width = tf.unstack(tf.cast(tf.shape(images)[1:3], tf.float32))
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    # From each pixel of the result to where it comes from.
    transforms = tf.stack(
        [
            cosine,
            -sine,
            center_x - cosine * center_x + sine * center_y,
            sine,
            cosine,
            center_y - sine * center_x - cosine * center_y,
            tf.zeros_like(sine),
            tf.zeros_like(sine),
        ],
        axis=-1,
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


# === Colour jitter ===


@functools.cache
def _layers() -> tuple[keras.layers.Layer, ...]:
    # They make variables for random numbers of their own, which nothing uses here.
    with tf.init_scope():
        scale = {"value_range": (0, 1), "data_format": "channels_last"}
        return (
            keras.layers.RandomBrightness(BRIGHTNESS, **scale),
            keras.layers.RandomContrast(CONTRAST, **scale),
            keras.layers.RandomSaturation((0.3, 0.7), **scale),
        )


def jitter(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Images, 0-255, of other brightness, then contrast, then, of colours, saturation.

    By at least three uniform numbers for each.
    """
    brightness, contrast, saturation = _layers()
    # From -1 to 1, one for each image.
    draws = 2 * draws[:, :, None, None, None] - 1
    # Saturation has no unit of its own: the layer works on a scale of 0 to 1.
    images = brightness.transform_images(
        images / 255, {"rgb_delta": BRIGHTNESS * draws[:, 0]}
    )
    images = contrast.transform_images(
        images, {"contrast_factor": 1 + CONTRAST * draws[:, 1]}
    )
    if images.shape[-1] == 3:
        factor = 1 + SATURATION * draws[:, 2, 0, 0, 0]
        images = saturation.transform_images(images, {"factor": factor})
    return images * 255
