"""Batches: every image once per epoch, and a function of the step alone."""

import numpy as np
import pytest
import tensorflow as tf

from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.pipeline import (
    evaluation_batches,
    measure_colors,
    training_batches,
)
from keras_alexnet.data.sources import Examples
from keras_alexnet.preprocessing import Preprocessing

COUNT = 23
PLAIN = Augmentation(4)
RANDOM = Augmentation(4, crop_padding=2, horizontal_flip=True, rotation=20.0, zoom=0.1)


def examples(count=COUNT, size=4, channels=1):
    """Images whose labels are their numbers."""
    pixels = np.random.default_rng(0).integers(
        0, 256, (count, size, size, channels), np.uint8
    )
    labels = np.arange(count, dtype=np.int32)
    names = [str(label) for label in labels]
    return Examples(labels, names, lambda index: tf.gather(tf.constant(pixels), index))


def pixels(source):
    return np.stack([source.read(tf.constant(index)) for index in range(len(source))])


def preprocessing(size=4, channels=1, mean=None, scale=1.0):
    return Preprocessing(size, size, channels, mean or (0.0,) * channels, scale)


def batches(first, last, batch=5, seed=0, augmentation=PLAIN, source=None):
    dataset = training_batches(
        source or examples(),
        preprocessing(),
        augmentation,
        batch_size=batch,
        seed=seed,
        first_step=first,
        last_step=last,
    )
    return list(dataset.as_numpy_iterator())


def order(*arguments, **options):
    return np.concatenate([labels for _, labels in batches(*arguments, **options)])


# === Training ===


def test_a_batch_holds_normalised_images_and_their_labels():
    source, expected = examples(), preprocessing(mean=(100.0,), scale=0.5)
    dataset = training_batches(
        source, expected, PLAIN, batch_size=5, seed=0, first_step=0, last_step=2
    )
    for images, labels in dataset.as_numpy_iterator():
        assert images.shape == (5, 4, 4, 1) and images.dtype == np.float32
        assert labels.dtype == np.int32
        np.testing.assert_allclose(images, (pixels(source)[labels] - 100.0) * 0.5)


