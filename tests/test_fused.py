"""A part of a photograph at once, against decoding all of it and NumPy."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image

from keras_alexnet.images.decoding import JPEG_RATIOS, decode_jpeg_part, is_whole_jpeg
from keras_alexnet.images.preprocessing import Preprocessing

FUSED = Preprocessing(227, 256, 3, (0.0,) * 3, 1.0, fused_decode=True)
SQUASHED = Preprocessing(
    227, 256, 3, (0.0,) * 3, 1.0, resize_rule="squash", fused_decode=True
)


def whole_file(encoded, ratio=1):
    """TensorFlow's decoder, with the accurate DCT of other programs."""
    return tf.io.decode_jpeg(encoded, 3, ratio=ratio, dct_method="INTEGER_ACCURATE")


def photograph(height, width):
    image = Image.fromarray(load_sample_image("flower.jpg"))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def encode(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), np.float32)


def averages(length, size):
    """What each pixel counts for in averages over equal lengths."""
    edges = np.arange(size + 1) * length / size
    place = np.arange(length)
    begin = np.maximum(edges[:-1, None], place)
    end = np.minimum(edges[1:, None], place + 1)
    return np.maximum(end - begin, 0) * size / length


def averaged(part, size):
    rows, columns = (averages(length, size) for length in part.shape[:2])
    return np.einsum("ir,rcx,jc->ijx", rows, part, columns, optimize=True)


def run(preprocessing, encoded, *arguments, **options):
    function = tf.function(preprocessing.part_of_file, autograph=False)
    return function(tf.constant(encoded), *arguments, **options).numpy()


# === Decoding a part ===


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(
    "options",
    [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}],
    ids=str,
)
def test_a_part_has_the_pixels_of_the_whole(number, options):
    encoded = encode(photograph(139, 175), **options)
    whole = whole_file(encoded, ratio=JPEG_RATIOS[number]).numpy()
    first = np.array([3, 5], np.int32)
    last = np.array(whole.shape[:2], np.int32) - np.array([2, 1], np.int32)
    part = decode_jpeg_part(tf.constant(encoded), tf.constant(number), first, last)
    expected = whole[first[0] : last[0], first[1] : last[1]].astype(int)
    difference = np.abs(part.numpy() - expected)
    # Colours that are kept at half the size are interpolated from what is decoded.
    assert difference[:, 2:-2].max(initial=0) == 0 and difference.max() <= 12


@pytest.mark.parametrize("length", [0, 1, 2, 30, -2, -1])
def test_what_is_cut_off_is_not_whole(length):
    encoded = encode(photograph(20, 30))
    assert is_whole_jpeg(tf.constant(encoded))
    assert not is_whole_jpeg(tf.constant(encoded[:length]))


# === Resizing it ===


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("preprocessing", [FUSED, SQUASHED], ids=["centre", "squash"])
@pytest.mark.parametrize("shape", [(375, 500), (300, 257), (600, 800)], ids=str)
def test_what_shrinks_is_averaged_over_whole_pixels(preprocessing, shape, mirrored):
    encoded = encode(photograph(*shape), quality=95, subsampling=0)
    image = whole_file(encoded, ratio=2 if shape[0] == 600 else 1).numpy()
    low, lengths = np.zeros(2), np.array(image.shape[:2])
    if preprocessing is FUSED:
        low = (lengths - lengths.min()) // 2
        lengths = lengths.min()
    corner = np.array([7, 22])
    first = np.round(low + corner * lengths / 256).astype(int)
    last = np.round(low + (corner + 227) * lengths / 256).astype(int)
    expected = averaged(image[first[0] : last[0], first[1] : last[1]], 227)
    expected = expected[:, ::-1] if mirrored else expected
    found = run(preprocessing, encoded, corner, 227, mirrored=tf.constant(mirrored))
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("mirrored", [False, True])
def test_what_has_the_right_size_is_not_changed(mirrored):
    encoded = encode(photograph(512, 600), subsampling=0)
    halved = whole_file(encoded, ratio=2).numpy()
    expected = halved[3 : 3 + 227, 22 + 9 : 22 + 9 + 227]
    expected = expected[:, ::-1] if mirrored else expected
    found = run(FUSED, encoded, (3, 9), 227, mirrored=tf.constant(mirrored))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("extent", [(90.5, 120.0), (256.0, 150.0)], ids=str)
@pytest.mark.parametrize("shape", [(375, 500), (200, 180)], ids=str)
def test_what_grows_is_interpolated(shape, extent):
    encoded = encode(photograph(*shape), subsampling=0)
    corner = tf.constant([256 - extent[0], 3.25]) * (0.5, 1)
    found = run(FUSED, encoded, corner, 227, extent=tf.constant(extent))
    whole = whole_file(encoded)
    expected = FUSED.resize_part(whole, corner, 227, extent=extent).numpy()
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_the_difference_from_antialiased_resizing_is_as_documented():
    encoded = encode(photograph(375, 500), quality=90)
    square = Image.fromarray(pixels(encoded)[:, 62:437].astype(np.uint8))
    resized = square.resize((256, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(resized, np.float32)[7:234, 22:249]
    assert np.abs(run(FUSED, encoded, (7, 22), 227) - expected).mean() < 1.5


# === What is no such file ===


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_other_files_are_interpolated(kind):
    file = io.BytesIO()
    photograph(300, 320).quantize(256).save(file, kind)
    encoded = file.getvalue()
    expected = FUSED.resize_part(pixels(encoded), (7, 22), 227).numpy()
    found = run(FUSED, encoded, (7, 22), 227)
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("length", [-1, -2, -100])
def test_a_file_that_is_cut_off_is_refused_whatever_part_is_used(length):
    encoded = encode(photograph(400, 400))[:length]
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(FUSED, encoded, (0, 0), 227)


def test_the_same_flag_turns_all_of_it_off():
    exact = Preprocessing(227, 256, 3, (0.0,) * 3, 1.0)
    encoded = encode(photograph(600, 500), subsampling=0)
    whole = whole_file(encoded)
    expected = exact.resize_part(whole, (7, 22), 227).numpy()
    np.testing.assert_allclose(run(exact, encoded, (7, 22), 227), expected, atol=0.01)
