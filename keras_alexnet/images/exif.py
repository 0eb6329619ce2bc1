"""Which way up a photograph is, from its Exif header, in the graph."""

from __future__ import annotations

import tensorflow as tf

# Longer than any header that is read without asking how long the file is.
PADDING = bytes(64)

# The tag of the orientation among those of an Exif header (Exif 2.32, section 4.6.4).
ORIENTATION_TAG = 0x0112


def orient(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Image turned and mirrored as an Exif header says, by an integer of 1 to 8."""
    # Exif 2.32: 5 to 8 have rows and columns exchanged; then what is first lies last.
    turned = (orientation >= 5) & (orientation <= 8)
    image = tf.cond(turned, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    upside_down = tf.reduce_any(tf.equal(orientation, [3, 4, 7, 8]))
    image = tf.cond(upside_down, lambda: image[::-1], lambda: image)
    mirrored = tf.reduce_any(tf.equal(orientation, [2, 3, 6, 7]))
    return tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)


def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Orientation in a JPEG file's Exif header, int32; 1 where it does not say."""

    def header(position: tf.Tensor) -> tf.Tensor:
        return read_bytes(encoded, position, 8)

    def is_skipped(position: tf.Tensor, marker: tf.Tensor) -> tf.Tensor:
        # APP0 to APP15 and comments; what comes after them is the image.
        kind = marker[1]
        is_application = ((kind >= 0xE0) & (kind <= 0xEF)) | tf.equal(kind, 0xFE)
        return tf.equal(marker[0], 0xFF) & is_application & ~_is_exif(marker)

    def skip(position: tf.Tensor, marker: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        position += 2 + tf.maximum(marker[2] * 256 + marker[3], 2)
        return position, header(position)

    first = tf.constant(2)
    position, marker = tf.while_loop(is_skipped, skip, (first, header(first)))
    return tf.cond(
        _is_exif(marker),
        lambda: tiff_orientation(
            read_bytes(encoded, position + 10, marker[2] * 256 + marker[3])
        ),
        lambda: tf.constant(1),
    )


def _is_exif(marker: tf.Tensor) -> tf.Tensor:
    # FF E1, two bytes of length, "Exif".
    return tf.reduce_all(tf.equal(marker[:2], [0xFF, 0xE1])) & tf.reduce_all(
        tf.equal(marker[4:8], list(b"Exif"))
    )


def read_bytes(encoded: tf.Tensor, position: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Bytes of a file from a position on, as int32, and `len(PADDING)` zeros.

    Beyond the file's end there are zeros too, as far as those reach.
    """
    start = tf.minimum(position, tf.strings.length(encoded))
    part = tf.strings.join([tf.strings.substr(encoded, start, count), PADDING])
    return tf.cast(tf.io.decode_raw(part, tf.uint8), tf.int32)


def tiff_orientation(tiff: tf.Tensor) -> tf.Tensor:
    """Orientation in the first directory of a TIFF header, int32, 1 by default.

    Two bytes say the order of the others; then come the number 42 and the offset of the
    directory: the number of entries, and 12 bytes for each, tag, type, count and value.
    """
    little = tf.equal(tiff[0], ord("I"))

    def pair(low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
        return tf.where(little, low + 256 * high, 256 * low + high)

    size = tf.size(tiff)
    # Beyond 64 KiB there is no header; the upper half of the offset is zero then.
    offset = tf.where(little, pair(tiff[4], tiff[5]), pair(tiff[6], tiff[7]))
    offset = tf.minimum(offset, size - 2)
    entries = tf.minimum(
        pair(tiff[offset], tiff[offset + 1]), (size - offset - 2) // 12
    )
    table = tf.reshape(tiff[offset + 2 : offset + 2 + 12 * entries], (-1, 12))
    tags = pair(table[:, 0], table[:, 1])
    values = tf.boolean_mask(pair(table[:, 8], table[:, 9]), tags == ORIENTATION_TAG)
    found = tf.concat([values, [1]], axis=0)[0]
    return tf.where((found >= 1) & (found <= 8), found, 1)
