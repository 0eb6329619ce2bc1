"""Each random change alone and inside tf.data, which can differ, against NumPy."""

import dataclasses
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_alexnet.data import augmentation as augmentations
from keras_alexnet.data.augmentation import (
    BRIGHTNESS,
    CONTRAST,
    SATURATION,
    Augmentation,
    jitter,
)
from keras_alexnet.images.mean_image import MeanImage
from keras_alexnet.images.preprocessing import MODES, Preprocessing


def image(height=9, width=9, channels=3):
    pixels = np.random.default_rng(0).uniform(1, 255, (height, width, channels))
    return pixels.astype(np.float32)


def alone(function, *inputs):
    return function(*map(tf.constant, inputs)).numpy()


def each_alone(function, *inputs):
    return [alone(function, *one) for one in zip(*inputs, strict=True)]


def in_tf_data(function, *inputs):
    inputs = tuple(np.asarray(one)[None] for one in inputs)
    return next(iter(each_in_tf_data(function, *inputs)))


def each_in_tf_data(function, *inputs):
    dataset = tf.data.Dataset.from_tensor_slices(inputs).map(function)
    return list(dataset.as_numpy_iterator())


def change(augmentation, pixels, seed, epoch=0):
    """What a seed makes of one image."""
    draws = augmentation.draw(seed, tf.reshape(epoch, (1,)))
    return augmentation.batch(pixels[None], draws)[0]


def many(augmentation, pixels, count):
    """What `count` seeds make of one image."""
    seeds = tf.data.Dataset.range(count).map(lambda i: tf.stack([7, i]))
    changed = seeds.map(
        lambda seed: change(augmentation, tf.constant(pixels), seed),
        num_parallel_calls=2,
    ).batch(count)
    return next(changed.as_numpy_iterator())


def crop(pixels, size, padding, vertical, horizontal, mirrored=False):
    places = tf.stack([[vertical, horizontal]])
    mirrored = tf.reshape(mirrored, (1,))
    return augmentations._crop(pixels[None], size, padding, places, mirrored)[0]


def rotate_and_zoom(pixels, angle, scale):
    numbers = (tf.reshape(tf.cast(one, tf.float32), (1,)) for one in (angle, scale))
    return augmentations._rotate_and_zoom(pixels[None], *numbers)[0]


both = pytest.mark.parametrize("run", [alone, in_tf_data])


# === Crop ===


@both
@pytest.mark.parametrize("place", [0.0, 0.24, 0.25, 0.5, 0.99, 1 - 2**-24])
def test_a_crop_is_a_slice_of_the_image(run, place):
    # 9 - 6 + 1 = 4 offsets, each a quarter of [0, 1).
    top = int(place * 4)
    left = 3 - top
    places = np.float32(place), np.float32((left + 0.5) / 4)
    pixels = image()
    actual = run(lambda x, v, h: crop(x, 6, 0, v, h), pixels, *places)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, pixels[top : top + 6, left : left + 6])


@both
def test_padding_is_a_border_of_zeros(run):
    pixels = image(4, 4)
    actual = run(lambda x: crop(x, 10, 3, tf.constant(0.0), tf.constant(0.9)), pixels)
    np.testing.assert_array_equal(actual, np.pad(pixels, ((3, 3), (3, 3), (0, 0))))


def test_all_offsets_are_reached_equally_often():
    # Pixels that say where they are: 5 x 5 offsets.
    pixels = np.arange(64, dtype=np.float32).reshape(8, 8, 1)
    corners = many(Augmentation(4), pixels, 5000)[:, 0, 0, 0]
    rows, columns = np.divmod(corners.astype(int), 8)
    counts = np.bincount(rows * 5 + columns, minlength=25)
    # Chi-squared with 24 degrees of freedom exceeds 52 once in a thousand times.
    assert len(counts) == 25 and ((counts - 200) ** 2 / 200).sum() < 52


# === Flip ===


def test_half_of_the_images_are_mirrored_and_no_pixel_is_changed():
    pixels = image()
    changed = many(Augmentation(9, horizontal_flip=True), pixels, 1000)
    same = (changed == pixels).all(axis=(1, 2, 3))
    mirrored = (changed == pixels[:, ::-1]).all(axis=(1, 2, 3))
    assert np.all(same ^ mirrored)
    # Four standard deviations of a fair coin: sqrt(1000) / 2 = 15.8 each.
    assert abs(mirrored.sum() - 500) < 64


# === Rotation and zoom ===


