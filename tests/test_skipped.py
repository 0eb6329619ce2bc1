"""Damaged images: each named once with its reason, and all others used."""

import csv
import dataclasses
import io
import json
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from image_sources import opened, picture, two_classes, write

import keras_alexnet
from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.measure import measure
from keras_alexnet.data.pipeline import evaluation_batches, training_batches
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.images.limits import image_size
from keras_alexnet.images.preprocessing import Preprocessing, decode
from keras_alexnet.training.train import train

SMALL = Preprocessing(4, 4, 3, (0.0,) * 3, 1.0)
RANDOM = Augmentation(4, crop_padding=2, horizontal_flip=True)


def png(width, height, rows=b""):
    """A grey PNG by its specification, with a header that may promise anything."""

    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


def saved(kind, **options):
    file = io.BytesIO()
    picture(0).save(file, kind, **options)
    return file.getvalue()


def jpeg_of_size(height, width):
    data = bytearray(saved("jpeg"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif_with_frame(width, height, first=True):
    """A GIF of which a frame is larger than the header says."""
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, width, height) + b"\0\x08\x02\x80\1\0"
    whole = saved("gif")
    colors = 13 + (3 << (whole[10] & 7) + 1)
    return whole[:colors] + frame + b";" if first else whole[:-1] + frame + b";"


LARGE = "more than 178,956,970 pixels"
NO_IMAGE = "not a JPEG, PNG, GIF, BMP, WebP or TIFF file"
DAMAGED = {
    "empty.jpg": (b"", "the file is empty"),
    "truncated.jpg": (saved("jpeg")[:200], "Invalid JPEG"),
    "truncated.png": (saved("png")[:-60], "Invalid PNG"),
    "truncated.gif": (saved("gif")[:-60], "cannot be decoded"),
    "truncated.bmp": (saved("bmp")[:-60], "cannot be decoded"),
    "random.png": (np.random.default_rng(0).bytes(3000), NO_IMAGE),
    "text.jpg": (b"I am no picture", NO_IMAGE),
    "zero.png": (png(0, 40), "no pixels"),
    "zero.jpg": (jpeg_of_size(0, 9), "Invalid JPEG"),
    "huge.jpg": (jpeg_of_size(30_000, 30_000), LARGE),
    "huge.png": (png(30_000, 30_000), LARGE),
    "bomb.png": (png(60_000, 60_000, b"\0" * 1_000_000), LARGE),
    "bomb.gif": (gif_with_frame(60_000, 60_000), LARGE),
    "long.jpg": (jpeg_of_size(2, 65_501), "too large: a JPEG file may have 65,500"),
}


def damage(path):
    """Adds damaged files to a folder, and returns what should be said of each."""
    expected = {}
    for name, (content, why) in DAMAGED.items():
        (path / name).write_bytes(content)
        expected[str(path / name)] = why
    (path / "dangling.png").symlink_to("/nowhere.png")
    expected[str(path / "dangling.png")] = "No such file"
    return expected


def folder(path):
    return opened(f"folder:{path}")


def epoch(examples, first=0, last=None, batch=1):
    """Labels and weights of training, an epoch by default."""
    last = len(examples) if last is None else last
    options = {"batch_size": batch, "seed": 0, "first_step": first, "last_step": last}
    parts = training_batches(examples, SMALL, RANDOM, **options).as_numpy_iterator()
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


# === Reading ===


def test_every_damaged_file_is_named_and_every_good_one_used(tmp_path):
    two_classes(tmp_path / "train", each=20)
    two_classes(tmp_path / "val", each=5)
    expected = damage(tmp_path / "train" / "cat") | damage(tmp_path / "val" / "dog")
    source = folder(tmp_path)
    vanished = tmp_path / "train" / "dog" / "3.png"
    vanished.unlink()
    expected[str(vanished)] = "No such file"
    images, labels, weights = epoch(source.train)
    np.testing.assert_array_equal(np.bincount(labels[weights > 0]), [20, 19])
    assert not images[weights == 0].any() and set(weights) == {0.0, 1.0}
    parts = list(evaluation_batches(source.test, SMALL, 4).as_numpy_iterator())
    used = weights.sum() + sum(weights.sum() for _, _, weights in parts)
    assert used == 49 and used + len(source.skipped) == source.total
    found = dict(source.skipped)
    assert found.keys() == expected.keys()
    for name, why in found.items():
        assert expected[name] in why and "\n" not in why and "{{" not in why, why


def test_a_damaged_file_leaves_all_others_as_they_were(tmp_path):
    two_classes(tmp_path, each=15)
    whole = epoch(folder(tmp_path).train, last=7, batch=8)
    source = folder(tmp_path)
    for index in (0, 3, 9):
        open(source.train.name(index), "w").close()
    damaged = epoch(source.train, last=7, batch=8)
    kept = damaged[2] > 0
    # 56 positions, 2 1/3 epochs of 24 images.
    assert 6 <= (~kept).sum() <= 9
    for one, other in zip(damaged, whole, strict=True):
        np.testing.assert_array_equal(one[kept], other[kept])
    late = epoch(source.train, first=3, last=7, batch=8)
    for one, other in zip(late, damaged, strict=True):
        np.testing.assert_array_equal(one, other[24:])


def test_a_batch_of_which_everything_is_damaged_is_blank(tmp_path):
    source = folder(two_classes(tmp_path))
    for index in range(len(source.train)):
        open(source.train.name(index), "w").close()
    images, labels, weights = epoch(source.train, last=2, batch=4)
    assert images.shape == (8, 4, 4, 3) and not images.any() and not weights.any()
    assert len(source.skipped) == 8
    with pytest.raises(ValueError, match="None of the images can be read; the first"):
        measure(source.train, SMALL, seed=0)


def test_a_fault_that_passes_costs_nothing(tmp_path):
    source = folder(two_classes(tmp_path))
    expected = epoch(source.train)
    failed = []

    def fail_once(index):
        if index == 2 and not failed:
            failed.append(index)
            raise OSError("the server is busy")
        return index

    def read(index):
        index = tf.py_function(fail_once, [index], tf.int64)
        return source.train.read(tf.ensure_shape(index, ()))

    faulty = dataclasses.replace(source.train, read=read)
    for one, other in zip(epoch(faulty), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert failed and not len(source.skipped)


def test_colours_are_measured_of_what_can_be_read(tmp_path):
    source = folder(two_classes(tmp_path, each=10))
    mean = np.array(measure(source.train, SMALL, seed=0).mean)
    damage(tmp_path / "cat")
    damaged = folder(tmp_path)
    measured = np.array(measure(damaged.train, SMALL, seed=0).mean)
    assert np.isfinite(measured).all() and np.abs(measured - mean).max() < 20
    assert 0 < len(damaged.skipped) <= len(DAMAGED) + 1


# === Sizes ===


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "bmp"])
def test_sizes_are_read_from_headers(kind):
    np.testing.assert_array_equal(image_size(saved(kind)), [9, 7])


