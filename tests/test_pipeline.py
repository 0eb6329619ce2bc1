"""Batches: every image once per epoch, and a function of the step alone."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from image_sources import pixel_examples

from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.memory import keep_decoded
from keras_alexnet.data.mixing import Mixing
from keras_alexnet.data.order import Shard
from keras_alexnet.data.pipeline import (
    augment_batch,
    evaluation_batches,
    training_batches,
)
from keras_alexnet.images.preprocessing import Preprocessing

COUNT = 23
PLAIN = Augmentation(4)
RANDOM = Augmentation(4, crop_padding=2, horizontal_flip=True, rotation=20.0, zoom=0.1)


def pixels(count=COUNT, size=4, channels=1):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, size, size, channels), np.uint8)


def examples(*arguments, **options):
    """Images whose labels are their numbers."""
    return pixel_examples(pixels(*arguments, **options))


def preprocessing(size=4, channels=1, mean=None, scale=1.0):
    return Preprocessing(size, size, channels, mean or (0.0,) * channels, scale)


def batches(first, last, batch=5, seed=0, augmentation=PLAIN, source=None, shard=None):
    dataset = training_batches(
        source or examples(),
        preprocessing(),
        augmentation,
        batch_size=batch,
        seed=seed,
        first_step=first,
        last_step=last,
        shard=shard,
    )
    return list(dataset.as_numpy_iterator())


@functools.cache
def sixty(batch=5):
    """The first sixty examples, augmented."""
    return batches(0, 60 // batch, batch, augmentation=RANDOM)


def order(*arguments, **options):
    return np.concatenate([labels for _, labels, _ in batches(*arguments, **options)])


# === Training ===


def test_a_batch_holds_normalised_images_and_their_labels():
    source, expected = examples(), preprocessing(mean=(100.0,), scale=0.5)
    dataset = training_batches(
        source, expected, PLAIN, batch_size=5, seed=0, first_step=0, last_step=2
    )
    for images, labels, weights in dataset.as_numpy_iterator():
        np.testing.assert_array_equal(weights, np.ones(5, np.float32))
        assert images.shape == (5, 4, 4, 1) and images.dtype == np.float32
        assert labels.dtype == np.int32
        np.testing.assert_allclose(images, (pixels()[labels] - 100.0) * 0.5)


@pytest.mark.parametrize("count, batch", [(1, 1), (1, 40), (7, 5), (23, 1), (23, 40)])
def test_every_image_is_used_exactly_once_per_epoch(count, batch):
    steps = -(-3 * count // batch)
    labels = order(0, steps, batch, source=examples(count))
    for epoch in range(3):
        used = labels[epoch * count : (epoch + 1) * count]
        np.testing.assert_array_equal(np.sort(used), np.arange(count))


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
    epochs = np.stack([labels for _, labels, _ in dataset.as_numpy_iterator()])
    # Every image stands in every place equally often: 6 x 6 degrees of freedom, whose
    # chi-squared exceeds 80 once in thirty thousand times.
    places = np.stack([np.bincount(place, minlength=7) for place in epochs.T])
    assert ((places - 1000 / 7) ** 2 / (1000 / 7)).sum() < 80
    # So do its neighbours: 5 degrees, beyond 28 as rarely.
    apart = np.bincount((epochs[:, 1] - epochs[:, 0]) % 7, minlength=7)[1:]
    assert ((apart - 1000 / 6) ** 2 / (1000 / 6)).sum() < 28


def test_all_batches_are_full_and_run_on_over_the_ends_of_epochs():
    sizes = [len(labels) for _, labels, _ in batches(0, 12)]
    assert sizes == [5] * 12
    # 23 = 4 * 5 + 3: the fifth batch ends one epoch and begins the next.
    labels = order(0, 10)
    assert set(labels[20:23]) == set(range(COUNT)) - set(labels[:20])


@pytest.mark.parametrize("first", [4, 11])
def test_a_run_that_starts_late_sees_what_it_would_have_seen(first):
    source = examples()
    options = {"augmentation": RANDOM, "source": source, "seed": 2**32 - 1}
    whole, late = (batches(step, 12, **options) for step in (0, first))
    for actual, expected in zip(late, whole[first:], strict=True):
        for one, other in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("first", "shard", "count"), [(1000, None, 16), (0, Shard(1, 4, 1), 4)]
)
def test_nothing_is_read_before_the_first_step_or_for_other_hosts(first, shard, count):
    seen = []
    source = examples()

    def read(index):
        tf.py_function(lambda index: seen.append(int(index)), [index], [])
        return source.read(index)

    watched = dataclasses.replace(source, read=read)
    batches(first, first + 4, batch=4, source=watched, shard=shard)
    assert len(seen) == count


@pytest.mark.parametrize("batch", [1, 4, 15])
def test_the_size_of_batches_changes_neither_order_nor_augmentation(batch):
    def stream(batch):
        return [np.concatenate(part) for part in zip(*sixty(batch), strict=True)]

    for actual, expected in zip(stream(batch), stream(5), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_an_image_is_augmented_differently_in_every_epoch():
    parts = batches(0, 46, augmentation=RANDOM)
    images, labels, _ = (np.concatenate(part) for part in zip(*parts, strict=True))
    views = {view.tobytes() for view in images[labels == 3]}
    assert len(views) == 10


def test_the_seed_decides_order_and_augmentation():
    one, same, other = (batches(0, 5, seed=s, augmentation=RANDOM) for s in (1, 1, 2))
    for (images, labels, _), (again, names, _) in zip(one, same, strict=True):
        np.testing.assert_array_equal(labels, names)
        np.testing.assert_array_equal(images, again)
    assert any((a[1] != b[1]).any() for a, b in zip(one, other, strict=True))


# The order in which runs have been trained: another one would not continue them.
def test_the_order_is_that_of_tensorflow_with_the_documented_key():
    seed, count = 3, COUNT
    for position, label in enumerate(order(0, 10, seed=seed)):
        epoch, place = divmod(position, count)
        key = tf.random.stateless_uniform(
            (2,), [seed, -1 - epoch], None, None, tf.int32, alg="philox"
        )
        index = tf.random.experimental.index_shuffle(np.int64(place), key, count - 1)
        assert label == index


# === Several devices and hosts ===


@pytest.mark.parametrize(("hosts", "replicas"), [(1, 2), (2, 3)])
def test_replicas_and_hosts_share_what_one_would_see(hosts, replicas):
    source = examples()
    options = {"source": source, "augmentation": RANDOM, "batch": 12}
    whole = batches(2, 6, **options)
    shares = [
        batches(2, 6, **options, shard=Shard(host, hosts, replicas))
        for host in range(hosts)
    ]
    for step, expected in enumerate(whole):
        own = [share[step * replicas + r] for share in shares for r in range(replicas)]
        for part, complete in zip(zip(*own, strict=True), expected, strict=True):
            np.testing.assert_array_equal(np.concatenate(part), complete)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="batch of 5 cannot be shared .* by 6 devices"):
        batches(0, 1, shard=Shard(0, 2, 3))


# === Evaluation ===


@pytest.mark.parametrize("batch", [1, 5, 22, 23, 24, 100])
def test_evaluation_sees_every_image_once_in_order(batch):
    source = examples()
    parts = list(evaluation_batches(source, preprocessing(), batch).as_numpy_iterator())
    assert [len(images) for images, _, _ in parts] == [batch] * -(-COUNT // batch)
    images, labels, weights = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    np.testing.assert_array_equal(images[:COUNT], pixels())
    np.testing.assert_array_equal(labels[:COUNT], np.arange(COUNT))
    np.testing.assert_array_equal(weights, np.arange(len(weights)) < COUNT)


def test_replicas_and_hosts_share_evaluation():
    source = examples()
    seen = []
    for host in range(2):
        shard = Shard(host, 2, 2)
        parts = list(evaluation_batches(source, preprocessing(), 8, shard))
        assert [len(images) for images, _, _ in parts] == [2] * 6
        for _, labels, weights in parts:
            seen += labels.numpy()[weights.numpy() > 0].tolist()
    assert sorted(seen) == list(range(COUNT))


def test_evaluation_sees_the_normalised_centre_or_for_ten_views_all():
    source, expected = examples(size=6), Preprocessing(4, 6, 1, (9.0,), 2.0)
    centre, whole = (
        next(iter(evaluation_batches(source, expected, 3, whole=whole)))[0]
        for whole in (False, True)
    )
    np.testing.assert_array_equal(centre, (pixels(size=6)[:3, 1:5, 1:5] - 9.0) * 2.0)
    np.testing.assert_array_equal(whole, pixels(size=6)[:3])


# === Mixing, and augmentation on the device ===


def test_mixed_batches_have_probabilities_in_place_of_labels():
    source = examples()
    options = {"batch_size": 5, "seed": 1, "first_step": 3, "last_step": 5}
    plain, mixed = (
        list(training_batches(source, preprocessing(), PLAIN, mixing=one, **options))
        for one in (None, Mixing(COUNT, mixup=1.0))
    )
    for (images, labels, _), (blend, shares, _) in zip(plain, mixed, strict=True):
        assert shares.shape == (5, COUNT) and blend.shape == images.shape
        own = tf.gather(shares, labels, batch_dims=1)[:, None, None, None]
        expected = own * images + (1 - own) * tf.roll(images, -1, axis=0)
        np.testing.assert_allclose(blend, expected, atol=1e-3)


def test_the_device_makes_the_batches_that_the_host_makes():
    source, expected = examples(), preprocessing(mean=(100.0,), scale=0.5)
    options = {"batch_size": 5, "seed": 1, "first_step": 3, "last_step": 6}
    host = training_batches(source, expected, RANDOM, **options)
    device = training_batches(source, expected, RANDOM, on_device=True, **options)
    for batch, (images, labels, weights) in zip(device, host, strict=True):
        assert batch[0][0].dtype == tf.uint8
        made = augment_batch(batch, expected, RANDOM)
        np.testing.assert_allclose(made[0], images, atol=1e-3)
        np.testing.assert_array_equal(made[1], labels)
        np.testing.assert_array_equal(made[2], weights)


# === Decoded images, kept in memory ===


@pytest.mark.parametrize(("size", "damaged"), [(6, True), (9, False)])
def test_images_in_memory_are_those_in_the_files(size, damaged):
    files, expected = examples(size=size), Preprocessing(4, 6, 1, (9.0,), 0.5)
    pixel_read = files.read

    def read(index):
        encoded, label = pixel_read(index)
        is_broken = tf.reduce_any(index == tf.constant([2, 17], tf.int64))
        return tf.where(is_broken, b"", encoded), label

    if damaged:
        files = dataclasses.replace(files, read=read)
    kept = keep_decoded(files, expected)
    # Resized ones are not whole numbers.
    assert kept.pixels.dtype == (np.uint8 if size == 6 else np.float32)
    assert {name for name, _ in kept.skipped} == ({"2", "17"} if damaged else set())
    options = {"batch_size": 10, "seed": 1, "first_step": 1, "last_step": 4}
    found, batches = (
        list(training_batches(one, expected, RANDOM, **options))
        for one in (files, kept)
    )
    chosen = np.array([3, 2, 11, 5, 17])
    found, batches = (
        parts + list(evaluation_batches(one.select(chosen), expected, 4))
        for parts, one in ((found, files), (batches, kept))
    )
    for batch, same in zip(batches, found, strict=True):
        for part, like in zip(batch, same, strict=True):
            np.testing.assert_allclose(part, like, atol=1e-3)
    assert kept.pixels.fits(expected)
    assert not kept.pixels.fits(dataclasses.replace(expected, resize_size=7))


def test_images_that_do_not_fit_into_memory_are_not_kept():
    large = dataclasses.replace(preprocessing(), resize_size=2**12)
    assert keep_decoded(examples(), large).pixels is None
