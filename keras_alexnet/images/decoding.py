"""From an image file's bytes to the RGB that a person sees.

JPEG and PNG, which are nearly all files, are decoded by TensorFlow, in the graph. WebP
and TIFF it does not know, and of GIF and BMP it reads some kinds wrongly or not at all
(palettes, transparency, few bits per pixel); they are left to Pillow, which a graph
calls as a Python function. How large an image says it is, is looked at before decoding.
An exported graph can hold none, so it has TensorFlow's readers alone: see `in_graph`.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from keras_alexnet.errors import UserError
from keras_alexnet.images.exif import (
    exif_orientation,
    orient,
    read_bytes,
    tiff_orientation,
)
from keras_alexnet.images.limits import PILLOW_FORMATS, by_python, checked

# Rec. 601, as in JPEG itself.
LUMINANCE = (0.299, 0.587, 0.114)

# What libjpeg can divide both sides by while it decodes. It averages blocks of pixels,
# as the 2012 data were made; antialiasing over triangles is further from that average
# (docs/augmentation.md).
JPEG_RATIOS = (1, 2, 4, 8)
# As Pillow, OpenCV and libjpeg by default; TensorFlow's own is up to 18 levels off.
DCT = "INTEGER_ACCURATE"


def decode(
    encoded: tf.Tensor,
    channels: int,
    *,
    shorter_side: int | None = None,
    in_graph: bool = False,
) -> tf.Tensor:
    """Decodes JPEG, PNG, BMP, WebP, or the first image of GIF or TIFF.

    What is transparent is seen on white, as in most programs. A JPEG or PNG file is
    turned as its Exif header says. Of 16 bits the upper 8 are kept.

    Args:
        encoded: The file's bytes, a scalar string.
        channels: 1 for grey, 3 for RGB.
        shorter_side: How many pixels the caller will need at least, to which it will
            resize. A JPEG file is decoded at a half, a quarter or an eighth of its
            size where as many are left then, which is faster and nearly the same
            (docs/augmentation.md). None decodes every pixel.
        in_graph: Whether to do without Python, as an export must. Transparent parts of
            a GIF have the colours of its palette then, a BMP must have 8, 24 or 32 bits
            per pixel, and WebP and TIFF are not read.

    Returns:
        A uint8 image of shape `(height, width, channels)`.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are no such image, or one of more than
            `keras_alexnet.images.limits.MAX_PIXELS`.
    """
    encoded = checked(encoded, in_graph=in_graph)

    def plain() -> tf.Tensor:
        return _decode_jpeg(encoded, shorter_side)

    def any_kind() -> tf.Tensor:
        if tf.executing_eagerly():
            return _decode_any(encoded, shorter_side, in_graph)
        return _traced_decode_any(shorter_side, in_graph)(encoded)

    image = tf.cond(_is_upright_jpeg(encoded), plain, any_kind)
    image = tf.ensure_shape(image, (None, None, 3))
    return luminance(image) if channels == 1 else image


# Traced once, for all pipelines: it is the largest part of their graphs.
@functools.cache
def _traced_decode_any(
    shorter_side: int | None, in_graph: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    return tf.function(
        lambda encoded: _decode_any(encoded, shorter_side, in_graph),
        input_signature=[tf.TensorSpec((), tf.string)],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def _is_plain_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Says whether an image begins as nearly all do: a JFIF header and no other."""
    head = tf.strings.substr(encoded, 0, 22)
    # Two bytes more, for what is shorter than two.
    tail = tf.strings.substr(tf.strings.join([b"\0\0", head]), -2, 2)
    begins = tf.strings.substr(head, 0, 6)
    return tf.equal(begins, b"\xff\xd8\xff\xe0\0\x10") & tf.equal(tail, b"\xff\xdb")


def _is_upright_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Says whether a file is a JPEG without an Exif header, which could turn it.

    A search for the header's name is a millisecond faster than going from header to
    header, as `exif_orientation` does.
    """

    def has_no_exif() -> tf.Tensor:
        is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")
        return is_jpeg & ~tf.strings.regex_full_match(encoded, r"\C*Exif\C*")

    return tf.cond(_is_plain_jpeg(encoded), lambda: tf.constant(True), has_no_exif)


def is_whole_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Says whether a file is a JPEG that begins as nearly all do, and not cut off.

    Its end is looked at because who decodes a part does not get there.
    """
    end = tf.maximum(tf.strings.length(encoded) - 2, 0)
    is_whole = tf.equal(tf.strings.substr(encoded, end, 2), b"\xff\xd9")
    return is_whole & _is_plain_jpeg(encoded)


