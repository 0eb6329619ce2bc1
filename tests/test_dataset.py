"""Digits and folders: which images they find, how they split them, how they fail."""

import os
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from image_sources import opened, pixel_examples, two_classes, write
from PIL import Image
from sklearn.datasets import load_digits

from keras_alexnet.data.opening import open_for_evaluation
from keras_alexnet.data.strings import Strings
from keras_alexnet.images.preprocessing import decode


def read(examples):
    return [decode(examples.file(i), 3).numpy() for i in range(len(examples))]


def names(examples):
    return [examples.name(i) for i in range(len(examples))]


def all_names(source):
    return sorted([*names(source.train), *names(source.test)])


def folder(path, **options):
    return opened(f"folder:{path}", **options)


def digits(**options):
    return opened("digits", **options)


# === Digits ===


def test_digits_are_scikit_learns_on_a_scale_of_0_to_255():
    source = digits()
    images, labels = load_digits(return_X_y=True)
    assert len(source.train) + len(source.test) == 1797 == len(images)
    assert source.class_names == tuple("0123456789") and source.channels == 1
    for part in (source.train, source.test):
        for place in (0, 7, len(part) - 1):
            index = int(part.name(place).removeprefix("digits/"))
            encoded, label = part.read(tf.constant(place, tf.int64))
            image = decode(encoded, 1)
            assert label == part.labels[place]
            assert image.dtype == tf.uint8 and part.labels.dtype == np.int32
            expected = np.round(images[index].reshape(8, 8, 1) / 16 * 255)
            np.testing.assert_array_equal(image, expected)
            assert part.labels[place] == labels[index]


def test_a_fifth_of_each_digit_is_kept_for_testing_and_none_is_in_both_parts():
    source = digits(seed=3)
    assert len(source.test) == 360
    assert len(set(all_names(source))) == 1797
    counts = np.bincount(load_digits().target)
    np.testing.assert_allclose(np.bincount(source.test.labels), counts / 5, atol=1)


