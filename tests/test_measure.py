"""What is measured of images, against NumPy, and the published values."""

import json

import numpy as np
from image_sources import pixel_examples

from keras_alexnet.data.measure import measure, published_axes
from keras_alexnet.images.preprocessing import Preprocessing


def statistics(source, channels=3, **options):
    shape = Preprocessing(4, 4, channels, (0.0,) * channels, 1.0)
    return measure(source, shape, **{"seed": 0, **options})


def measured(source, **options):
    found = statistics(source, **options)
    return np.array(found.mean), np.array(found.color_axes)


def colored(count):
    """Noise along one direction, more than across it."""
    generator = np.random.default_rng(0)
    values = generator.normal(0, 30, (count, 4, 4, 1)) * [1.0, 0.8, 0.4]
    values += generator.normal(128, 8, (count, 4, 4, 3))
    values = values.clip(0, 255).astype(np.uint8)
    return values, pixel_examples(values)


def test_mean_and_axes_of_the_colours_are_those_of_all_pixels():
    values, source = colored(50)
    mean, axes = measured(source)
    every = values.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(mean, every.mean(axis=0))
    # Axes p_i as long as their deviations: the covariance is the sum of p_i p_i^T.
    np.testing.assert_allclose(axes.T @ axes, np.cov(every.T, bias=True), atol=1e-6)
    lengths = np.linalg.norm(axes, axis=1)
    np.testing.assert_allclose(axes @ axes.T, np.diag(lengths**2), atol=1e-6)
    assert list(lengths) == sorted(lengths, reverse=True)


def test_of_many_images_as_many_as_asked_are_measured():
    values, source = colored(50)
    means = [measured(source, seed=seed, most=10)[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(means[0], means[1])
    assert (means[0] != means[2]).any()
    np.testing.assert_allclose(means[0], values.mean(axis=(0, 1, 2)), atol=10)


def test_images_of_one_colour_have_no_axes():
    source = pixel_examples(np.full((3, 4, 4, 3), 200, np.uint8))
    mean, axes = measured(source)
    np.testing.assert_allclose(mean, [200.0] * 3)
    np.testing.assert_allclose(axes, np.zeros((3, 3)), atol=1e-4)


def test_grey_images_have_one_mean_and_one_axis():
    pixels = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 1), np.uint8)
    mean, axes = measured(pixel_examples(pixels), channels=1)
    np.testing.assert_allclose(mean, [pixels.mean()])
    np.testing.assert_allclose(np.abs(axes), [[pixels.std()]])


def test_the_mean_image_is_the_mean_of_all_images():
    values, source = colored(50)
    np.testing.assert_allclose(
        statistics(source).mean_image.array(), values.mean(axis=0), rtol=1e-5
    )


def test_what_is_measured_is_printed_and_written():
    values, source = colored(50)
    found = statistics(source)
    written = json.loads(found.to_json())
    np.testing.assert_allclose(written["mean"], values.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(written["mean_image"], values.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(
        np.diag(written["color_deviations"]) ** 2,
        np.array(written["color_axes"]) @ np.array(written["color_axes"]).T,
        atol=1e-6,
    )
    lines = found.lines()
    assert "50 images" in lines[0] and len(lines) == 4
    assert f"{written['color_deviations'][0]:.2f}" in lines[1]


def test_the_published_axes_have_the_covariance_of_imagenet():
    axes = np.array(published_axes())
    # The deviations of red, green and blue are 74, 72 and 77 grey levels.
    np.testing.assert_allclose(np.diag(axes.T @ axes), [5476, 5184, 5935], rtol=1e-3)
    lengths = np.linalg.norm(axes, axis=1)
    np.testing.assert_allclose(lengths, [121.7801, 37.0939, 19.7208], rtol=1e-4)
    np.testing.assert_allclose(axes @ axes.T, np.diag(lengths**2), atol=0.1)