def _decode_any(
    encoded: tf.Tensor, shorter_side: int | None, in_graph: bool
) -> tf.Tensor:
    signature = tf.strings.substr(encoded, 0, 3)
    others = _decode_in_graph if in_graph else _decode_by_pillow

    def photograph() -> tf.Tensor:
        image = _decode_jpeg(encoded, shorter_side)
        return orient(image, exif_orientation(encoded))

    image = tf.case(
        [
            (tf.equal(signature, b"\xff\xd8\xff"), photograph),
            (tf.equal(signature, b"\x89PN"), lambda: _decode_png(encoded)),
        ],
        default=lambda: others(encoded),
        exclusive=True,
    )
    return tf.ensure_shape(image, (None, None, 3))


def luminance(image: tf.Tensor) -> tf.Tensor:
    """Grey image, uint8 `(height, width, 1)`, of an RGB one."""
    grey = tf.tensordot(tf.cast(image, tf.float32), LUMINANCE, axes=1)
    return tf.cast(tf.round(grey), tf.uint8)[..., None]


def on_white(image: tf.Tensor) -> tf.Tensor:
    """RGB image, uint8, of one with alpha, `(height, width, 4)`, laid on white."""
    colors = tf.cast(image[..., :3], tf.float32)
    alpha = tf.cast(image[..., 3:], tf.float32) / 255
    return tf.cast(tf.round(255 + (colors - 255) * alpha), tf.uint8)


# === PNG ===


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    # Only where there is alpha: of palettes with fewer than 256 colours TensorFlow
    # makes up a wrong one.
    kind = read_bytes(encoded, 25, 1)[0]
    # PNG specification, section 11.3.2: a colour that is transparent.
    is_keyed = _chunk(encoded, "tRNS")[1] >= 0
    has_alpha = tf.equal(kind, 4) | tf.equal(kind, 6) | is_keyed
    image = tf.cond(
        has_alpha,
        lambda: on_white(tf.io.decode_png(encoded, channels=4)),
        lambda: tf.io.decode_png(encoded, channels=3),
    )
    # Section 11.3.5: an Exif header.
    start, size = _chunk(encoded, "eXIf")
    orientation = tf.cond(
        size > 0,
        lambda: tiff_orientation(read_bytes(encoded, start, size)),
        lambda: tf.constant(1),
    )
    return orient(image, orientation)


