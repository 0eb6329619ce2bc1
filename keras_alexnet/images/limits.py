"""Decompression-bomb guard: an image's size, by its header, before it is decoded."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image

# Where Pillow too takes an image for an attack: a gibibyte in 6 bytes per pixel. A
# photograph of the largest cameras has 150 million; 30,000 x 30,000 would need 2.7 GB
# as bytes and four times that for resizing.
MAX_PIXELS = 178_956_970

# What TensorFlow does not know, or reads some kinds of wrongly.
PILLOW_FORMATS = ("GIF", "BMP", "WEBP", "TIFF")

KINDS = "JPEG, PNG, GIF, BMP, WebP or TIFF"

# Where PNG, GIF and BMP keep width and height, and how many bytes each has.
_HEADER = 26
_PNG = ((16, 20), 4, "big")
_GIF = ((6, 8), 2, "little")
_BMP = ((18, 22), 4, "little")


def checked(encoded: tf.Tensor, *, in_graph: bool = False) -> tf.Tensor:
    """Returns the bytes of an image file whose size allows to decode it.

    Args:
        encoded: The file's bytes, a scalar string.
        in_graph: Whether to do without Python, as an export must: of a GIF the first
            frame counts alone, and WebP and TIFF are no images.

    Raises:
        tf.errors.InvalidArgumentError: It is empty, has no pixels, or more than
            `MAX_PIXELS`.
    """
    head = _head(encoded)
    pixels = tf.reduce_prod(_size(encoded, head, in_graph))
    # All conditions at once, because each costs time, and in detail where they fail. A
    # GIF's later frames may be larger than the first, and TensorFlow reads them all.
    is_fine = (pixels > 0) & (pixels <= MAX_PIXELS)
    is_gif = tf.strings.substr(head, 0, 4) == b"GIF8"

    def refused() -> tf.Tensor:
        total = pixels
        if not in_graph:
            total = tf.cond(
                is_gif,
                lambda: tf.maximum(
                    pixels, by_python(gif_pixels, encoded, tf.int64, ())
                ),
                lambda: pixels,
            )
        return _refused(encoded, total)

    return tf.cond(is_fine & ~is_gif, lambda: encoded, rarely(refused))


def _refused(encoded: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    checks = (
        (tf.strings.length(encoded) > 0, "the file is empty"),
        (pixels >= 0, f"not a {KINDS} file"),
        (pixels != 0, "the image has no pixels"),
        (
            pixels <= MAX_PIXELS,
            f"the image has more than {MAX_PIXELS:,} pixels",
        ),
    )
    asserts = [tf.debugging.Assert(right, [why]) for right, why in checks]
    with tf.control_dependencies([one for one in asserts if one is not None]):
        return tf.identity(encoded)


def rarely(branch: Callable[[], tf.Tensor]) -> Callable[[], tf.Tensor]:
    """Returns a branch that costs nothing where another one is taken.

    TensorFlow inlines branches, and goes through their operations even where it does
    not run them.
    """
    if tf.executing_eagerly():
        return branch
    return tf.function(
        branch, autograph=False, experimental_attributes={"_noinline": True}
    )


def by_python(
    function: Callable[[bytes], np.ndarray],
    encoded: tf.Tensor,
    dtype: tf.DType,
    shape: tuple[int | None, ...],
) -> tf.Tensor:
    """Calls a Python function of a file's bytes, in a graph or not."""
    if tf.executing_eagerly():
        return tf.constant(function(tf.convert_to_tensor(encoded).numpy()))
    result = tf.numpy_function(function, [encoded], dtype, stateful=False)
    return tf.ensure_shape(result, shape)


