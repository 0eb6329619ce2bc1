"""Mixed images and labels against NumPy, alone and inside tf.data."""

import numpy as np
import pytest
import tensorflow as tf

from keras_alexnet.data.mixing import Mixing

COUNT, CLASSES = 8, 5


def batch(count=COUNT):
    """Images of one grey each, so that shares can be read off them."""
    images = np.zeros((count, 16, 16, 3), np.float32)
    images += 10 * np.arange(count, dtype=np.float32)[:, None, None, None]
    return images, np.arange(count, dtype=np.int32) % CLASSES, np.ones(count, "f4")


def alone(mixing, *parts, seed):
    return [one.numpy() for one in mixing(*map(tf.constant, parts), tf.constant(seed))]


def in_tf_data(mixing, *parts, seed):
    dataset = tf.data.Dataset.from_tensors(parts)
    dataset = dataset.map(lambda *parts: mixing(*parts, tf.constant(seed)))
    return next(dataset.as_numpy_iterator())


both = pytest.mark.parametrize("run", [alone, in_tf_data])


def share_of(labels, number):
    """How much of an image is its own, according to its label."""
    return labels[number, number % CLASSES]


@both
def test_mixup_is_a_weighted_mean_of_an_image_and_the_next(run):
    images, labels, weights = batch()
    mixed, probabilities, unchanged = run(
        Mixing(CLASSES, mixup=0.4), images, labels, weights, seed=[1, 2]
    )
    assert mixed.dtype == np.float32 and mixed.shape == images.shape
    np.testing.assert_array_equal(unchanged, weights)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    for number in range(COUNT):
        share = share_of(probabilities, number)
        other = images[(number + 1) % COUNT]
        expected = share * images[number] + (1 - share) * other
        np.testing.assert_allclose(mixed[number], expected, atol=1e-3)


@both
def test_cutmix_lays_a_box_of_the_next_on_an_image_and_counts_its_pixels(run):
    images, labels, weights = batch()
    mixed, probabilities, _ = run(
        Mixing(CLASSES, cutmix=1.0), images, labels, weights, seed=[1, 2]
    )
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    for number in range(COUNT):
        own = mixed[number] == images[number]
        other = mixed[number] == images[(number + 1) % COUNT]
        assert np.all(own ^ other)
        assert share_of(probabilities, number) == pytest.approx(own.mean(), abs=1e-6)
        rows, columns = np.nonzero(other[..., 0])
        if len(rows):  # A box has no gaps.
            box = other[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert box.all()


def test_shares_follow_the_beta_distribution():
    images, labels, weights = batch(5)
    mixing = Mixing(CLASSES, mixup=0.4)
    shares = []
    for number in range(400):
        labels_of = alone(mixing, images[:, :1, :1], labels, weights, seed=[3, number])
        shares += [share_of(labels_of[1], index) for index in range(5)]
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.8), rel=0.1)


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_what_is_damaged_is_mixed_into_nothing(option):
    images, labels, weights = batch()
    weights[3] = 0
    mixing = Mixing(CLASSES, **{option: 1.0})
    mixed, probabilities, _ = alone(mixing, images, labels, weights, seed=[1, 2])
    np.testing.assert_array_equal(mixed[2], images[2])
    np.testing.assert_array_equal(probabilities[2], np.eye(CLASSES)[2])


def test_the_seed_decides_and_with_both_each_batch_has_one():
    images, labels, weights = batch()
    both_kinds = Mixing(CLASSES, mixup=1.0, cutmix=1.0)
    kinds = []
    for number in range(40):
        one, again = (
            alone(both_kinds, images, labels, weights, seed=[7, number])[0]
            for _ in range(2)
        )
        np.testing.assert_array_equal(one, again)
        kinds.append(bool(np.isin(one, images).all()))
    assert 8 < sum(kinds) < 32
