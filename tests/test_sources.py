"""Digits and folders: which images they find, how they split them, how they fail."""

import os
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from image_sources import two_classes, write
from PIL import Image
from sklearn.datasets import load_digits

from keras_alexnet.data.sources import open_source
from keras_alexnet.data.strings import Strings
from keras_alexnet.images.preprocessing import decode


def read(examples):
    return [decode(examples.file(i), 3).numpy() for i in range(len(examples))]


def names(examples):
    return [examples.name(i) for i in range(len(examples))]


def all_names(source):
    return sorted([*names(source.train), *names(source.test)])


def folder(path, **options):
    return open_source(f"folder:{path}", **{"seed": 0, **options})


# === Digits ===


def test_digits_are_scikit_learns_on_a_scale_of_0_to_255():
    source = open_source("digits", seed=0)
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
    source = open_source("digits", seed=3)
    assert len(source.test) == 360
    assert len(set(all_names(source))) == 1797
    counts = np.bincount(load_digits().target)
    np.testing.assert_allclose(np.bincount(source.test.labels), counts / 5, atol=1)


def test_the_seed_decides_the_split():
    one, same, other = (open_source("digits", seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint() == same.fingerprint()
    assert names(one.test) == names(same.test)
    assert set(names(one.test)) != set(names(other.test))
    assert one.fingerprint() != other.fingerprint()


def test_the_test_fraction_decides_how_many_are_kept():
    assert len(open_source("digits", seed=0, test_fraction=0.5).test) == 899


def test_digits_may_have_three_channels():
    assert open_source("digits", seed=0, channels=3).channels == 3


# === What a folder may hold ===


@pytest.mark.parametrize("suffix", ["png", "bmp", "PNG", "BMP"])
def test_lossless_images_are_read_as_they_were_written(tmp_path, suffix):
    for name in ("cat", "dog"):
        for index in range(3):
            write(tmp_path / name / f"{index}.{suffix}", seed=index)
    source = folder(tmp_path)
    assert source.class_names == ("cat", "dog") and source.channels == 3
    assert len(source.train) + len(source.test) == 6 and not len(source.skipped)
    for part in (source.train, source.test):
        for name, image in zip(names(part), read(part), strict=True):
            np.testing.assert_array_equal(image, np.asarray(Image.open(name)))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "gif", "JPG", "JPEG", "GIF"])
def test_lossy_images_are_read_as_pil_reads_them(tmp_path, suffix):
    for name in ("cat", "dog"):
        for index in range(3):
            write(tmp_path / name / f"{index}.{suffix}", seed=index, mode="L")
    source = folder(tmp_path)
    assert not len(source.skipped)
    for name, image in zip(names(source.train), read(source.train), strict=True):
        # Decoders of JPEG may differ in how they round.
        expected = np.asarray(Image.open(name).convert("RGB"), np.int32)
        assert np.abs(image - expected).max() <= (8 if "j" in suffix.lower() else 0)


def test_labels_are_the_places_of_the_sub_folders_in_alphabetical_order(tmp_path):
    for name in ("b", "c", "a"):
        for index in range(4):
            write(tmp_path / name / f"{index}.png")
    source = folder(tmp_path)
    assert source.class_names == ("a", "b", "c")
    for part in (source.train, source.test):
        for name, label in zip(names(part), part.labels, strict=True):
            assert os.path.basename(os.path.dirname(name)) == "abc"[label]


def test_images_are_found_however_deep_they_lie(tmp_path):
    two_classes(tmp_path)
    deep = write(tmp_path / "cat" / "tabby" / "2012" / "x.png")
    assert str(deep) in all_names(folder(tmp_path))


def test_hidden_files_and_folders_are_ignored_and_other_files_named(tmp_path):
    two_classes(tmp_path)
    write(tmp_path / "cat" / ".hidden.png")
    write(tmp_path / "cat" / ".thumbnails" / "0.png")
    write(tmp_path / ".cache" / "0.png")
    write(tmp_path / "beside-the-classes.png")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    source = folder(tmp_path)
    assert source.class_names == ("cat", "dog")
    notes = str(tmp_path / "cat" / "notes.txt")
    assert list(source.skipped) == [(notes, "not a JPEG, PNG, GIF or BMP file")]
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