@both
@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("quarters", [-1, 0, 1, 2])
def test_quarter_turns_are_counter_clockwise(run, size, quarters):
    angle = np.float32(quarters * np.pi / 2)
    actual = run(lambda x, a: rotate_and_zoom(x, a, 1.0), image(size, size), angle)
    expected = np.rot90(image(size, size), quarters)
    assert actual.dtype == np.float32
    # A sine that is not exactly zero may put an edge a hair outside, where zeros begin.
    np.testing.assert_allclose(actual, expected, atol=0.01)


@both
def test_zoom_enlarges_about_the_centre(run):
    pixels = image()
    actual = run(lambda x: rotate_and_zoom(x, 0.0, 2.0), pixels)
    # Twice as large: every second pixel of the result is one of the middle five.
    np.testing.assert_allclose(actual[::2, ::2], pixels[2:7, 2:7], rtol=1e-5)
    between = (pixels[2:7, 2:6] + pixels[2:7, 3:7]) / 2
    np.testing.assert_allclose(actual[::2, 1::2], between, rtol=1e-5)


@both
def test_what_comes_from_outside_is_zero(run):
    actual = run(lambda x: rotate_and_zoom(x, 0.0, 0.5), image())
    np.testing.assert_allclose(actual[2:7, 2:7], image()[::2, ::2], rtol=1e-5)
    assert not actual[:2].any() and not actual[:, 7:].any()


def test_angles_and_scales_stay_in_their_ranges_and_spread_over_them():
    # A bright point right of the centre shows angle and scale.
    pixels = np.zeros((41, 41, 1), np.float32)
    pixels[20, 34] = 1.0
    changed = many(Augmentation(41, rotation=30.0, zoom=0.2), pixels, 400)[..., 0]
    rows, columns = np.mgrid[-20:21, -20:21]
    total = changed.sum(axis=(1, 2))
    y = (changed * rows).sum(axis=(1, 2)) / total
    x = (changed * columns).sum(axis=(1, 2)) / total
    angles, scales = np.degrees(np.arctan2(-y, x)), np.hypot(x, y) / 14
    assert -31.5 < angles.min() < -27 and 27 < angles.max() < 31.5
    assert 0.78 < scales.min() < 0.83 and 1.17 < scales.max() < 1.22
    # Independent: |correlation| of 400 pairs exceeds 0.2 once in ten thousand times.
    assert abs(np.corrcoef(angles, scales)[0, 1]) < 0.2


# === Colour ===

AXES = ((40.0, 38.0, 30.0), (9.0, -1.0, -11.0), (2.0, -4.0, 2.0))


def test_every_pixel_is_shifted_by_the_same_colour_of_the_stated_covariance():
    pixels = image()
    augmentation = Augmentation(9, color_noise=0.1, color_axes=AXES)
    shifts = many(augmentation, pixels, 20000) - pixels
    np.testing.assert_allclose(shifts, shifts[:, :1, :1] + 0 * shifts, atol=1e-4)
    shifts = shifts[:, 0, 0]
    # Sum of a_i p_i with independent a_i of deviation 0.1: 0.01 P^T P.
    expected = 0.01 * np.array(AXES).T @ np.array(AXES)
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=0.05 * expected.max())
    np.testing.assert_allclose(shifts.mean(0), 0, atol=0.15)
    # Along each axis by itself, so that the short ones are not lost in the long one.
    alphas = shifts @ np.linalg.inv(AXES)
    np.testing.assert_allclose(alphas.std(0), 0.1, rtol=0.05)


# === Together ===

EVERYTHING = Augmentation(
    8,
    crop_padding=1,
    horizontal_flip=True,
    rotation=10.0,
    zoom=0.1,
    color_noise=0.1,
    color_axes=AXES,
)


def everything(pixels, seed):
    return change(EVERYTHING, pixels, seed)


def test_the_seed_decides_everything():
    pixels = tf.constant(image())
    one = everything(pixels, tf.constant([3, 4], tf.int64)).numpy()
    np.testing.assert_array_equal(
        one, everything(pixels, tf.constant([3, 4], tf.int64))
    )
    for other in ([3, 5], [4, 4], [4, 3]):
        changed = everything(pixels, tf.constant(other, tf.int64)).numpy()
        assert (one != changed).any()


def test_an_image_is_changed_alike_alone_and_inside_tf_data():
    inputs = image(), np.array([5, 2**40])
    np.testing.assert_allclose(
        alone(everything, *inputs),
        in_tf_data(everything, *inputs),
        rtol=1e-5,
        atol=1e-3,
    )


# === The 2012 scheme, from a file ===

COLORS = Augmentation(
    227, horizontal_flip=True, color_noise=0.1, color_axes=AXES, color_mean=None
)