def image_size(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the size of an image from its header.

    Args:
        encoded: A file's bytes, a scalar string.

    Returns:
        int64, `(height, width)`; 1 and -1 for what is no image.

    Raises:
        tf.errors.InvalidArgumentError: The header of a JPEG file is damaged.
    """
    return _size(encoded, _head(encoded), in_graph=False)


def _size(encoded: tf.Tensor, head: tf.Tensor, in_graph: bool) -> tf.Tensor:
    start = tf.strings.substr(head, 0, 2)
    return tf.cond(
        start == b"\xff\xd8",
        lambda: tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64),
        rarely(lambda: _other_size(encoded, head, start, in_graph)),
    )


def _other_size(
    encoded: tf.Tensor, head: tf.Tensor, start: tf.Tensor, in_graph: bool
) -> tf.Tensor:
    if in_graph:
        return _size_in_header(head, start)

    return tf.cond(
        tf.reduce_any(start == [b"RI", b"II", b"MM"]),
        lambda: by_python(_pillow_size, encoded, tf.int64, (2,)),
        lambda: _size_in_header(head, start),
    )


def _head(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the first bytes of a file, filled up with zeros."""
    head = tf.strings.substr(encoded, 0, _HEADER)
    return tf.strings.substr(tf.strings.join([head, b"\0" * _HEADER]), 0, _HEADER)


def _size_in_header(head: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    values = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int64)[None]
    # One product for all, because each operation costs more than the arithmetic.
    sizes = tf.matmul(values, tf.constant(_WEIGHTS))[0]
    row = tf.argmax(
        tf.stack([start == b"\x89P", start == b"GI", start == b"BM", True]),
        output_type=tf.int32,
    )
    sizes = tf.concat([sizes, tf.constant([1, -1], tf.int64)], axis=0)
    width, height = tf.unstack(tf.reshape(sizes, (4, 2))[row])
    # BMP's rows go from the top down where the height is negative, in 32 bits.
    height = tf.where((row == 2) & (height >= 2**31), 2**32 - height, height)
    return tf.stack([height, width])


def _weights() -> np.ndarray:
    """What the bytes of a header count for in width and height of each format."""
    weights = np.zeros((_HEADER, 6), np.int64)
    for column, (places, length, order) in enumerate((_PNG, _GIF, _BMP)):
        for side, place in enumerate(places):
            powers = 256 ** np.arange(length)
            if order == "big":
                powers = powers[::-1]
            weights[place : place + length, 2 * column + side] = powers
    return weights


_WEIGHTS = _weights()


# === GIF, WebP and TIFF ===


def _pillow_size(encoded: bytes) -> np.ndarray:
    """Reads height and width of an image from its header; 1 and -1 of no image."""
    try:
        with Image.open(io.BytesIO(encoded), formats=PILLOW_FORMATS) as image:
            return np.array(image.size[::-1], np.int64)
    except Image.DecompressionBombError:
        return np.array((MAX_PIXELS + 1, 1), np.int64)
    except Exception:  # Pillow's readers raise whatever their parsing does.
        return np.array((1, -1), np.int64)


def gif_pixels(encoded: bytes) -> np.int64:
    """Adds up the pixels of all frames of a GIF, without decompressing any.

    Args:
        encoded: The file's bytes; where they make no sense, counting ends.
    """
    total, place = 0, 13 + _color_table(encoded, 10)
    while place < len(encoded):
        marker = encoded[place]
        if marker == 0x2C and place + 10 <= len(encoded):  # A frame.
            width = int.from_bytes(encoded[place + 5 : place + 7], "little")
            height = int.from_bytes(encoded[place + 7 : place + 9], "little")
            total += width * height
            # The size of the codes follows the colours.
            place = _after_blocks(
                encoded, place + 11 + _color_table(encoded, place + 9)
            )
        elif marker == 0x21:  # An extension, of any kind.
            place = _after_blocks(encoded, place + 2)
        else:
            break
    return np.int64(total)


def _color_table(encoded: bytes, place: int) -> int:
    """Returns the length of the table of colours that a byte of flags announces."""
    flags = encoded[place] if place < len(encoded) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(encoded: bytes, place: int) -> int:
    """Skips blocks that begin with their lengths, up to the empty one."""
    while place < len(encoded) and encoded[place]:
        place += 1 + encoded[place]
    return place + 1