@pytest.mark.parametrize("batch", [1, 5, 40])
@pytest.mark.parametrize("count", [1, 7, 23])
def test_every_image_is_used_exactly_once_per_epoch(count, batch):
    steps = -(-3 * count // batch)
    labels = order(0, steps, batch, source=examples(count))
    for epoch in range(3):
        used = labels[epoch * count : (epoch + 1) * count]
        np.testing.assert_array_equal(np.sort(used), np.arange(count))


def test_every_epoch_has_an_order_of_its_own():
    epochs = order(0, COUNT).reshape(5, COUNT)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert not any((epoch == np.arange(COUNT)).all() for epoch in epochs)


def test_orders_are_like_those_of_shuffled_cards():
    source = examples(7, size=1)
    dataset = training_batches(
        source,
        preprocessing(size=1),
        Augmentation(1),
        batch_size=7,
        seed=0,
        first_step=0,
        last_step=1000,
    )
    epochs = np.stack([labels for _, labels in dataset.as_numpy_iterator()])
    # Every image stands in every place equally often: 6 x 6 degrees of freedom, whose
    # chi-squared exceeds 80 once in thirty thousand times.
    places = np.stack([np.bincount(place, minlength=7) for place in epochs.T])
    assert ((places - 1000 / 7) ** 2 / (1000 / 7)).sum() < 80
    # So do its neighbours: 5 degrees, beyond 28 as rarely.
    apart = np.bincount((epochs[:, 1] - epochs[:, 0]) % 7, minlength=7)[1:]
    assert ((apart - 1000 / 6) ** 2 / (1000 / 6)).sum() < 28


def test_all_batches_are_full_and_run_on_over_the_ends_of_epochs():
    sizes = [len(labels) for _, labels in batches(0, 12)]
    assert sizes == [5] * 12
    # 23 = 4 * 5 + 3: the fifth batch ends one epoch and begins the next.
    labels = order(0, 10)
    assert set(labels[20:23]) == set(range(COUNT)) - set(labels[:20])


@pytest.mark.parametrize("first", [1, 5, 11])
def test_a_run_that_starts_late_sees_what_it_would_have_seen(first):
    whole = batches(0, 12, augmentation=RANDOM)
    late = batches(first, 12, augmentation=RANDOM)
    assert len(late) == 12 - first
    for (images, labels), (expected, names) in zip(late, whole[first:], strict=True):
        np.testing.assert_array_equal(labels, names)
        np.testing.assert_array_equal(images, expected)


def test_nothing_before_the_first_step_is_read():
    seen = []

    def read(index):
        def remember(index):
            seen.append(int(index))
            return np.zeros((4, 4, 1), np.uint8)

        image = tf.numpy_function(remember, [index], tf.uint8)
        return tf.ensure_shape(image, (4, 4, 1))

    source = Examples(np.zeros(COUNT, np.int32), [""] * COUNT, read)
    batches(1000, 1002, source=source)
    assert len(seen) == 10


@pytest.mark.parametrize("batch", [1, 4, 15])
def test_the_size_of_batches_changes_neither_order_nor_augmentation(batch):
    def stream(batch):
        parts = batches(0, 60 // batch, batch, augmentation=RANDOM)
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    for actual, expected in zip(stream(batch), stream(5), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_an_image_is_augmented_differently_in_every_epoch():
    parts = batches(0, 46, augmentation=RANDOM)
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    views = {view.tobytes() for view in images[labels == 3]}
    assert len(views) == 10


def test_the_seed_decides_order_and_augmentation():
    one, same, other = (batches(0, 5, seed=s, augmentation=RANDOM) for s in (1, 1, 2))
    for (images, labels), (again, names) in zip(one, same, strict=True):
        np.testing.assert_array_equal(labels, names)
        np.testing.assert_array_equal(images, again)
    assert any((a[1] != b[1]).any() for a, b in zip(one, other, strict=True))


def test_the_largest_seed_is_as_good_as_any():
    labels = order(0, COUNT, seed=2**32 - 1)
    np.testing.assert_array_equal(np.bincount(labels), [5] * COUNT)


# === Evaluation ===


@pytest.mark.parametrize("batch", [1, 5, 22, 23, 24, 100])
def test_evaluation_sees_every_image_once_in_order(batch):
    source = examples()
    parts = list(evaluation_batches(source, preprocessing(), batch))
    assert [len(part) for part in parts] == [batch] * -(-len(source) // batch)
    np.testing.assert_array_equal(np.concatenate(parts)[: len(source)], pixels(source))


def test_evaluation_sees_the_normalised_centre():
    source = examples(size=6)
    part = next(
        iter(evaluation_batches(source, Preprocessing(4, 6, 1, (9.0,), 2.0), 3))
    )
    np.testing.assert_array_equal(part, (pixels(source)[:3, 1:5, 1:5] - 9.0) * 2.0)


# === Colours ===


def colored(count):
    """Noise along one direction, more than across it."""
    generator = np.random.default_rng(0)
    values = generator.normal(0, 30, (count, 4, 4, 1)) * [1.0, 0.8, 0.4]
    values += generator.normal(128, 8, (count, 4, 4, 3))
    values = values.clip(0, 255).astype(np.uint8)
    labels = np.zeros(count, np.int32)
    return values, Examples(
        labels, [""] * count, lambda index: tf.gather(tf.constant(values), index)
    )


def test_mean_and_axes_of_the_colours_are_those_of_all_pixels():
    values, source = colored(50)
    mean, axes = measure_colors(source, preprocessing(channels=3), seed=0)
    every = values.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(mean, every.mean(axis=0))
    # Axes p_i as long as their deviations: the covariance is the sum of p_i p_i^T.
    np.testing.assert_allclose(axes.T @ axes, np.cov(every.T, bias=True), atol=1e-6)
    lengths = np.linalg.norm(axes, axis=1)
    np.testing.assert_allclose(axes @ axes.T, np.diag(lengths**2), atol=1e-6)
    assert list(lengths) == sorted(lengths, reverse=True)


def test_of_many_images_as_many_as_asked_are_measured():
    values, source = colored(50)
    means = [
        measure_colors(source, preprocessing(channels=3), seed=seed, most=10)[0]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(means[0], means[1])
    assert (means[0] != means[2]).any()
    np.testing.assert_allclose(means[0], values.mean(axis=(0, 1, 2)), atol=10)


def test_images_of_one_colour_have_no_axes():
    source = Examples(
        np.zeros(3, np.int32),
        [""] * 3,
        lambda index: tf.fill((4, 4, 3), tf.constant(200, tf.uint8)),
    )
    mean, axes = measure_colors(source, preprocessing(channels=3), seed=0)
    np.testing.assert_allclose(mean, [200.0] * 3)
    np.testing.assert_allclose(axes, np.zeros((3, 3)), atol=1e-4)


def test_grey_images_have_one_mean_and_one_axis():
    source = examples()
    mean, axes = measure_colors(source, preprocessing(), seed=0)
    np.testing.assert_allclose(mean, [pixels(source).mean()])
    np.testing.assert_allclose(np.abs(axes), [[pixels(source).std()]])
