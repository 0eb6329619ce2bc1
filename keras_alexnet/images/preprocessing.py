"""From an image file to a network's input.

The same steps in training, evaluation and export, described by one value that travels
with the model. `MODES` are the values of the published sets of weights.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_alexnet.errors import UserError, unknown
from keras_alexnet.images.decoding import (
    decode,
    is_whole_jpeg,
    jpeg_scale,
    luminance,
    on_white,
    pillow_pixels,
)
from keras_alexnet.images.fused import fused_part
from keras_alexnet.images.limits import checked, rarely
from keras_alexnet.images.mean_image import MeanImage
from keras_alexnet.images.resizing import Window, cut, resize_window


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its input.

    An image is decoded and resized, and of that the centre of `image_size` cut out (in
    training, a random part). The network sees, channel by channel,
    `(pixel * pixel_max / 255 - mean) / std * scale`, its channels in `channel_order`.

    Attributes:
        image_size: Height and width of the network's input, in pixels.
        resize_size: Length of the shorter side after resizing, in pixels.
        channels: 1 for grey, 3 for RGB or BGR.
        mean: Mean of the training images, one number per channel, in `channel_order`
            and on the scale of 0 to `pixel_max`.
        scale: What mean-free pixels are multiplied by.
        resize_rule: `"shorter_side"` brings the shorter side to `resize_size` and cuts
            out the centre square, as the 2012 paper does; `"torchvision"` likewise, but
            with torchvision's rounding: the longer side is a whole number of pixels,
            `int(resize_size * longer / shorter)`, the centre begins at
            `round((side - image_size) / 2)`, and so do pixels end as whole numbers, as
            `Resize` and `CenterCrop` give them for PIL images; `"squash"` brings both
            sides to `resize_size`, as Caffe does.
        channel_order: `"rgb"` or `"bgr"`: how the network wants its channels. Images
            come as RGB.
        pixel_max: The network's white: 255, or 1.
        std: What mean-free pixels are divided by, one number per channel.
        mean_image: The mean pixel by pixel, used in place of `mean`; its centre is
            subtracted. In `channel_order`; an array is taken too.
        fused_decode: Whether large JPEG files are shrunk while they are decoded, and
            parts of them averaged (`part_of_file`), which is faster and not quite the
            same (docs/augmentation.md).
    """

    image_size: int
    resize_size: int
    channels: int
    mean: tuple[float, ...]
    scale: float
    resize_rule: str = "shorter_side"
    channel_order: str = "rgb"
    pixel_max: float = 255.0
    std: tuple[float, ...] | None = None
    mean_image: MeanImage | None = None
    fused_decode: bool = False

    def __post_init__(self) -> None:
        # The one way to set an attribute of a frozen value.
        put = object.__setattr__
        put(self, "mean", tuple(float(value) for value in self.mean))
        if self.std is not None:
            put(self, "std", tuple(float(value) for value in self.std))
        if self.mean_image is not None and not isinstance(self.mean_image, MeanImage):
            put(self, "mean_image", MeanImage.from_array(self.mean_image))
        self._check()

    def _check(self) -> None:
        for name, choices in (
            ("resize_rule", ("shorter_side", "torchvision", "squash")),
            ("channel_order", ("rgb", "bgr")),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"{name} must be one of {', '.join(choices)}. "
                    f"Received: {name}={getattr(self, name)!r}"
                )
        if self.channels not in (1, 3):
            raise UserError(f"channels must be 1 or 3. Received: {self.channels}")
        if self.channel_order == "bgr" and self.channels != 3:
            raise UserError("Only three channels have an order. Received: channels=1")
        # Training with padded crops may make resize_size the smaller of the two.
        if min(self.image_size, self.resize_size) < 1:
            raise UserError(
                "image_size and resize_size must be positive. Received: "
                f"image_size={self.image_size}, resize_size={self.resize_size}"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.channels:
                raise UserError(
                    f"{name} must hold one number for each of {self.channels} "
                    f"channels. Received: {name}={values}"
                )
        numbers = (*self.mean, *(self.std or ()), self.scale, self.pixel_max)
        if not all(math.isfinite(number) for number in numbers) or 0 in (
            *(self.std or ()),
            self.scale,
            self.pixel_max,
        ):
            raise UserError(
                "mean, std, scale and pixel_max must be finite, and the last three not "
                f"zero. Received: {self}"
            )
        if self.mean_image is not None:
            if self.mean_image.channels != self.channels:
                raise UserError(
                    f"The mean image has {self.mean_image.channels} channels, not "
                    f"{self.channels}."
                )
            self.mean_image.center_crop(self.image_size, self.image_size)

    # === Config ===

    def to_config(self) -> dict[str, Any]:
        """Returns the value as a dictionary that JSON can hold."""
        config = dataclasses.asdict(self)
        config["mean"] = list(self.mean)
        config["std"] = None if self.std is None else list(self.std)
        if self.mean_image is not None:
            encoded = base64.b64encode(self.mean_image.data).decode("ascii")
            config["mean_image"]["data"] = encoded
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Restores what `to_config` returned; what is missing has its default.

        Raises:
            ValueError: The dictionary describes no preprocessing.
        """
        config = dict(config)
        mean_image = config.get("mean_image")
        try:
            if mean_image is not None:
                data = base64.b64decode(mean_image["data"], validate=True)
                config["mean_image"] = MeanImage(**{**mean_image, "data": data})
            return cls(**config)
        except (TypeError, KeyError, binascii.Error) as error:
            raise UserError(f"This is no preprocessing: {error}") from None

    def with_image_size(self, image_size: int) -> Preprocessing:
        """Returns the same for a network with another input size.

        Images are resized in proportion, so that the network sees as much of each. A
        mean image of the published size may not cover them; its mean over all pixels
        takes its place then.
        """
        if image_size == self.image_size:
            return self
        resize_size = math.ceil(image_size * self.resize_size / self.image_size)
        changes = {"image_size": image_size, "resize_size": resize_size}
        mean_image = self.mean_image
        if mean_image is not None and image_size > min(
            mean_image.height, mean_image.width
        ):
            mean = mean_image.array().mean(axis=(0, 1), dtype=np.float64)
            changes |= {"mean": tuple(mean.tolist()), "mean_image": None}
        return dataclasses.replace(self, **changes)

    @property
    def geometry(self) -> Preprocessing:
        """The same but for what `normalize` does: which pixels the network sees."""
        return dataclasses.replace(
            self,
            mean=(0.0,) * self.channels,
            scale=1.0,
            channel_order="rgb",
            pixel_max=255.0,
            std=None,
            mean_image=None,
        )

    # === Steps ===
    def decode(self, encoded: tf.Tensor, *, in_graph: bool = False) -> tf.Tensor:
        """Decodes JPEG, PNG, BMP, WebP, or the first image of GIF or TIFF.

        Args:
            encoded: The file's bytes, a scalar string.
            in_graph: Whether to do without Python, as an export must; see
                `keras_alexnet.images.decoding.decode`.

        Returns:
            A uint8 image of shape `(height, width, channels)`. With `fused_decode` it
            may be smaller than the file's, but not than `resize_size`.

        Raises:
            tf.errors.InvalidArgumentError: The bytes are no such image.
        """
        return decode(
            encoded,
            self.channels,
            shorter_side=self.resize_size if self.fused_decode else None,
            in_graph=in_graph,
        )

    def resize(self, image: tf.Tensor) -> tf.Tensor:
        """Resizes to a square of `resize_size`, by the `resize_rule`.

        Args:
            image: `(height, width, channels)`, any real dtype, 0-255.

        Returns:
            float32, `(resize_size, resize_size, channels)`, 0-255.
        """
        return self.resize_part(image, (0, 0), self.resize_size)

    def resize_part(
        self,
        image: tf.Tensor,
        corner: tf.Tensor | tuple[int, int],
        size: int,
        *,
        extent: tf.Tensor | None = None,
        mirrored: tf.Tensor | bool = False,
    ) -> tf.Tensor:
        """Returns a part of what `resize` returns, without resizing the rest.

        Args:
            image: `(height, width, channels)`, any real dtype, 0-255.
            corner: The part's top and left, `(2,)`, in pixels of the resized image.
            size: Height and width of the result.
            extent: Height and width of the part, `(2,)`, in pixels of the resized
                image, where they are others than `size`.
            mirrored: Whether to exchange left and right.

        Returns:
            float32, `(size, size, channels)`, 0-255.
        """
        image = tf.ensure_shape(image, (None, None, self.channels))
        length = size if extent is None else extent
        window = self._window(tf.shape(image)[:2], corner, length)

        def resized() -> tf.Tensor:
            part = resize_window(image, window, size, mirrored=mirrored)
            return tf.round(part) if self.resize_rule == "torchvision" else part

        if extent is not None:
            return resized()
        # A file that was shrunk to the right size while it was decoded.
        is_sized = tf.reduce_all(window.extent == size)
        corner = tf.cast(window.start, tf.int32)
        return tf.cond(is_sized, lambda: cut(image, corner, size, mirrored), resized)

    def part_of_file(
        self,
        encoded: tf.Tensor,
        corner: tf.Tensor | tuple[int, int],
        size: int,
        *,
        extent: tf.Tensor | None = None,
        mirrored: tf.Tensor | bool = False,
    ) -> tf.Tensor:
        """Returns what `resize_part` returns of a file's bytes, by the shortest way.

        With `fused_decode`, of a JPEG file in colours that is nothing but the part is
        decoded. It begins and ends at whole pixels then, and where it shrinks, it is
        averaged, which differs from linear interpolation (docs/augmentation.md).

        Raises:
            tf.errors.InvalidArgumentError: The bytes are no image.
        """

        def step_by_step() -> tf.Tensor:
            image = self.decode(encoded)
            return self.resize_part(
                image, corner, size, extent=extent, mirrored=mirrored
            )

        if not self.fused_decode or self.channels != 3:
            return step_by_step()
        length = size if extent is None else extent

        def at_once() -> tf.Tensor:
            file = checked(encoded)
            number, shape = jpeg_scale(file, self.resize_size)
            window = self._window(shape, corner, length)
            return fused_part(file, number, window, size, mirrored=mirrored)

        return tf.cond(is_whole_jpeg(encoded), at_once, rarely(step_by_step))

    def _window(
        self,
        shape: tf.Tensor,
        corner: tf.Tensor | tuple[int, int],
        extent: tf.Tensor | int,
    ) -> Window:
        """Where a part of the resized square lies in an image of some shape."""
        low, corner = tf.zeros_like(shape), tf.cast(corner, tf.float32)
        if self.resize_rule == "torchvision":
            sides = tf.cast(shape, tf.int64)
            whole = self.resize_size * sides // tf.reduce_min(sides)
            pixel = tf.cast(sides / whole, tf.float32)
            # Halves are rounded to even, as in Python.
            first = tf.round(tf.cast(whole - self.image_size, tf.float32) / 2)
            corner += first - self.margin
            return Window(corner * pixel, extent * pixel, low, shape)
        if self.resize_rule == "shorter_side":
            side = tf.reduce_min(shape)[None]
            low = (shape - side) // 2
            shape = tf.concat([side, side], axis=0)
        pixel = tf.cast(shape, tf.float32) / self.resize_size
        start = tf.cast(low, tf.float32) + corner * pixel
        return Window(start, extent * pixel, low, low + shape)

    def center_crop(self, image: tf.Tensor) -> tf.Tensor:
        """Cuts the network's input out of the middle of resized images.

        Args:
            image: `(resize_size, resize_size, channels)`, or a batch.

        Returns:
            `(image_size, image_size, channels)`, or a batch.
        """
        size, margin = self.image_size, self.margin
        if margin < 0:
            return tf.image.resize_with_crop_or_pad(image, size, size)
        return image[..., margin : margin + size, margin : margin + size, :]

    def normalize(self, images: Any, shift: tf.Tensor | None = None) -> Any:
        """Orders channels, subtracts the mean and scales.

        Args:
            images: `(..., height, width, channels)`, any real dtype, 0-255, RGB or
                grey. A NumPy array, a tensor or a symbolic Keras tensor.
            shift: A colour that is added to a tensor first, float32 `(channels,)`, at
                no cost.

        Returns:
            float32 of the same shape and kind: what the network takes.
        """
        if isinstance(images, np.ndarray):
            # Not numpy's own rules: one rounding, whatever the input was.
            images = images.astype(np.float32)
        elif isinstance(images, keras.KerasTensor):
            images = keras.ops.cast(images, "float32")
        else:
            images = tf.cast(images, tf.float32)
        images = self._as_expected(images)
        if self.mean_image is None:
            mean = _row(self.mean, images)
        else:
            height, width = (size or self.image_size for size in images.shape[-3:-1])
            mean = self.mean_image.center_crop(height, width)
        if shift is not None:
            mean = mean - self._as_expected(shift)
        images = images - mean
        if self.std is not None:
            images = images / _row(self.std, images)
        return images if self.scale == 1 else images * np.float32(self.scale)

    def _as_expected(self, colors: Any) -> Any:
        """Brings colours, 0-255 and RGB, to the network's order and scale."""
        if self.channel_order == "bgr":
            colors = colors[..., ::-1]
        if self.pixel_max != 255:
            colors = colors / np.float32(255 / self.pixel_max)
        return colors

    def prepare(self, image: Any) -> tf.Tensor:
        """Makes an image of any size as large as the network's input.

        Args:
            image: `(height, width, channels)`, any real dtype, 0-255.

        Returns:
            float32, `(image_size, image_size, channels)`, 0-255.
        """
        if self.margin < 0:
            return self.center_crop(self.resize(image))
        return self.resize_part(image, (self.margin, self.margin), self.image_size)

    @property
    def margin(self) -> int:
        """Where the network's input begins in the resized square."""
        margin = (self.resize_size - self.image_size) / 2
        is_rounded = self.resize_rule == "torchvision"
        return round(margin) if is_rounded else math.floor(margin)

    def prepare_file(self, encoded: tf.Tensor, *, in_graph: bool = False) -> tf.Tensor:
        """Makes an image file as large as the network's input.

        Args:
            encoded: The file's bytes, a scalar string.
            in_graph: As in `decode`.

        Returns:
            float32, `(image_size, image_size, channels)`, 0-255.

        Raises:
            tf.errors.InvalidArgumentError: The bytes are no image.
        """
        return self.prepare(self.decode(encoded, in_graph=in_graph))

    def __call__(self, images: Any) -> tf.Tensor:
        """Turns images into a network's input.

        Args:
            images: One image, a batch of one size, or a list of images of any sizes.
                Each is the path of a file; a PIL image; or an array or tensor of
                `(height, width)` or `(height, width, channels)`, RGB on a scale of
                0-255, or of 0-65535 as uint16. Tensors may be symbolic, as in
                `dataset.map`, where rank and channels are known. PIL images are
                turned upright as files are, what is transparent is laid on white, and
                grey and colour become each other where the network wants the other.

        Returns:
            float32, `(batch, image_size, image_size, channels)`.

        Raises:
            ValueError: Something is not an image.
            OSError: A file cannot be read.
            tf.errors.InvalidArgumentError: A file is no image.
        """
        if tf.is_tensor(images) and images.shape.rank == 4:
            batch = tf.map_fn(
                lambda image: self.prepare(self._pixels(image)),
                images,
                fn_output_signature=tf.float32,
            )
            return self.normalize(batch)
        is_batch = isinstance(images, (list, tuple)) or (
            isinstance(images, np.ndarray) and images.ndim == 4
        )
        images = images if is_batch else [images]
        if not len(images):
            raise UserError("There are no images to preprocess.")
        batch = [self.prepare(self._pixels(image)) for image in images]
        return self.normalize(tf.stack(batch))

    def _pixels(self, image: Any) -> tf.Tensor:
        """Returns an image, 0-255, with the channels that the network wants."""
        if isinstance(image, (str, os.PathLike)):
            return self.decode(tf.constant(Path(image).expanduser().read_bytes()))
        if isinstance(image, Image.Image):
            image = pillow_pixels(image)
        if not tf.is_tensor(image):
            image = np.asarray(image)
            if image.dtype.kind not in "uif":
                raise UserError(
                    "An image must be numbers, a PIL image or the path of a file. "
                    f"Received: {image.dtype}"
                )
            image = tf.convert_to_tensor(image)
        if not (image.dtype.is_integer or image.dtype.is_floating):
            raise UserError(
                f"Pixels must be numbers. Received: {image.dtype.name}. Encoded files "
                "go through Preprocessing.prepare_file and normalize."
            )
        if image.shape.rank == 2:
            image = image[..., None]
        if (
            image.shape.rank != 3
            or image.shape[-1] not in (1, 3, 4)
            or 0 in image.shape
        ):
            raise UserError(
                "An image must be of shape (height, width) or (height, width, "
                "channels), with 1, 3 or 4 channels. "
                f"Received: shape {image.shape}"
            )
        if image.dtype == tf.uint16:
            # As of files with 16 bits.
            image = tf.cast(tf.bitwise.right_shift(image, 8), tf.uint8)
        if image.dtype.is_floating and tf.executing_eagerly():
            if 0 < tf.reduce_max(image) <= 1:
                warnings.warn(
                    "The brightest pixel of an image is at most 1. Pixels are expected "
                    "on a scale of 0-255.",
                    stacklevel=4,
                )
        if image.shape[-1] == 4:
            image = on_white(image)
        if self.channels == 1 and image.shape[-1] == 3:
            return luminance(image)
        return tf.repeat(image, self.channels // image.shape[-1], axis=-1)


def _row(values: tuple[float, ...], images: Any) -> np.ndarray:
    """Repeats a number per channel for a row of pixels, where their number is known.

    Operations on three numbers at a time take several times as long.
    """
    row = np.array(values, np.float32)
    width = images.shape[-2]
    return row if width is None else np.broadcast_to(row, (width, len(row)))


def in_data_format(images: Any) -> Any:
    """Returns a channels-last batch, array or tensor, in Keras's own data format."""
    if keras.config.image_data_format() == "channels_last":
        return images
    if isinstance(images, np.ndarray):
        return images.transpose(0, 3, 1, 2)
    return tf.transpose(images, (0, 3, 1, 2))


# === Modes ===

_published = functools.partial(Preprocessing, resize_size=256, channels=3, scale=1.0)
# What the published sets of weights expect, but for mean images, which come as files.
MODES: Mapping[str, Preprocessing] = MappingProxyType(
    {
        # BVLC's AlexNet and CaffeNet, and what was converted from them. The mean pixel
        # is that of CaffeNet's prototxt, for want of the mean image.
        "caffe": _published(
            227, mean=(104, 117, 123), resize_rule="squash", channel_order="bgr"
        ),
        # torchvision.
        "torch": _published(
            224,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            pixel_max=1.0,
            resize_rule="torchvision",
        ),
        # The 2012 program subtracts a mean image. Without one: the channel means of
        # the centre of that of cuda-convnet2's release (make-data/input_meta).
        "alexnet_2012": _published(227, mean=(127.23, 118.59, 103.45)),
        # Pixels as they are.
        "none": _published(227, mean=(0, 0, 0)),
    }
)


def get_preprocessing(mode: str | Preprocessing, **changes: Any) -> Preprocessing:
    """Returns the preprocessing of a mode.

    Args:
        mode: `"caffe"`, `"torch"`, `"alexnet_2012"` or `"none"`, see `MODES`; or a
            value, which is returned with its changes.
        **changes: Attributes of `Preprocessing` that differ, such as `mean_image`, or
            `image_size=224` for the 2012 program.

    Raises:
        ValueError: There is no such mode, or the attributes contradict one another.
    """
    if isinstance(mode, Preprocessing):
        return dataclasses.replace(mode, **changes)
    if mode not in MODES:
        raise UserError(unknown(str(mode), "preprocessing mode", MODES))
    return dataclasses.replace(MODES[mode], **changes)


def preprocess_input(
    x: Any,
    mode: str | Preprocessing = "torch",
    data_format: str | None = None,
) -> Any:
    """Turns images that have the network's size already into the network's input.

    Images of any size go through `model.preprocess(images)`, which resizes too.

    Args:
        x: RGB pixels on a scale of 0-255, any real dtype: a NumPy array, a tensor or a
            symbolic Keras tensor of `(..., height, width, channels)`. Not changed.
        mode: `"caffe"`: BGR minus the mean pixel. `"torch"`: scaled to 0-1, minus the
            mean, divided by the standard deviation. `"alexnet_2012"`: RGB minus the
            mean pixel. `"none"`: float32 and nothing else. Or a `Preprocessing`, for
            instance one with a mean image. Defaults to what `build(weights="imagenet")`
            expects, as does the order of `decode_predictions`.
        data_format: `"channels_last"` or `"channels_first"`, as `x` is. Defaults to
            `keras.config.image_data_format()`.

    Returns:
        float32 of the same shape and kind, array or tensor.

    Raises:
        ValueError: There is no such mode, or `x` has not its number of channels.
    """
    preprocessing = get_preprocessing(mode)
    data_format = data_format or keras.config.image_data_format()
    if data_format not in ("channels_first", "channels_last"):
        raise UserError(
            "data_format must be 'channels_first' or 'channels_last'. "
            f"Received: data_format={data_format!r}"
        )
    if isinstance(x, (list, tuple)):
        x = np.asarray(x)
    axis = -1 if data_format == "channels_last" else -3
    if len(x.shape) < 3 or x.shape[axis] != preprocessing.channels:
        raise UserError(
            f"Images must have at least three axes and {preprocessing.channels} "
            f"channels, {data_format}. Received: shape {tuple(x.shape)}"
        )
    if data_format == "channels_last":
        return preprocessing.normalize(x)
    moveaxis = np.moveaxis if isinstance(x, np.ndarray) else keras.ops.moveaxis
    return moveaxis(preprocessing.normalize(moveaxis(x, -3, -1)), -1, -3)