def test_a_linked_folder_is_a_class_like_any_other(tmp_path):
    two_classes(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere" / name)
    source = folder(tmp_path / "data")
    assert source.class_names == ("cat", "dog")
    assert len(all_names(source)) == 10


def test_a_link_in_a_circle_does_not_repeat_images(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    assert len(all_names(folder(tmp_path))) == 10


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_folder_that_is_split_already_stays_so(tmp_path, held_out):
    two_classes(tmp_path / "train")
    two_classes(tmp_path / held_out, each=1)
    source = folder(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert len(source.train) == 10 and len(source.test) == 2
    assert all(f"/{held_out}/" in name for name in names(source.test))
    assert not any(f"/{held_out}/" in name for name in names(source.train))
    np.testing.assert_array_equal(source.test.labels, [0, 1])


def test_train_beside_two_other_folders_is_a_class(tmp_path):
    for name in ("train", "test", "plane"):
        for index in range(4):
            write(tmp_path / name / f"{index}.png")
    assert folder(tmp_path).class_names == ("plane", "test", "train")


def test_a_folder_is_split_within_each_class_by_seed(tmp_path):
    two_classes(tmp_path, each=10)
    one, same, other = (folder(tmp_path, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(np.bincount(one.test.labels), [2, 2])
    assert names(one.test) == names(same.test)
    assert names(one.test) != names(other.test)


def test_grey_images_have_three_equal_channels_in_colour(tmp_path):
    for name in ("cat", "dog"):
        for index, suffix in enumerate(["png", "bmp", "gif", "jpg"]):
            write(tmp_path / name / f"{index}.{suffix}", mode="L")
    source = folder(tmp_path)
    assert not len(source.skipped)
    for image in read(source.train):
        assert image.shape == (9, 7, 3)
        np.testing.assert_array_equal(image, image[..., :1].repeat(3, -1))


def test_a_folder_in_grey_is_one(tmp_path):
    assert folder(two_classes(tmp_path), channels=1).channels == 1


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
        ValueError, match=r"Unknown data source .*csv:FILE, digits, folder:PATH"
    ):
        open_source(spec, seed=0)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="No such folder: .*nowhere"):
        folder(tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path):
    with pytest.raises(ValueError, match="No such folder: .*x.png"):
        folder(write(tmp_path / "x.png"))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no sub-folders"):
        folder(tmp_path)


def test_one_class_is_refused(tmp_path):
    write(tmp_path / "cat" / "0.png")
    with pytest.raises(ValueError, match="only one class, 'cat'"):
        folder(tmp_path)


def test_a_class_without_images_is_named(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "emu").mkdir()
    (tmp_path / "emu" / "notes.txt").write_text("none yet")
    with pytest.raises(ValueError, match="class 'emu' in .* has no images"):
        folder(tmp_path)


def test_a_class_that_is_only_tested_is_refused(tmp_path):
    two_classes(tmp_path / "train", each=1)
    two_classes(tmp_path / "val", each=1)
    write(tmp_path / "val" / "emu" / "0.png")
    with pytest.raises(ValueError, match="has a class 'emu'"):
        folder(tmp_path)


def test_a_directory_named_like_an_image_is_no_image(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "folder.png").mkdir()
    source = folder(tmp_path)
    assert len(all_names(source)) == 10 and not len(source.skipped)


def test_the_contents_decide_what_an_image_is_not_its_ending(tmp_path):
    two_classes(tmp_path)
    write(tmp_path / "cat" / "really-a-png.jpg", format="PNG")
    source = folder(tmp_path)
    assert len(all_names(source)) == 11 and not len(source.skipped)


@pytest.mark.parametrize("each", [1, 2])
def test_too_few_images_to_split_are_refused(tmp_path, each):
    with pytest.raises(ValueError, match="cannot be split"):
        folder(two_classes(tmp_path, each=each))