def test_the_seed_decides_the_split():
    one, same, other = (digits(seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint() == same.fingerprint()
    assert names(one.test) == names(same.test)
    assert set(names(one.test)) != set(names(other.test))
    assert one.fingerprint() != other.fingerprint()


# === What a folder may hold ===


@pytest.mark.parametrize("suffix", ["png", "BMP", "JPEG", "gif"])
def test_images_are_read_as_pil_reads_them_whatever_their_ending(tmp_path, suffix):
    for name in ("cat", "dog"):
        for index in range(2):
            mode = "RGB" if suffix in ("png", "BMP") else "L"
            write(tmp_path / name / f"{index}.{suffix}", seed=index, mode=mode)
        write(tmp_path / name / f"really-a-png.{suffix}", format="PNG")
    source = folder(tmp_path)
    assert source.class_names == ("cat", "dog") and source.channels == 3
    assert len(all_names(source)) == 6 and not len(source.skipped)
    for part in (source.train, source.test):
        for name, image in zip(names(part), read(part), strict=True):
            # Decoders of JPEG may differ in how they round.
            expected = np.asarray(Image.open(name).convert("RGB"), np.int32)
            tolerance = 8 if suffix.lower().startswith("j") else 0
            assert np.abs(image - expected).max() <= tolerance


def test_hidden_files_and_folders_are_ignored_and_other_files_named(tmp_path):
    two_classes(tmp_path)
    write(tmp_path / "cat" / ".hidden.png")
    write(tmp_path / "cat" / ".thumbnails" / "0.png")
    write(tmp_path / ".cache" / "0.png")
    write(tmp_path / "beside-the-classes.png")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "dog" / "deep").mkdir()
    os.mkfifo(tmp_path / "dog" / "deep" / "pipe.png")
    (tmp_path / "dog" / "folder.png").mkdir()
    source = folder(tmp_path)
    assert source.class_names == ("cat", "dog")
    why = "not a JPEG, PNG, GIF, BMP, WebP or TIFF file"
    assert list(source.skipped) == [
        (str(tmp_path / other), why) for other in ("cat/notes.txt", "dog/deep/pipe.png")
    ]
    assert source.skipped.damaged == 0
    assert all_names(source) == sorted(map(str, tmp_path.glob("[cd]*/?.png")))


def test_names_may_be_of_any_script(tmp_path):
    for name in ("Käse", "猫 🐈"):
        for index in range(4):
            write(tmp_path / name / f"снимок {index}.png", seed=index)
    source = folder(tmp_path)
    assert source.class_names == ("Käse", "猫 🐈")
    np.testing.assert_array_equal(
        read(source.train)[0], np.asarray(Image.open(names(source.train)[0]))
    )


def test_linked_folders_are_classes_and_circles_repeat_nothing(tmp_path):
    two_classes(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "cat" / "again").symlink_to(tmp_path / "data" / "cat")
    source = folder(tmp_path / "data")
    assert source.class_names == ("cat", "dog")
    assert len(all_names(source)) == 10


def test_train_beside_two_other_folders_is_a_class(tmp_path):
    for name in ("train", "test", "plane"):
        for index in range(4):
            write(tmp_path / name / f"{index}.png")
    source = folder(tmp_path)
    assert source.class_names == ("plane", "test", "train")
    for part in (source.train, source.test):
        for name, label in zip(names(part), part.labels, strict=True):
            assert f"/{source.class_names[label]}/" in name


def test_files_are_numbered_by_the_parts_of_their_paths(tmp_path):
    two_classes(tmp_path / "train")
    two_classes(tmp_path / "val", each=1)
    for file in ("a/x.png", "a-b/x.png", "a.png", "B/x.png", "a/b/x.png"):
        write(tmp_path / "train" / "cat" / file)
    expected = sorted((tmp_path / "train").rglob("*.png"))
    assert names(folder(tmp_path).train) == list(map(str, expected))


def test_names_need_not_be_text(tmp_path):
    two_classes(tmp_path)
    name = os.fsencode(tmp_path / "cat") + b"/\xff\xfe\n.png"
    os.link(os.fsencode(tmp_path / "cat" / "0.png"), name)
    source = folder(tmp_path)
    assert os.fsdecode(name) in all_names(source) and len(all_names(source)) == 11
    assert len(read(source.train) + read(source.test)) == 11


# === Many files ===


def test_no_file_is_read_when_a_folder_is_opened(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(5):
            (tmp_path / name / f"{index}.jpg").symlink_to("/nowhere")
    assert len(folder(tmp_path).train) == 8


def test_the_fingerprint_covers_every_name_label_and_the_split(tmp_path):
    def fingerprint(**options):
        return folder(tmp_path, **options).fingerprint()

    two_classes(tmp_path)
    seen = {fingerprint(), fingerprint(seed=1), fingerprint(test_fraction=0.5)}
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "00.png")
    seen.add(fingerprint())
    (tmp_path / "cat" / "00.png").rename(tmp_path / "dog" / "00.png")
    seen.add(fingerprint())
    assert len(seen) == 5 and fingerprint() in seen
    folder(tmp_path).check_unchanged(fingerprint())
    with pytest.raises(ValueError, match="images have changed"):
        folder(tmp_path).check_unchanged(fingerprint(seed=1))


def test_a_million_strings_take_the_memory_of_their_characters():
    strings = Strings(f"n{i % 1000:08d}/n{i:012d}.JPEG" for i in range(100_000))
    tracemalloc.start()
    strings = Strings(f"n{i % 1000:08d}/n{i:012d}.JPEG" for i in range(100_000))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 28 characters and 8 bytes for where they end; twice while they are collected.
    assert held < 100_000 * 40 and peak < 100_000 * 100
    assert strings.text(99_999) == "n00000999/n000000099999.JPEG"
    for index in (0, 1, 99_999):
        assert strings.tensor(tf.constant(index, tf.int64)).numpy() == strings[index]


# === What is wrong with it ===


@pytest.mark.parametrize(
    "spec",
    [
        "folders:x",
        "digit",
        "digits:7",
        "folder",
        "folder:",
        "csv:",
        "tfds",
        "tfrecord:",
    ],
)
def test_an_unknown_source_is_refused_with_those_there_are(spec):
    with pytest.raises(
        ValueError,
        match=r"Unknown data source .*csv:FILE, decoded:FOLDER, digits, folder:PATH",
    ):
        opened(spec)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "No such folder: .*photos"),
        ([], "has no sub-folders"),
        (["cat/0.png"], "only one class, 'cat'"),
        (["cat/0.png", "dog/0.png"], "cannot be split"),
        (["cat/0.png", "emu/notes.txt"], "class 'emu' in .* has no images"),
        (["train/cat/0.png", "test/emu/0.png"], "has a class 'emu'"),
        (["val/cat/0.png", "valid/cat/0.png"], "two folders for .* split: val, valid"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, files, message):
    if files is not None:
        (tmp_path / "photos").mkdir()
    for file in files or ():
        write(tmp_path / "photos" / file, format="PNG")
    with pytest.raises(ValueError, match=message):
        folder(tmp_path / "photos")
    with pytest.raises(ValueError, match="No such folder: .*x.png"):
        folder(write(tmp_path / "x.png"))


# === Three splits ===


