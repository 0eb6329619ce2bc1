"""Each random change alone and inside tf.data, which can differ, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_alexnet.data.augmentation import (
    Augmentation,
    color_shift,
    crop,
    rotate_and_zoom,
)


def image(height=9, width=9, channels=3):
    pixels = np.random.default_rng(0).uniform(1, 255, (height, width, channels))
    return pixels.astype(np.float32)


def alone(function, *inputs):
    return function(*map(tf.constant, inputs)).numpy()


def in_tf_data(function, *inputs):
    inputs = [np.asarray(one)[None] for one in inputs]
    dataset = tf.data.Dataset.from_tensor_slices(tuple(inputs)).map(function)
    return next(dataset.as_numpy_iterator())


def many(augmentation, pixels, count):
    """What `count` seeds make of one image."""
    seeds = tf.data.Dataset.range(count).map(lambda i: tf.stack([7, i]))
    changed = seeds.map(
        lambda seed: augmentation(tf.constant(pixels), seed), num_parallel_calls=2
    ).batch(count)
    return next(changed.as_numpy_iterator())


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


@both
def test_a_crop_of_the_size_of_the_image_is_the_image(run):
    actual = run(lambda x: crop(x, 9, 0, tf.constant(0.99), tf.constant(0.0)), image())
    np.testing.assert_array_equal(actual, image())


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


def test_nothing_is_mirrored_unasked():
    assert (many(Augmentation(9), image(), 50) == image()).all()


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


@both
def test_images_that_are_not_square_turn_about_their_centre(run):
    actual = run(lambda x: rotate_and_zoom(x, np.pi, 1.0), image(5, 8))
    np.testing.assert_allclose(actual, np.rot90(image(5, 8), 2), atol=0.01)


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


@both
def test_the_colour_shift_is_a_sum_of_axes(run):
    alphas = np.array([0.3, -2.0, 1.0], np.float32)
    actual = run(lambda a: color_shift(a, AXES), alphas)
    expected = 0.3 * np.array(AXES[0]) - 2.0 * np.array(AXES[1]) + np.array(AXES[2])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


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


def test_colour_noise_is_not_cut_off_at_white():
    white = np.full((4, 4, 3), 255, np.float32)
    assert (
        many(Augmentation(4, color_noise=1.0, color_axes=AXES), white, 20).max() > 256
    )


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


@both
def test_the_result_is_float32_of_the_asked_size(run):
    actual = run(lambda x, s: EVERYTHING(x, s), image(9, 12), np.array([1, 2]))
    assert actual.dtype == np.float32 and actual.shape == (8, 8, 3)


def test_the_seed_decides_everything():
    pixels = tf.constant(image())
    one = EVERYTHING(pixels, tf.constant([3, 4], tf.int64)).numpy()
    np.testing.assert_array_equal(
        one, EVERYTHING(pixels, tf.constant([3, 4], tf.int64))
    )
    for other in ([3, 5], [4, 4], [4, 3]):
        changed = EVERYTHING(pixels, tf.constant(other, tf.int64)).numpy()
        assert (one != changed).any()


def test_an_image_is_changed_alike_alone_and_inside_tf_data():
    inputs = image(), np.array([5, 2**40])
    np.testing.assert_allclose(
        alone(EVERYTHING, *inputs),
        in_tf_data(EVERYTHING, *inputs),
        rtol=1e-5,
        atol=1e-3,
    )


def test_random_numbers_do_not_hang_together_across_operations():
    # Where the crop lies says nothing about the flip.
    pixels = np.arange(64, dtype=np.float32).reshape(8, 8, 1)
    changed = many(Augmentation(4, horizontal_flip=True), pixels, 2000)[..., 0]
    mirrored = changed[:, 0, 0] > changed[:, 0, 1]
    rows = changed.min(axis=(1, 2)) // 8
    columns = changed.min(axis=(1, 2)) % 8
    for place in (rows, columns):
        # |correlation| of 2000 pairs exceeds 0.09 once in ten thousand times.
        assert abs(np.corrcoef(place, mirrored)[0, 1]) < 0.09
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.09