def _chunk(encoded: tf.Tensor, kind: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Start and size, int32, of the data of a PNG file's chunk before the pixels.

    The size is -1 where there is no such chunk.
    """
    end = tf.strings.length(encoded)

    def name(position: tf.Tensor) -> tf.Tensor:
        return tf.strings.substr(encoded, tf.minimum(position + 4, end), 4)

    def size_at(position: tf.Tensor) -> tf.Tensor:
        size = read_bytes(encoded, position, 4)[:4]
        size = tf.tensordot(size, [2**24, 2**16, 2**8, 1], axes=1)
        # No further than the file goes: a hostile length could lead backwards.
        return tf.where((size < 0) | (size > end), end, size)

    def is_skipped(position: tf.Tensor) -> tf.Tensor:
        return tf.reduce_all(tf.not_equal(name(position), [kind, "IDAT", ""]))

    def skip(position: tf.Tensor) -> tuple[tf.Tensor]:
        # Four bytes each of length, name and checksum.
        return (tf.minimum(position + 12 + size_at(position), end),)

    (position,) = tf.while_loop(is_skipped, skip, (tf.constant(8),))
    found = tf.equal(name(position), kind)
    return position + 8, tf.where(found, size_at(position), -1)


# === JPEG ===


def _decode_jpeg(encoded: tf.Tensor, shorter_side: int | None) -> tf.Tensor:
    if shorter_side is None:
        return tf.io.decode_jpeg(encoded, channels=3, dct_method=DCT)
    number, _ = jpeg_scale(encoded, shorter_side)
    return _at_ratio(number, functools.partial(tf.io.decode_jpeg, encoded))


def _at_ratio(number: tf.Tensor, decoder: Callable[..., tf.Tensor]) -> tf.Tensor:
    options = {"channels": 3, "dct_method": DCT}
    branches = [
        functools.partial(decoder, ratio=ratio, **options) for ratio in JPEG_RATIOS
    ]
    return tf.switch_case(number, branches)


def jpeg_scale(encoded: tf.Tensor, shorter_side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Index of the ratio by which a JPEG file can be shrunk while it is decoded.

    And height and width then, of which the shorter is not below `shorter_side` unless
    it was before; all int32.
    """
    shape = tf.io.extract_jpeg_shape(encoded)[:2]
    enough = tf.constant([ratio * shorter_side for ratio in JPEG_RATIOS[1:]])
    number = tf.reduce_sum(tf.cast(tf.reduce_min(shape) >= enough, tf.int32))
    # libjpeg rounds up.
    return number, -(-shape // tf.gather(tf.constant(JPEG_RATIOS), number))


def decode_jpeg_part(
    encoded: tf.Tensor, number: tf.Tensor, first: tf.Tensor, last: tf.Tensor
) -> tf.Tensor:
    """Part of a JPEG file, uint8, from one row and column up to another.

    Both count after shrinking by `JPEG_RATIOS[number]`, and are int32 `(2,)`.
    """
    window = tf.concat([first, last - first], axis=0)
    decoder = functools.partial(tf.io.decode_and_crop_jpeg, encoded, window)
    return _at_ratio(number, decoder)


# === GIF, BMP, WebP and TIFF ===


def _decode_by_pillow(encoded: tf.Tensor) -> tf.Tensor:
    try:
        return by_python(_pillow, encoded, tf.uint8, (None, None, 3))
    except UserError as error:  # As TensorFlow's own decoders and graphs do.
        raise tf.errors.InvalidArgumentError(None, None, str(error)) from None


def _pillow(encoded: bytes) -> np.ndarray:
    """First image of a file; a ValueError becomes TensorFlow's InvalidArgumentError."""
    try:
        with Image.open(io.BytesIO(encoded), formats=PILLOW_FORMATS) as image:
            return pillow_pixels(image)
    except UnidentifiedImageError:
        raise UserError("The image cannot be decoded: no such header.") from None
    except Exception as error:  # Pillow's readers raise whatever their parsing does.
        raise UserError(f"The image cannot be decoded: {error}") from None


def pillow_pixels(image: Image.Image) -> np.ndarray:
    """What a person sees of a PIL image, uint8 `(height, width, 3)`.

    As `decode` does of its file: upright, on white, the upper 8 of 16 bits.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image), 0, 2**16 - 1) >> 8
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    return on_white(np.asarray(image.convert("RGBA"))).numpy()


def _decode_in_graph(encoded: tf.Tensor) -> tf.Tensor:
    header = read_bytes(encoded, tf.constant(0), tf.constant(54))
    is_bmp = tf.equal(header[0], ord("B")) & tf.equal(header[1], ord("M"))
    bits = header[28] + 256 * header[29]
    return tf.case(
        [
            (is_bmp & tf.equal(bits, 8), lambda: _palette_bmp(encoded, header)),
            # The fourth byte of a pixel is no alpha unless a later header says so.
            (
                is_bmp & tf.equal(bits, 32),
                lambda: tf.io.decode_bmp(encoded, channels=4)[..., :3],
            ),
        ],
        default=lambda: tf.io.decode_image(
            encoded, channels=3, expand_animations=False
        ),
    )


def _palette_bmp(encoded: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Colours of a BMP with a palette, of which TensorFlow gives numbers.

    The palette begins after the file's 14 bytes and the header, whose length stands at
    14, with blue, green, red and a spare byte for each colour.
    """
    numbers = tf.io.decode_bmp(encoded)[..., 0]
    palette = read_bytes(encoded, 14 + header[14], 4 * 256)[: 4 * 256]
    missing = 4 * 256 - tf.size(palette)
    palette = tf.reshape(tf.pad(palette, [[0, missing]]), (256, 4))
    palette = tf.cast(palette[:, 2::-1], tf.uint8)
    return tf.gather(palette, tf.cast(numbers, tf.int32))
