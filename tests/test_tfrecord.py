"""TFRecord files: found, split, read, written, and read around damage."""

import json

import numpy as np
import pytest
import tensorflow as tf
from image_sources import opened, picture, two_classes

from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.data.records import find_records
from keras_alexnet.data.shards import write_shards
from keras_alexnet.images.preprocessing import Preprocessing

SMALL = Preprocessing(4, 4, 3, (0.0,) * 3, 1.0)
NAMES = ("image/encoded", "image/class/label", "image/class/text")


def write_records(path, labels, texts=None, names=NAMES):
    """Writes noise with labels, as TensorFlow writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for place, label in enumerate(labels):
            image = tf.io.encode_png(np.asarray(picture(place))).numpy()
            values = {
                names[0]: tf.train.Feature(bytes_list={"value": [image]}),
                names[1]: tf.train.Feature(int64_list={"value": [label]}),
            }
            if texts:
                text = {"value": [texts[label].encode()]}
                values[names[2]] = tf.train.Feature(bytes_list=text)
            features = tf.train.Features(feature=values)
            example = tf.train.Example(features=features)
            writer.write(example.SerializeToString())
    return path


def tfrecord(path, options="", **more):
    return opened(f"tfrecord:{path}{options}", **more)


def used(part):
    """The labels of what can be read, in order."""
    batches = evaluation_batches(part, SMALL, 4).as_numpy_iterator()
    labels = [labels[weights > 0] for _, labels, weights in batches]
    return np.concatenate(labels).tolist()


# === Finding records ===


def test_records_lie_where_tensorflow_wrote_them(tmp_path):
    path = tmp_path / "x.tfrecord"
    contents = [bytes(size) for size in (0, 1, 5000, 70)]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content in contents:
            writer.write(content)
    records = find_records(path)
    # Length, its checksum, the data, their checksum.
    sizes = [8 + 4 + len(content) + 4 for content in contents]
    np.testing.assert_array_equal(records.sizes, sizes)
    np.testing.assert_array_equal(records.offsets, np.cumsum([0, *sizes[:-1]]))
    assert records.lost == ()


@pytest.mark.parametrize("place", ["first", "middle", "last", "two"])
def test_records_behind_a_damaged_length_are_found_again(tmp_path, place):
    path = write_records(tmp_path / "x", range(9))
    whole = find_records(path)
    damaged = {"first": [0], "middle": [4], "last": [8], "two": [4, 5]}[place]
    content = bytearray(path.read_bytes())
    for number in damaged:
        content[whole.offsets[number] + 1] ^= 0xFF
    path.write_bytes(content)
    records = find_records(path)
    expected = np.delete(whole.offsets, damaged)
    np.testing.assert_array_equal(records.offsets, expected)
    begin = whole.offsets[damaged[0]]
    assert records.lost == ((begin, begin + whole.sizes[damaged].sum()),)


def test_a_file_that_was_cut_off_keeps_its_whole_records(tmp_path):
    path = write_records(tmp_path / "x", range(5))
    whole = find_records(path)
    content = path.read_bytes()
    for missing in (1, 5, int(whole.sizes[4]) - 3):
        path.write_bytes(content[:-missing])
        records = find_records(path)
        np.testing.assert_array_equal(records.offsets, whole.offsets[:4])
        assert records.lost == ((whole.offsets[4], len(content) - missing),)


def test_what_lies_between_records_is_skipped(tmp_path):
    one = write_records(tmp_path / "1", range(3)).read_bytes()
    noise = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "x").write_bytes(one + noise + one)
    records = find_records(tmp_path / "x")
    assert len(records.offsets) == 6
    assert records.lost == ((len(one), len(one) + len(noise)),)


# === Reading ===


def test_damaged_records_are_named_and_all_others_used(tmp_path):
    path = write_records(tmp_path / "train-0", [place % 5 for place in range(20)])
    write_records(tmp_path / "validation-0", range(5))
    records = find_records(path)
    content = bytearray(path.read_bytes())
    content[records.offsets[7] + 40] ^= 1  # An image.
    content[records.offsets[11]] ^= 1  # A length.
    path.write_bytes(content)
    source = tfrecord(tmp_path / "*-0", "?classes=5")
    expected = [place % 5 for place in range(20) if place not in (7, 11)]
    assert used(source.train) == expected
    assert used(source.test) == list(range(5))
    begin = records.offsets[11]
    end = begin + records.sizes[11]
    assert {name for name, _ in source.skipped} == {
        f"{path}:7",
        f"{path}: bytes {begin}-{end}",
    }
    assert source.total == 25 == len(expected) + 5 + len(source.skipped)


def test_labels_out_of_range_and_missing_features_are_named(tmp_path):
    write_records(tmp_path / "train-0", [0, 1, 2, 5, -1, 2**40])
    write_records(tmp_path / "train-1", [0, 1], names=("image", "label", ""))
    write_records(tmp_path / "val-0", [2])
    source = tfrecord(tmp_path, "?classes=3")
    assert used(source.train) == [0, 1, 2]
    reasons = dict(source.skipped)
    for place in (3, 4, 5):
        reason = reasons[f"{tmp_path / 'train-0'}:{place}"]
        assert reason == "the label is none of the 3 classes"
    assert "could not be found" in reasons[f"{tmp_path / 'train-1'}:0"]
    assert len(reasons) == 5


def test_names_of_features_and_the_first_label_are_options(tmp_path):
    names = ("jpeg", "number", "")
    for part in ("train", "test"):
        write_records(tmp_path / part / "0", [1, 2, 3], names=names)
    source = tfrecord(tmp_path, "?image=jpeg&label=number&first=1&classes=3")
    assert used(source.train) == [0, 1, 2]
    assert source.class_names == ("0", "1", "2")


def test_without_a_list_of_classes_the_records_tell_them(tmp_path):
    texts = {1: "cat", 2: "dog", 3: "emu"}
    write_records(tmp_path / "0.tfrecord", [1, 2, 3] * 5, texts)
    source = tfrecord(tmp_path / "?.tfrecord")
    assert source.class_names == ("cat", "dog", "emu")
    labels = used(source.train) + used(source.test)
    assert sorted(labels) == sorted([0, 1, 2] * 5)
    assert len(source.train) == 12 and len(source.test) == 3


def test_names_that_do_not_tell_classes_apart_are_not_used(tmp_path):
    texts = {0: "crane", 1: "crane"}
    write_records(tmp_path / "0.tfrecord", [0, 1] * 5, texts)
    assert tfrecord(tmp_path).class_names == ("0", "1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?classes=many", "classes must be a number. Received: 'many'"),
        ("?lable=x", "Unknown option of the source 'lable'. Did you mean 'label'"),
        ("?label=x", "No record of .* has a label"),
        ("?classes=1", "only one class"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    write_records(tmp_path / "0.tfrecord", [0, 1])
    with pytest.raises(ValueError, match=message):
        tfrecord(tmp_path / "0.tfrecord", options)


def test_what_holds_no_records_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No such files: .*nothing"):
        tfrecord(tmp_path / "nothing")
    (tmp_path / "x.tfrecord").write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match="x.tfrecord holds no records: is it"):
        tfrecord(tmp_path)


# === Writing ===


def contents(part):
    return sorted(
        (part.file(index).numpy(), int(part.load(tf.constant(index, tf.int64))[1]))
        for index in range(len(part))
    )


@pytest.mark.parametrize("shards", [1, 3, 16])
def test_what_is_written_is_read_again(tmp_path, shards):
    folder = two_classes(tmp_path / "a", each=10)
    (folder / "cat" / "0.png").write_bytes(b"\0\xff\0\0")
    source = opened(f"folder:{folder}")
    write_shards(source, tmp_path / "b", shards)
    again = tfrecord(tmp_path / "b", seed=1)
    assert again.class_names == ("cat", "dog")
    assert contents(again.train) == contents(source.train)
    assert contents(again.test) == contents(source.test)
    files = sorted((tmp_path / "b" / "train").iterdir())
    counts = [len(find_records(file).offsets) for file in files]
    assert len(files) == shards and max(counts) - min(counts) <= 1


def test_writing_goes_on_where_it_was_stopped(tmp_path):
    source = opened(f"folder:{two_classes(tmp_path / 'a', each=10)}")
    write_shards(source, tmp_path / "b", 4)
    files = sorted((tmp_path / "b" / "train").iterdir())
    whole = [file.read_bytes() for file in files]
    files[1].unlink()
    files[2].write_bytes(whole[2][:-1])
    kept = files[0].stat().st_mtime_ns, files[3].stat().st_mtime_ns
    write_shards(source, tmp_path / "b", 4)
    assert [file.read_bytes() for file in files] == whole
    assert kept == (files[0].stat().st_mtime_ns, files[3].stat().st_mtime_ns)
    index = json.loads((tmp_path / "b" / "index.json").read_text())
    assert len(index["checksums"]) == 5


def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path):
    folder = two_classes(tmp_path / "a", each=10)
    source = opened(f"folder:{folder}")
    (folder / "cat" / "3.png").unlink()
    write_shards(source, tmp_path / "b")
    again = tfrecord(tmp_path / "b")
    assert again.total == 19
    assert "cat/3.png" in (tmp_path / "b" / "skipped.csv").read_text()


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    source = opened(f"folder:{two_classes(tmp_path / 'a')}")
    other = opened(f"folder:{tmp_path / 'a'}", seed=1)
    with pytest.raises(ValueError, match="holds other things"):
        write_shards(source, tmp_path / "a")
    write_shards(source, tmp_path / "b")
    with pytest.raises(ValueError, match="holds other images"):
        write_shards(other, tmp_path / "b")
    with pytest.raises(ValueError, match="8 training images cannot be put into 9"):
        write_shards(source, tmp_path / "c", 9)
