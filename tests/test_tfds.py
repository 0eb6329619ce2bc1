"""TensorFlow Datasets, on the mocked images that it makes itself."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.pipeline import evaluation_batches, training_batches
from keras_alexnet.data.sources import open_source
from keras_alexnet.preprocessing import Preprocessing

COUNT = 23


@pytest.fixture
def mocked(tmp_path):
    with tfds.testing.mock_data(num_examples=COUNT, data_dir=str(tmp_path)):
        yield


def imagenet(tmp_path, options="window=10"):
    spec = f"tfds:imagenet2012?train=train&test=validation&dir={tmp_path}&{options}"
    return open_source(spec, seed=0)


def small(channels):
    return Preprocessing(8, 8, channels, (0.0,) * channels, 1.0)


def labels(batches):
    return np.concatenate([labels[weights > 0] for _, labels, weights in batches])


def test_imagenet_has_its_classes_and_images(mocked, tmp_path):
    source = imagenet(tmp_path)
    assert len(source.class_names) == 1000 and source.class_names[0] == "n01440764"
    assert source.channels == 3 and len(source.train) == len(source.test) == COUNT
    assert source.train.name(7) == "imagenet2012/5.1.0/train/7"
    builder = tfds.builder("imagenet2012", data_dir=str(tmp_path))
    # What the mock draws depends on what is asked for.
    decoders = tfds.decode.PartialDecoding(
        {"image": True, "label": True}, {"image": tfds.decode.SkipDecoding()}
    )
    rows = builder.as_dataset(split="validation", decoders=decoders)
    expected = [row["label"] for row in tfds.as_numpy(rows)]
    batches = evaluation_batches(source.test, small(3), 5).as_numpy_iterator()
    np.testing.assert_array_equal(labels(batches), expected)
    assert not len(source.skipped)


def test_training_sees_every_image_once_and_may_start_anywhere(mocked, tmp_path):
    source = imagenet(tmp_path)

    def batches(first):
        return list(
            training_batches(
                source.train,
                small(3),
                Augmentation(8, crop_padding=2, horizontal_flip=True),
                batch_size=COUNT,
                seed=0,
                first_step=first,
                last_step=3,
            ).as_numpy_iterator()
        )

    whole = batches(0)
    for images, _, weights in whole:
        assert images.shape == (COUNT, 8, 8, 3) and weights.all()
    numbers = [sorted(labels.tolist()) for _, labels, _ in whole]
    assert numbers[0] == numbers[1] == numbers[2]
    for actual, expected in zip(batches(2), whole[2:], strict=True):
        np.testing.assert_array_equal(actual[0], expected[0])


@pytest.mark.parametrize(("name", "channels"), [("mnist", 1), ("cifar10", 3)])
def test_other_sets_of_images_do_as_well(mocked, tmp_path, name, channels):
    source = open_source(f"tfds:{name}?dir={tmp_path}", seed=0)
    assert source.channels == channels and len(source.class_names) == 10
    assert source.train.name(0).endswith("/train[:80%]/0")
    assert source.test.name(0).endswith("/train[80%:]/0")
    batches = evaluation_batches(source.test, small(channels), 8).as_numpy_iterator()
    assert len(labels(batches)) == COUNT


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tfds:coco/2017", "coco is not a set of images with one label each"),
        ("tfds:no_such_set", "TFDS cannot open no_such_set"),
        ("tfds:mnist?window=0", "window must be a number"),
        ("tfds:mnist?split=train", "Unknown option of the source 'split'"),
    ],
)
def test_what_cannot_be_used_is_refused(mocked, spec, message):
    with pytest.raises(ValueError, match=message):
        open_source(spec, seed=0)