def photograph(height=300, width=400):
    """Smooth colours: the file is small and decodes quickly."""
    rows, columns = np.mgrid[:height, :width] / 40
    colors = [np.sin(rows), np.cos(columns), np.sin(rows + columns)]
    return (128 + 120 * np.stack(colors, -1)).astype(np.uint8)


def encoded(pixels, file_format="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def preprocessing(**options):
    return Preprocessing(227, 256, 3, (0.0,) * 3, 1.0, **options)


@pytest.mark.parametrize("run", [each_alone, each_in_tf_data])
@pytest.mark.parametrize("rule", ["shorter_side", "squash"])
@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (100, 90), (256, 256)])
def test_only_what_is_used_is_resized_and_the_pixels_are_the_same(run, shape, rule):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected = preprocessing(resize_rule=rule)
    square = pixels
    if rule == "shorter_side":
        side = min(shape)
        top, left = ((length - side) // 2 for length in shape)
        square = pixels[top : top + side, left : left + side]
    whole = tf.image.resize(square, (256, 256), antialias=True).numpy()
    augmentation = Augmentation(227, horizontal_flip=True)
    every = [augmentation.draw(np.array([1, x]))[0].numpy() for x in range(4)]
    files = np.array([encoded(pixels)] * 4, object)
    found = run(
        lambda file, draws: augmentation.of_file(file, expected, draws),
        files,
        np.stack(every),
    )
    for draws, actual in zip(every, found, strict=True):
        top, left = (draws[2:4] * np.float32(30)).astype(int)
        view = whole[top : top + 227, left : left + 227]
        view = view[:, ::-1] if draws[4] < 0.5 else view
        np.testing.assert_allclose(actual, view, atol=0.01)


def test_offsets_are_uniform_over_all_33_positions_of_224_in_256():
    augmentation = Augmentation(224)
    draws = augmentation.draw((5, 0), tf.zeros((6000,), tf.int64))
    parts = np.array([augmentation._part((256, 256), one)[0] for one in draws])
    for offsets in parts.T:
        counts = np.bincount(offsets.astype(int), minlength=33)
        expected = 6000 / 33
        # Chi-squared with 32 degrees of freedom exceeds 63 once in a thousand times.
        assert len(counts) == 33
        assert ((counts - expected) ** 2 / expected).sum() < 63


# === Colour noise, of the paper and of the program ===


def with_noise(**options):
    return Augmentation(9, color_axes=AXES, **{"color_noise": 0.1, **options})


@pytest.mark.parametrize("image_of_means", [False, True])
def test_the_program_divides_what_is_mean_free(image_of_means):
    pixels, seed = image(), tf.constant([1, 2], tf.int64)
    mean = np.array([120.0, 110.0, 100.0], np.float32)
    given = tuple(mean.tolist())
    if image_of_means:
        mean = np.random.default_rng(1).uniform(90, 130, (11, 11, 3))
        mean = mean.astype(np.float32)
        given, mean = MeanImage.from_array(mean), mean[1:10, 1:10]
    shift = change(with_noise(), pixels, seed).numpy() - pixels
    expected = (pixels - mean + shift) / 1.1 + mean
    actual = change(with_noise(color_mean=given), pixels, seed)
    np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_the_strength_of_the_noise_may_change_with_the_epoch():
    augmentation = with_noise(color_noise=(0.1, 0.05, 0.0))
    pixels, seed = image(), tf.constant([1, 2], tf.int64)
    full, half, none, later = (
        change(augmentation, pixels, seed, epoch).numpy() - pixels
        for epoch in (0, 1, 2, 9)
    )
    np.testing.assert_allclose(half, full / 2, atol=1e-4)
    assert np.abs(full).max() > 0.1 and not none.any() and not later.any()


# === On a device ===


@pytest.mark.parametrize(
    "augmentation",
    [COLORS, Augmentation(227, crop_padding=8, rotation=9.0, zoom=0.1)],
    ids=["2012", "rotation"],
)
def test_a_device_makes_of_a_batch_what_the_host_makes_of_each_image(augmentation):
    file, expected = encoded(photograph()), preprocessing()
    seeds = [tf.constant([3, number], tf.int64) for number in range(4)]
    resized = expected.resize(expected.decode(file))
    images = tf.stack([tf.cast(tf.round(resized), tf.uint8)] * 4)
    draws = augmentation.draw(seeds[0], tf.zeros((4,), tf.int64))
    batch = tf.function(augmentation.batch)(images, draws).numpy()
    for found, pixels, seed, row in zip(batch, images, seeds, draws, strict=True):
        np.testing.assert_allclose(found, change(augmentation, pixels, seed), atol=1e-3)
        # The host has not rounded what it resized.
        whole = augmentation.of_file(tf.constant(file), expected, row)
        np.testing.assert_allclose(found, whole, atol=0.51)


MEAN_IMAGE = np.random.default_rng(3).uniform(90, 140, (240, 240, 3))


@pytest.mark.parametrize(
    "augmentation",
    [
        COLORS,
        dataclasses.replace(COLORS, color_noise=0.0),
        dataclasses.replace(COLORS, color_mean=(120.0, 110.0, 100.0)),
        dataclasses.replace(COLORS, modern=True),
    ],
    ids=["paper", "no noise", "program", "modern"],
)
@pytest.mark.parametrize(
    "expected",
    [
        dataclasses.replace(MODES["caffe"], scale=0.5),
        dataclasses.replace(MODES["torch"], image_size=227),
        dataclasses.replace(MODES["caffe"], mean_image=MEAN_IMAGE, pixel_max=1.0),
    ],
    ids=["caffe", "torch", "mean image"],
)
def test_the_network_sees_what_is_normalised_afterwards(augmentation, expected):
    file = tf.constant(encoded(photograph()))
    draws = augmentation.draw((3, 1))[0]
    afterwards = augmentation.of_file(file, expected.geometry, draws)
    found = augmentation.of_file(file, expected, draws)
    np.testing.assert_allclose(
        found, expected.normalize(afterwards), rtol=1e-5, atol=1e-4
    )


# === The modern scheme ===

MODERN = Augmentation(64, horizontal_flip=True, modern=True)


def test_parts_have_areas_and_aspects_in_range_and_lie_inside():
    draws = MODERN.draw((2, 0), tf.zeros((500,), tf.int64))
    parts = np.array([np.ravel(MODERN._part((256, 256), one)) for one in draws])
    top, left, height, width = parts.T
    area, aspect = height * width / 256**2, width / height
    assert area.min() > 0.079 and area.max() <= 1 and 0.45 < area.mean() < 0.6
    assert aspect.min() > 0.749 and aspect.max() < 1.334
    assert min(top.min(), left.min()) >= 0
    assert max((top + height).max(), (left + width).max()) <= 256.001


@both
def test_a_part_is_resized_as_by_pil(run):
    pixels = photograph(256, 256)
    seed = np.array([2, 7])
    draws = MODERN.draw(seed)[0].numpy()
    top, left, height, width = np.ravel(MODERN._part((256, 256), draws))
    box = (left, top, left + width, top + height)
    channels = [
        Image.fromarray(pixels[..., channel].astype(np.float32)).resize(
            (64, 64), Image.BILINEAR, box=box
        )
        for channel in range(3)
    ]
    expected = np.stack(channels, -1)
    expected = expected[:, ::-1] if draws[4] < 0.5 else expected
    actual = run(lambda x, d: MODERN._resized_part(x, d), pixels, draws)
    # PIL lets nothing outside the box have an influence.
    np.testing.assert_allclose(actual[2:-2, 2:-2], expected[2:-2, 2:-2], atol=0.5)


@both
def test_colours_jitter_as_their_formulas_say(run):
    pixels = np.stack([image(5, 5), image(5, 5)[::-1]])
    draws = np.array([[0.9, 0.2, 0.7], [0.1, 0.5, 0.5]], np.float32)
    actual = run(jitter, pixels, draws)
    signs = 2 * draws.astype(np.float64)[:, :, None, None, None] - 1
    expected = np.clip(pixels / 255 + BRIGHTNESS * signs[:, 0], 0, 1)
    means = expected.mean(axis=(1, 2), keepdims=True)
    expected = (expected - means) * (1 + CONTRAST * signs[:, 1]) + means
    expected = np.clip(expected, 0, 1)
    # The least channel moves away from the largest, the others in proportion, until it
    # is 0: saturation is (largest - least) / largest.
    largest = expected.max(-1, keepdims=True)
    saturation = 1 - expected.min(-1, keepdims=True) / largest
    factor = 1 + SATURATION * signs[:, 2]
    factor = np.minimum(factor, 1 / np.maximum(saturation, 1e-9))
    expected = largest - (largest - expected) * factor
    np.testing.assert_allclose(actual, 255 * expected, atol=0.01)


def test_jitter_uses_no_random_numbers_of_kerass_own():
    pixels = image(4, 4)[None]
    draws = tf.constant([[0.3, 0.6, 0.9]])
    one = jitter(pixels, draws)
    keras.utils.set_random_seed(99)
    np.testing.assert_array_equal(one, jitter(pixels, draws))
