"""TensorFlow Datasets: mocked images that it makes itself, and sets on the disk."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from image_sources import opened, picture

from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.pipeline import evaluation_batches, training_batches
from keras_alexnet.data.records import find_records
from keras_alexnet.images.preprocessing import Preprocessing

COUNT = 23


@pytest.fixture
def mocked(tmp_path):
    with tfds.testing.mock_data(num_examples=COUNT, data_dir=str(tmp_path)):
        yield


def small(channels):
    return Preprocessing(8, 8, channels, (0.0,) * channels, 1.0)


def labels(batches):
    return np.concatenate([labels[weights > 0] for _, labels, weights in batches])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tfds:coco/2017", "coco is not a set of images with one label each"),
        ("tfds:no_such_set", "TFDS cannot open no_such_set"),
        ("tfds:mnist?split=train", "Unknown option of the source 'split'"),
    ],
)
def test_what_cannot_be_used_is_refused(mocked, spec, message):
    with pytest.raises(ValueError, match=message):
        opened(spec)


# === Sets on the disk ===


class Pictures(tfds.core.GeneratorBasedBuilder):
    """Twenty images, number by number, of five classes in turn."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=list("abcde")),
                    "note": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(20):
            image = np.asarray(picture(number))
            yield number, {"image": image, "label": number % 5, "note": "none"}


@pytest.fixture
def prepared(tmp_path):
    """The folder of data sets, and the one file of the one in it."""
    Pictures(data_dir=str(tmp_path)).download_and_prepare()
    (file,) = (tmp_path / "pictures").rglob("*.tfrecord*")
    return tmp_path, file


def pictures(folder, train, test):
    return opened(f"tfds:pictures?train={train}&test={test}&dir={folder}")


def used(part):
    return labels(evaluation_batches(part, small(3), 4).as_numpy_iterator()).tolist()


def test_splits_are_those_that_tfds_writes(prepared):
    folder, file = prepared
    for split in ("train", "train[:25%]", "train[7:]", "train[-3:]", "train[25%:50%]"):
        source = pictures(folder, split, "train[2:4]+train[18:]")
        rows = tfds.load("pictures", split=split, data_dir=str(folder))
        expected = [int(row["label"]) for row in tfds.as_numpy(rows)]
        assert used(source.train) == expected and len(source.train) == len(expected)
        assert used(source.test) == [2, 3, 3, 4]
    assert source.train.name(0) == f"{file}:5" and source.test.name(2) == f"{file}:18"
    source = opened(f"tfds:pictures?dir={folder}")
    assert source.channels == 3 and source.class_names == tuple("abcde")
    assert used(source.test) == [1, 2, 3, 4] and len(source.train) == 16


def test_all_images_are_shuffled_and_training_starts_anywhere(prepared):
    source = pictures(prepared[0], "train", "train[:4]")
    options = {"batch_size": 10, "seed": 0, "last_step": 4}
    augmentation = Augmentation(8)
    whole, late = (
        list(
            training_batches(
                source.train, small(3), augmentation, first_step=first, **options
            ).as_numpy_iterator()
        )
        for first in (0, 3)
    )
    np.testing.assert_array_equal(late[0][0], whole[3][0])
    found = [
        np.concatenate([one[1] for one in part]) for part in (whole[:2], whole[2:])
    ]
    assert [sorted(epoch) for epoch in found] == [sorted(list(range(5)) * 4)] * 2
    assert found[0].tolist() != found[1].tolist()


@pytest.mark.parametrize("test", ["train[16:]", "train[9:]"])
def test_all_that_lies_behind_damage_is_used(prepared, test):
    folder, file = prepared
    content = bytearray(file.read_bytes())
    offsets = find_records(file).offsets
    content[offsets[7] + 60] ^= 1  # An image.
    for number in (11, 12):  # Lengths: what lies between is one gap.
        content[offsets[number]] ^= 1
    file.write_bytes(content)
    source = pictures(folder, "train[:16]", test)
    first = 16 if test == "train[16:]" else 9
    expected = [number for number in range(20) if number not in (7, 11, 12)]
    assert used(source.train) == [n % 5 for n in expected if n < 16]
    assert used(source.test) == [n % 5 for n in expected if n >= first]
    assert {name for name, _ in source.skipped} == {f"{file}:{n}" for n in (7, 11, 12)}
    assert len(source.train) == 14