def test_validation_is_a_part_of_the_training_images_of_each_class():
    whole = digits()
    one, same, other = (
        digits(validation_fraction=0.1, seed=0),
        digits(validation_fraction=0.1, seed=0),
        digits(validation_fraction=0.3, seed=0),
    )
    assert whole.validation is None and len(one.validation) == 144
    assert names(one.validation) == names(same.validation)
    assert names(one.test) == names(whole.test)
    for dataset, fraction in ((one, 0.1), (other, 0.3)):
        both = names(dataset.train) + names(dataset.validation)
        assert sorted(both) == sorted(names(whole.train))
        kept = np.bincount(dataset.validation.labels)
        all_of_them = np.bincount(whole.train.labels)
        np.testing.assert_allclose(kept, all_of_them * fraction, atol=1)
        # It follows from the training images, which are the same.
        dataset.check_unchanged(whole.fingerprint())
    seeded = digits(validation_fraction=0.1, seed=1)
    assert set(names(one.validation)) != set(names(seeded.validation))


@pytest.mark.parametrize("counts", [(1, 1), (1, 2), (1, 40), (3, 1, 90)])
def test_each_class_keeps_an_image_to_train_on(counts):
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    split = pixel_examples(np.zeros((len(labels), 1, 1, 3), np.uint8), labels)
    for fraction in (0.01, 0.5, 0.99):
        train, validation = split.keep_for_validation(fraction, seed=0)
        assert set(train.labels) == set(labels)
        kept = 0 if validation is None else len(validation)
        spare = len(labels) - len(counts)
        assert kept == min(max(1, round(fraction * len(labels))), spare)


def test_a_class_of_one_image_is_trained_on(tmp_path):
    two_classes(tmp_path, each=10)
    rare = write(tmp_path / "emu" / "0.png")
    assert str(rare) in names(folder(tmp_path).train)


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "validation", "TEST"),
        ("train", "valid", "Test"),
    ],
)
def test_three_folders_are_three_splits(tmp_path, train, validation, test):
    two_classes(tmp_path / train, each=4)
    two_classes(tmp_path / validation, each=2)
    two_classes(tmp_path / test, each=1)
    write(tmp_path / "__MACOSX" / train / "._0.png")
    (tmp_path / "empty" / "too").mkdir(parents=True)
    for fraction in (0, 0.1):
        dataset = folder(tmp_path, validation_fraction=fraction)
        assert dataset.class_names == ("cat", "dog")
        for split, name, count in (
            (dataset.train, train, 8),
            (dataset.validation, validation, 4),
            (dataset.test, test, 2),
        ):
            assert len(split) == count
            assert all(f"/{name}/" in path for path in names(split))


def test_without_test_images_validation_images_are_what_is_judged_by(tmp_path):
    two_classes(tmp_path / "train", each=10)
    two_classes(tmp_path / "val", each=2)
    dataset = folder(tmp_path, validation_fraction=0.2)
    assert all("/val/" in name for name in names(dataset.test))
    assert all("/train/" in name for name in names(dataset.validation))
    assert [len(split) for split in dataset.splits.values()] == [16, 4, 4]


def test_a_folder_of_training_images_is_split(tmp_path):
    two_classes(tmp_path / "train", each=10)
    dataset = folder(tmp_path, validation_fraction=0.25)
    assert [len(split) for split in dataset.splits.values()] == [12, 4, 4]
    assert dataset.class_names == ("cat", "dog")


# === Only to evaluate ===


def evaluated(path, split=None):
    dataset = open_for_evaluation(f"folder:{path}", split=split)
    return {name: len(split) for name, split in dataset.splits.items()}


def test_what_is_only_evaluated_is_not_split(tmp_path):
    write(tmp_path / "cat" / "0.png")
    assert evaluated(tmp_path) == {"all": 1}
    two_classes(tmp_path, each=3)
    assert evaluated(tmp_path) == evaluated(tmp_path, "all") == {"all": 6}
    with pytest.raises(ValueError, match="Unknown split 'test'.* Available: all"):
        evaluated(tmp_path, "test")


def test_training_images_are_evaluated_only_when_asked_for(tmp_path):
    two_classes(tmp_path / "train", each=4)
    two_classes(tmp_path / "val", each=2)
    assert evaluated(tmp_path) == evaluated(tmp_path, "val") == {"validation": 4}
    assert evaluated(tmp_path, "train") == {"train": 8}
    assert evaluated(tmp_path, "all") == {"train": 8, "validation": 4}
    write(tmp_path / "test" / "dog" / "0.png")
    assert evaluated(tmp_path) == {"test": 1}
    assert open_for_evaluation(f"folder:{tmp_path}").test.labels.tolist() == [1]
