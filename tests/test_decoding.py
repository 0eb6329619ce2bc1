"""From a file's bytes to the RGB that a person sees, against PIL."""

import io
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_alexnet.images import decoding
from keras_alexnet.images.exif import exif_orientation

LUMINANCE = [0.299, 0.587, 0.114]

exported = tf.function(
    lambda encoded: decoding.decode(encoded, 3, in_graph=True),
    input_signature=[tf.TensorSpec((), tf.string)],
    autograph=False,
)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def smooth(height, width):
    """Colours that JPEG hardly changes."""
    rows, columns = np.mgrid[:height, :width]
    colors = [rows * 6, columns * 5, 255 - rows * 3 - columns * 3]
    return np.clip(np.stack(colors, -1), 0, 255).astype(np.uint8)


def encode(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def decode(encoded, channels=3):
    image = decoding.decode(tf.constant(encoded), channels)
    assert image.dtype == tf.uint8 and image.shape[-1] == channels
    return image.numpy()


def seen(encoded):
    """What PIL shows: turned upright, on white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"), np.int32)


def each_alone(files):
    return list(map(decode, files))


def each_in_tf_data(files):
    dataset = tf.data.Dataset.from_tensor_slices(files)
    dataset = dataset.map(lambda one: decoding.decode(one, 3))
    return list(dataset.as_numpy_iterator())


def each_exported(files):
    return [exported(tf.constant(file)).numpy() for file in files]


both = pytest.mark.parametrize("read", [each_alone, each_in_tf_data])
everywhere = pytest.mark.parametrize(
    "read", [each_alone, each_in_tf_data, each_exported]
)


# === Decoding ===


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "GIF"])
@pytest.mark.parametrize("kind", ["RGB", "P", "L", "1"])
def test_lossless_pixels_are_exact_in_one_channel_and_in_three(file_format, kind):
    image = Image.fromarray(noise(9, 7, 3))
    if kind == "P" or (file_format, kind) == ("GIF", "RGB"):
        image = image.quantize(16)
    image = image if image.mode == "P" else image.convert(kind)
    expected = np.asarray(image.convert("RGB"))
    encoded = encode(image, file_format)
    np.testing.assert_array_equal(decode(encoded), expected)
    # Only a JPEG is shrunk.
    found = decoding.decode(tf.constant(encoded), 3, shorter_side=2)
    np.testing.assert_array_equal(found, expected)
    if kind in ("L", "1"):
        np.testing.assert_array_equal(decode(encoded, 1), expected[..., :1])


def test_a_moving_gif_shows_its_first_frame():
    frames = [Image.fromarray(noise(9, 7)), Image.fromarray(255 - noise(9, 7))]
    encoded = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(encoded).shape == (9, 7, 3)
    np.testing.assert_array_equal(decode(encoded, 1)[..., 0], noise(9, 7))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_is_decoded_as_by_pil(options):
    encoded = encode(Image.fromarray(smooth(24, 30)), "JPEG", quality=95, **options)
    expected = np.asarray(Image.open(io.BytesIO(encoded)), np.int32)
    # Their inverse cosine transforms round differently.
    assert np.abs(decode(encoded) - expected).max() <= 4


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "GIF", "JPEG"])
def test_colours_become_their_luminance_in_one_channel(file_format):
    encoded = encode(Image.fromarray(smooth(24, 30)), file_format)
    expected = decode(encoded, 3) @ LUMINANCE
    np.testing.assert_allclose(decode(encoded, 1)[..., 0], expected, atol=0.51)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_cmyk_jpeg_shows_the_colours_of_its_inks(channels):
    image = Image.fromarray(smooth(24, 30)).convert("CMYK")
    # Adobe's files, and PIL's, hold the inks inverted; both decoders know.
    encoded = encode(image, "JPEG", quality=98, subsampling=0)
    expected = np.asarray(image.convert("RGB"), np.float64)
    if channels == 1:
        expected = expected @ np.array(LUMINANCE)[:, None]
    assert np.abs(decode(encoded, channels) - expected).max() <= 8


def test_a_ycck_jpeg_shows_what_pillow_shows():
    image = Image.fromarray(smooth(24, 30)).convert("CMYK")
    encoded = bytearray(encode(image, "JPEG", quality=98, subsampling=0))
    # The last byte of Adobe's segment: the inks are transformed as RGB is to YCbCr.
    place = encoded.index(b"Adobe") + 11
    assert encoded[place] == 0
    encoded[place] = 2
    expected = Image.open(io.BytesIO(bytes(encoded))).convert("RGB")
    assert np.ptp(expected) > 100
    found = decode(bytes(encoded))
    assert np.abs(found.astype(float) - np.asarray(expected, float)).max() <= 8


def test_a_png_of_16_bits_keeps_the_upper_8():
    pixels = np.random.default_rng(0).integers(0, 2**16, (9, 7), np.uint16)
    encoded = encode(Image.fromarray(pixels), "PNG")
    np.testing.assert_array_equal(decode(encoded, 1)[..., 0], pixels >> 8)
    np.testing.assert_array_equal(decode(encoded, 3)[..., 1], pixels >> 8)


@pytest.mark.parametrize(
    "encoded", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF8"]
)
def test_what_is_no_image_is_refused(encoded):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(encoded)


def test_a_jpeg_of_a_side_that_no_decoder_takes_is_too_large():
    encoded = bytearray(encode(Image.fromarray(noise(9, 7, 3)), "JPEG"))
    start = encoded.index(b"\xff\xc0") + 5
    encoded[start : start + 2] = (65_501).to_bytes(2, "big")
    with pytest.raises(tf.errors.InvalidArgumentError, match="the image is too large"):
        decode(bytes(encoded))


# === Orientation ===


@everywhere
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_photograph_stands_upright(read, kind):
    files = []
    for order in "<>":
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif.endian = order
            exif[0x010E] = "a description, longer than four bytes, before the next"
            exif[0x0112] = orientation
            image = Image.fromarray(smooth(24, 30))
            files.append(encode(image, kind, exif=exif.tobytes()))
    expected = [seen(file) for file in files]
    assert [image.shape[0] for image in expected] == [24] * 4 + [30] * 4 + (
        [24] * 4 + [30] * 4
    )
    for found, image in zip(read(files), expected, strict=True):
        assert np.abs(found - image).max() <= 4


def with_segments(encoded, *segments):
    """Inserts segments behind the first marker of a JPEG file."""
    body = b"".join(
        kind + (len(data) + 2).to_bytes(2, "big") + data for kind, data in segments
    )
    return encoded[:2] + body + encoded[2:]


def tiff(value, count=1):
    entry = b"\x12\x01\x03\0\x01\0\0\0" + value.to_bytes(2, "little") + b"\0\0"
    return b"Exif\0\0II*\0\x08\0\0\0" + count.to_bytes(2, "little") + entry + b"\0" * 4


def orientation_of(encoded):
    return int(exif_orientation(tf.constant(encoded)))


def test_the_orientation_is_found_behind_other_segments():
    others = [
        (b"\xff\xe2", b"ICC_PROFILE" + b"\0" * 3000),
        (b"\xff\xfe", b"a comment"),
        (b"\xff\xe1", b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"),
    ]
    plain = encode(Image.fromarray(noise(9, 7, 3)), "JPEG")
    assert orientation_of(plain) == 1
    encoded = with_segments(plain, *others, (b"\xff\xe1", tiff(6)))
    assert decode(encoded).shape == (7, 9, 3)


@pytest.mark.parametrize(
    "segment",
    [
        tiff(0),
        tiff(9),
        tiff(6)[:20],
        tiff(6)[:7],
        tiff(6, count=65535),
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0",
        b"Exif",
    ],
)
def test_a_damaged_exif_header_does_no_harm(segment):
    plain = encode(Image.fromarray(noise(9, 7, 3)), "JPEG")
    encoded = with_segments(plain, (b"\xff\xe1", segment))
    assert orientation_of(encoded) in (1, 6)
    for length in (2, 3, 5, 12, 20, len(segment)):
        assert orientation_of(encoded[:length]) in (1, 6)


def png_chunk(kind, data):
    checksum = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + checksum


@pytest.mark.parametrize(
    "header", [tiff(6)[6:14], tiff(6, count=65535)[6:], b"II", b""]
)
def test_a_damaged_exif_header_of_a_png_does_no_harm(header):
    pixels = noise(9, 7, 3)
    plain = encode(Image.fromarray(pixels), "PNG")
    # Behind the signature and the first chunk.
    encoded = plain[:33] + png_chunk(b"eXIf", header) + plain[33:]
    assert decode(encoded).shape in ((9, 7, 3), (7, 9, 3))


# === Transparency ===


@everywhere
def test_what_is_transparent_is_seen_on_white(read):
    for mode in ("RGBA", "LA"):
        pixels = noise(9, 7, len(mode))
        pixels[:3, :, -1], pixels[3:5, :, -1] = 0, 255
        encoded = encode(Image.fromarray(pixels, mode), "PNG")
        (found,) = read([encoded])
        assert np.abs(found - seen(encoded)).max() <= 1
        assert (found[:3] == 255).all()
        np.testing.assert_array_equal(
            found[3:5], np.broadcast_to(pixels[3:5, :, :-1], (2, 7, 3))
        )


@everywhere
def test_a_colour_of_a_png_or_a_gif_may_be_transparent(read):
    pixels = noise(9, 7, 3)
    color = tuple(int(value) for value in pixels[4, 4])
    palette = Image.fromarray(pixels).quantize(16)
    grey = Image.fromarray(pixels[..., 0])
    files = [
        encode(Image.fromarray(pixels), "PNG", transparency=color),
        encode(palette, "PNG", transparency=3),
        encode(grey, "PNG", transparency=color[0]),
    ]
    if read is not each_exported:
        number = int(np.asarray(palette)[4, 4])
        files.append(encode(palette, "GIF", transparency=number))
    for found, file in zip(read(files), files, strict=True):
        np.testing.assert_array_equal(found, seen(file))
    assert read is each_exported or (found[4, 4] == 255).all()


# === WebP and TIFF ===


@both
@pytest.mark.parametrize("kind, options", [("WEBP", {"lossless": True}), ("TIFF", {})])
def test_pillow_reads_what_tensorflow_does_not(read, kind, options):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [
        encode(Image.fromarray(np.squeeze(noise(9, 7, n))), kind, exif=exif, **options)
        for n in (3, 4, 1)
    ]
    for found, file in zip(read(files), files, strict=True):
        assert seen(file).shape == (7, 9, 3)
        assert np.abs(found - seen(file)).max() <= 1
        with pytest.raises(tf.errors.InvalidArgumentError, match="not a JPEG, PNG"):
            exported(tf.constant(file))


# === Bitmaps ===


@everywhere
def test_a_bitmap_has_the_colours_of_its_palette_or_its_own(read):
    image = Image.fromarray(noise(9, 7, 4)).convert("RGB")
    images = [image.quantize(16), *map(image.convert, ("L", "RGB", "RGBA"))]
    found = read([encode(one, "BMP") for one in images])
    for pixels, one in zip(found, images, strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(one.convert("RGB")))


# === Fused ===


@pytest.mark.parametrize(
    "shorter, ratio", [(63, 1), (127, 1), (128, 2), (255, 2), (256, 4), (512, 8)]
)
def test_a_jpeg_is_shrunk_as_far_as_it_stays_large_enough(shorter, ratio):
    encoded = encode(Image.fromarray(smooth(shorter, shorter + 100)), "JPEG")
    found = decoding.decode(tf.constant(encoded), 3, shorter_side=64)
    assert found.shape[:2] == (-(-shorter // ratio), -(-(shorter + 100) // ratio))
    assert min(found.shape[:2]) >= min(64, shorter)


def test_shrinking_is_averaging():
    pixels = smooth(64, 80)
    encoded = encode(Image.fromarray(pixels), "JPEG", quality=98, subsampling=0)
    found = decoding.decode(tf.constant(encoded), 3, shorter_side=32).numpy()
    averages = seen(encoded).reshape(32, 2, 40, 2, 3).mean(axis=(1, 3))
    assert np.abs(found - averages).max() <= 3


def test_an_export_holds_no_python():
    names = {
        node.op
        for node in exported.get_concrete_function()
        .graph.as_graph_def()
        .library.function
        for node in node.node_def
    }
    assert "DecodeJpeg" in names and not {"PyFunc", "PyFuncStateless"} & names
