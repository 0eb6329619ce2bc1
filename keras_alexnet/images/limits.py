"""How large an image is, by its header: looked at before memory is taken for it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_alexnet.images.decoding import rarely

# Where Pillow too takes an image for an attack: a gibibyte in 6 bytes per pixel. A
# photograph of the largest cameras has 150 million; 30,000 x 30,000 would need 2.7 GB
# as bytes and four times that for resizing.
MAX_PIXELS = 178_956_970

# Where PNG, GIF and BMP keep width and height, and how many bytes each has.
_HEADER = 26
_PNG = ((16, 20), 4, "big")
_GIF = ((6, 8), 2, "little")
_BMP = ((18, 22), 4, "little")


def checked(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the bytes of an image file whose size allows to decode it.

    Args:
        encoded: The file's bytes, a scalar string.

    Raises:
        tf.errors.InvalidArgumentError: It is empty, has no pixels, or more than
            `MAX_PIXELS`.
    """
    head = _head(encoded)
    pixels = tf.reduce_prod(_size(encoded, head))
    # All conditions at once, because each costs time, and in detail where they fail. A
    # GIF's later frames may be larger than the first, and TensorFlow reads them all.
    is_fine = (pixels > 0) & (pixels <= MAX_PIXELS)
    is_fine &= tf.strings.substr(head, 0, 4) != b"GIF8"
    return tf.cond(
        is_fine, lambda: encoded, rarely(lambda: _refused(encoded, head, pixels))
    )


def _refused(encoded: tf.Tensor, head: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    pixels = tf.cond(
        tf.strings.substr(head, 0, 4) == b"GIF8",
        lambda: tf.maximum(pixels, _frame_pixels(encoded)),
        lambda: pixels,
    )
    checks = (
        (tf.strings.length(encoded) > 0, "the file is empty"),
        # TensorFlow decodes more formats, whose sizes are not looked at here.
        (pixels >= 0, "not a JPEG, PNG, GIF or BMP file"),
        (pixels != 0, "the image has no pixels"),
        (
            pixels <= MAX_PIXELS,
            f"the image has more than {MAX_PIXELS:,} pixels",
        ),
    )
    asserts = [tf.debugging.Assert(right, [why]) for right, why in checks]
    with tf.control_dependencies([one for one in asserts if one is not None]):
        return tf.identity(encoded)


def image_size(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the size of an image from its header.

    Args:
        encoded: The bytes of a JPEG, PNG, GIF or BMP file, a scalar string.

    Returns:
        int64, `(height, width)`; -1 and 1 for any other file.

    Raises:
        tf.errors.InvalidArgumentError: The header of a JPEG file is damaged.
    """
    return _size(encoded, _head(encoded))


def _size(encoded: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    start = tf.strings.substr(head, 0, 2)
    return tf.cond(
        start == b"\xff\xd8",
        lambda: tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64),
        rarely(lambda: _size_in_header(head, start)),
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


# === GIF ===


def _frame_pixels(encoded: tf.Tensor) -> tf.Tensor:
    pixels = tf.numpy_function(gif_pixels, [encoded], tf.int64, stateful=False)
    return tf.ensure_shape(pixels, ())


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