def test_what_is_no_image_has_no_size():
    for content in (b"", b"x", b"RIFF" + bytes(40)):
        assert int(np.prod(image_size(content))) < 0


def test_no_frame_of_a_gif_but_the_first_is_read():
    image = decode(gif_with_frame(60_000, 60_000, first=False), 3)
    np.testing.assert_array_equal(image, decode(saved("gif"), 3))


# === Names and limits ===


def test_each_is_named_once_and_a_file_restores_them(tmp_path):
    skipped = Skipped()
    skipped.add("a,\n\udcff.png", 'with "quotes"')
    skipped.add("a,\n\udcff.png", "another reason")
    skipped.add("notes.txt", "no image", damaged=False)
    skipped.write(tmp_path / "skipped.csv")
    again = Skipped()
    again.add("notes.txt", "no image", damaged=False)
    again.read(tmp_path / "skipped.csv")
    assert sorted(again) == sorted(skipped) and len(again) == 2
    assert again.damaged == skipped.damaged == 1
    skipped.print()
    Skipped().read(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("damaged", "total", "stops"),
    [(1, 3, False), (2, 3, True), (10, 1000, False), (11, 1000, True)],
)
def test_more_than_the_limit_stops_and_one_never_does(damaged, total, stops):
    skipped = Skipped()
    for number in range(damaged):
        skipped.add(f"{number}.jpg", "broken")
        skipped.add(f"{number}.txt", "no image", damaged=False)
    if not stops:
        return skipped.check(total, 0.01)
    with pytest.raises(ValueError, match=rf"{damaged} of {total:,} .*0.jpg \(broken\)"):
        skipped.check(total, 0.01)


# === Runs ===


def train_on(path, run_dir, *callbacks, resume=False, **changes):
    tiny = {
        "architecture": "alexnet_mini",
        "image_size": 28,
        "epochs": 2,
        "global_batch_size": 8,
        "color_noise": 0.0,
        "data": f"folder:{path}",
    }
    config = keras_alexnet.TrainConfig(**{**tiny, **changes})
    return train(config, run_dir, resume=resume, callbacks=list(callbacks))


def test_a_run_goes_on_and_says_what_it_left_out(tmp_path):
    photos = tmp_path / "photos"
    two_classes(photos / "train", each=8)
    two_classes(photos / "val", each=3)
    for file in ("train/cat/bad.jpg", "val/dog/bad.jpg"):
        (photos / file).write_bytes(b"")
    (photos / "train" / "cat" / "notes.txt").write_text("no image")

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise RuntimeError("killed")

    # Without validation images the test images are looked at after every epoch.
    settings = {"max_skipped": 0.2, "validation_fraction": 0.0}
    with pytest.raises(RuntimeError, match="killed"):
        train_on(photos, tmp_path / "run", Stop(), **settings)
    # What is repaired meanwhile has been left out all the same.
    write(photos / "val" / "dog" / "bad.jpg", format="png")
    train_on(photos, tmp_path / "run", resume=True, **settings)
    rows = list(csv.DictReader((tmp_path / "run" / "skipped.csv").open()))
    assert {row["name"]: row["reason"] for row in rows} == {
        str(photos / "train" / "cat" / "notes.txt"): NO_IMAGE,
        str(photos / "train" / "cat" / "bad.jpg"): "the file is empty",
        str(photos / "val" / "dog" / "bad.jpg"): "the file is empty",
    }
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["skipped"] == 3


def test_a_run_of_damaged_images_stops(tmp_path):
    source = two_classes(tmp_path / "photos", each=10)
    for index in range(3):
        (source / "cat" / f"{index}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="of 20 images cannot be read, more than"):
        train_on(source, tmp_path / "run")
    assert (tmp_path / "run" / "skipped.csv").is_file()
