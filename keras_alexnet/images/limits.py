"""Decompression-bomb guard: an image's size, by its header, before it is decoded."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

# Where Pillow too takes an image for an attack: a gibibyte in 6 bytes per pixel. A
# photograph of the largest cameras has 150 million; 30,000 x 30,000 would need 2.7 GB
# as bytes and four times that for resizing.
MAX_PIXELS = 178_956_970

# What libjpeg takes, of the 65,535 that a header can say.
MAX_JPEG_SIDE = 65_500

# What TensorFlow does not know, or reads some kinds of wrongly.
PILLOW_FORMATS = ("GIF", "BMP", "WEBP", "TIFF")

KINDS = "JPEG, PNG, GIF, BMP, WebP or TIFF"


def checked(encoded: tf.Tensor, *, in_graph: bool = False) -> tf.Tensor:
    """Returns the bytes of an image file whose size allows to decode it.

    Args:
        encoded: The file's bytes, a scalar string.
        in_graph: Whether to do without Python, as an export must; WebP and TIFF are no
            images then.

    Raises:
        tf.errors.InvalidArgumentError: It is empty, has no pixels, or more than
            `MAX_PIXELS`.
    """
    pixels = tf.reduce_prod(_size(encoded, in_graph))
    # All conditions at once, because each costs time, and in detail where they fail.
    is_fine = (pixels > 0) & (pixels <= MAX_PIXELS)
    return tf.cond(is_fine, lambda: encoded, rarely(lambda: _refused(encoded, pixels)))


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
    """Height and width, int64, in an image's header; 1 and -1 of what is no image.

    Raises:
        tf.errors.InvalidArgumentError: The header of a JPEG file is damaged.
    """
    return _size(encoded, in_graph=False)


def _size(encoded: tf.Tensor, in_graph: bool) -> tf.Tensor:
    start = tf.strings.substr(encoded, 0, 2)

    def other() -> tf.Tensor:
        if in_graph:
            return _size_in_header(encoded, start)
        return tf.cond(
            tf.reduce_any(start == [b"GI", b"BM", b"RI", b"II", b"MM"]),
            lambda: by_python(_pillow_size, encoded, tf.int64, (2,)),
            lambda: _size_in_header(encoded, start),
        )

    return tf.cond(start == b"\xff\xd8", lambda: _jpeg_size(encoded), rarely(other))


def _jpeg_size(encoded: tf.Tensor) -> tf.Tensor:
    try:
        return tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64)
    except tf.errors.InvalidArgumentError:  # Not in a graph, which only passes it on.
        size = _pillow_size(tf.convert_to_tensor(encoded).numpy(), ["JPEG"])
        if max(size) <= MAX_JPEG_SIDE:
            raise
        raise tf.errors.InvalidArgumentError(
            None,
            None,
            f"the image is too large: a JPEG file may have {MAX_JPEG_SIDE:,} pixels a "
            f"side and {MAX_PIXELS:,} in all",
        ) from None


def _size_in_header(encoded: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Reads height and width of a PNG, GIF or BMP file."""
    # Filled up with zeros, for what is shorter than a header.
    head = tf.strings.join([tf.strings.substr(encoded, 0, 26), bytes(26)])

    def sides(place: int, dtype: tf.DType, *, little: bool = True) -> tf.Tensor:
        data = tf.strings.substr(head, place, 2 * dtype.size)
        values = tf.io.decode_raw(data, dtype, little_endian=little)
        return tf.ensure_shape(values, (2,))[::-1]

    def unsigned(values: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.bitcast(values, tf.uint32), tf.int64)

    def bitmap() -> tf.Tensor:
        # Rows go from the top down where the height is negative.
        height, width = tf.unstack(sides(18, tf.int32))
        return tf.stack([tf.abs(tf.cast(height, tf.int64)), unsigned(width)])

    return tf.case(
        [
            (start == b"\x89P", lambda: unsigned(sides(16, tf.int32, little=False))),
            (start == b"GI", lambda: tf.cast(sides(6, tf.uint16), tf.int64)),
            (start == b"BM", bitmap),
        ],
        default=lambda: tf.constant([1, -1], tf.int64),
    )


def _pillow_size(encoded: bytes, formats: Sequence[str] = PILLOW_FORMATS) -> np.ndarray:
    """Reads height and width of an image from its header; 1 and -1 of no image."""
    try:
        with Image.open(io.BytesIO(encoded), formats=formats) as image:
            return np.array(image.size[::-1], np.int64)
    except Image.DecompressionBombError:
        return np.array((MAX_PIXELS + 1, 1), np.int64)
    except Exception:  # Pillow's readers raise whatever their parsing does.
        return np.array((1, -1), np.int64)
