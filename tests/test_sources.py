"""Sources: which images they find, how they split them, how they fail."""

import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits

from keras_alexnet.data.sources import open_source


def picture(seed, mode="RGB", size=(9, 7)):
    channels = {"RGB": 3, "L": 1}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)
    return Image.fromarray(pixels.squeeze())


def write(path, seed=0, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, mode).save(path, **options)
    return path


def two_classes(path, each=5):
    for label, name in enumerate(["cat", "dog"]):
        for index in range(each):
            write(path / name / f"{index}.png", seed=label * 100 + index)
    return path


def read(examples):
    return [
        examples.read(tf.constant(i, tf.int64)).numpy() for i in range(len(examples))
    ]


def all_names(source):
    return sorted([*source.train.names, *source.test.names])


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
            index = int(part.names[place].removeprefix("digits/"))
            image = part.read(tf.constant(place, tf.int64))
            assert image.dtype == tf.uint8 and part.labels.dtype == np.int32
            expected = np.round(images[index].reshape(8, 8, 1) / 16 * 255)
            np.testing.assert_array_equal(image, expected)
            assert part.labels[place] == labels[index]


def test_a_fifth_of_each_digit_is_kept_for_testing_and_none_is_in_both_parts():
    source = open_source("digits", seed=3)
    assert len(source.test) == 360
    assert len({*source.train.names, *source.test.names}) == 1797
    counts = np.bincount(load_digits().target)
    np.testing.assert_allclose(np.bincount(source.test.labels), counts / 5, atol=1)


def test_the_seed_decides_the_split():
    one, same, other = (open_source("digits", seed=seed) for seed in (1, 1, 2))
    assert one.test.names == same.test.names and one.train.names == same.train.names
    assert set(one.test.names) != set(other.test.names)


def test_the_test_fraction_decides_how_many_are_kept():
    assert len(open_source("digits", seed=0, test_fraction=0.5).test) == 899


def test_digits_in_three_channels_are_grey():
    image = open_source("digits", seed=0, channels=3).train.read(tf.constant(0))
    assert image.shape == (8, 8, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


# === What a folder may hold ===


@pytest.mark.parametrize("suffix", ["png", "bmp", "PNG", "BMP"])
def test_lossless_images_are_read_as_they_were_written(tmp_path, suffix):
    for name in ("cat", "dog"):
        for index in range(3):
            write(tmp_path / name / f"{index}.{suffix}", seed=index)
    source = folder(tmp_path)
    assert source.class_names == ("cat", "dog") and source.channels == 3
    assert len(source.train) + len(source.test) == 6 and not source.skipped
    for part in (source.train, source.test):
        for name, image in zip(part.names, read(part), strict=True):
            np.testing.assert_array_equal(image, np.asarray(Image.open(name)))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "gif", "JPG", "JPEG", "GIF"])
def test_lossy_images_are_read_as_pil_reads_them(tmp_path, suffix):
    for name in ("cat", "dog"):
        for index in range(3):
            write(tmp_path / name / f"{index}.{suffix}", seed=index, mode="L")
    source = folder(tmp_path)
    assert not source.skipped
    for name, image in zip(source.train.names, read(source.train), strict=True):
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
        for name, label in zip(part.names, part.labels, strict=True):
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
    assert source.skipped == (
        (str(tmp_path / "cat" / "notes.txt"), "not a JPEG, PNG, GIF or BMP file"),
    )
    assert all_names(source) == sorted(map(str, tmp_path.glob("[cd]*/?.png")))


def test_names_may_be_of_any_script(tmp_path):
    for name in ("Käse", "猫 🐈"):
        for index in range(4):
            write(tmp_path / name / f"снимок {index}.png", seed=index)
    source = folder(tmp_path)
    assert source.class_names == ("Käse", "猫 🐈")
    np.testing.assert_array_equal(
        read(source.train)[0], np.asarray(Image.open(source.train.names[0]))
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
    assert all(f"/{held_out}/" in name for name in source.test.names)
    assert not any(f"/{held_out}/" in name for name in source.train.names)
    np.testing.assert_array_equal(source.test.labels, [0, 1])


def test_a_broken_file_does_not_shift_the_split_of_a_folder(tmp_path):
    two_classes(tmp_path / "train")
    two_classes(tmp_path / "val", each=2)
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"")
    (tmp_path / "val" / "dog" / "0.png").write_bytes(b"")
    source = folder(tmp_path)
    np.testing.assert_array_equal(np.bincount(source.train.labels), [4, 5])
    np.testing.assert_array_equal(np.bincount(source.test.labels), [2, 1])
    assert all("/val/" in name for name in source.test.names)
    assert len(source.skipped) == 2


def test_train_beside_two_other_folders_is_a_class(tmp_path):
    for name in ("train", "test", "plane"):
        for index in range(4):
            write(tmp_path / name / f"{index}.png")
    assert folder(tmp_path).class_names == ("plane", "test", "train")


def test_a_folder_is_split_within_each_class_by_seed(tmp_path):
    two_classes(tmp_path, each=10)
    one, same, other = (folder(tmp_path, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(np.bincount(one.test.labels), [2, 2])
    assert one.test.names == same.test.names
    assert one.test.names != other.test.names


def test_grey_images_have_three_equal_channels_in_colour(tmp_path):
    for name in ("cat", "dog"):
        for index, suffix in enumerate(["png", "bmp", "gif", "jpg"]):
            write(tmp_path / name / f"{index}.{suffix}", mode="L")
    source = folder(tmp_path)
    assert not source.skipped
    for image in read(source.train):
        assert image.shape == (9, 7, 3)
        np.testing.assert_array_equal(image, image[..., :1].repeat(3, -1))


def test_colour_images_show_their_luminance_in_one_channel(tmp_path):
    for name in ("cat", "dog"):
        for index, suffix in enumerate(["png", "bmp", "gif", "png"]):
            write(tmp_path / name / f"{index}.{suffix}", seed=index)
    source = folder(tmp_path, channels=1)
    assert source.channels == 1 and not source.skipped
    for name, image in zip(source.train.names, read(source.train), strict=True):
        assert image.shape == (9, 7, 1)
        expected = np.asarray(Image.open(name).convert("RGB")) @ [0.299, 0.587, 0.114]
        np.testing.assert_allclose(image[..., 0], expected, atol=0.51)


# === What is wrong with it ===


@pytest.mark.parametrize(
    "spec", ["folders:x", "digit", "digits:7", "folder", "folder:"]
)
def test_an_unknown_source_is_refused_with_those_there_are(spec):
    with pytest.raises(ValueError, match=r"Unknown data source .*digits, folder:PATH"):
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


def test_a_class_whose_images_are_all_broken_is_named_with_the_reason(tmp_path):
    # The other class's name and the path hold the broken one's name; its files are
    # broken too, but not all.
    path = tmp_path / "b"
    write(path / "ab" / "1.png")
    (path / "ab" / "0.png").write_bytes(b"")
    (path / "b").mkdir()
    (path / "b" / "0.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"class 'b' in .*/b/b/0.png: Unknown image"):
        folder(path)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_must_be_readable_in_both_parts(tmp_path, part):
    two_classes(tmp_path / "train", each=1)
    two_classes(tmp_path / "val", each=1)
    (tmp_path / part / "dog" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=f"class 'dog' in .*{part} can be read"):
        folder(tmp_path)


def test_a_class_that_is_only_tested_is_refused(tmp_path):
    two_classes(tmp_path / "train", each=1)
    two_classes(tmp_path / "val", each=1)
    write(tmp_path / "val" / "emu" / "0.png")
    with pytest.raises(ValueError, match="has a class 'emu'"):
        folder(tmp_path)


def test_broken_files_are_named_with_a_reason_and_the_others_used(tmp_path):
    two_classes(tmp_path, each=20)
    cat = tmp_path / "cat"
    broken = {cat / "empty.png": "the file is empty", cat / "text.jpg": "Unknown image"}
    (cat / "empty.png").write_bytes(b"")
    (cat / "text.jpg").write_text("I am no picture")
    (cat / "vanished.png").symlink_to(tmp_path / "nothing-here.png")
    broken[cat / "vanished.png"] = "No such file"
    for suffix, reason in {
        "png": "Invalid PNG",
        "jpg": "Invalid JPEG",
        "gif": "Invalid GIF",
        "bmp": "Input size",
    }.items():
        path = write(cat / f"truncated.{suffix}")
        path.write_bytes(path.read_bytes()[:-60])
        broken[path] = reason
    source = folder(tmp_path)
    assert len(source.train) + len(source.test) == 40
    assert {name for name, _ in source.skipped} == set(map(str, broken))
    for name, reason in source.skipped:
        expected = next(text for path, text in broken.items() if str(path) == name)
        assert expected in reason, name
        assert "\n" not in reason and "{{" not in reason and "[Op" not in reason
    assert not {name for name, _ in source.skipped} & set(all_names(source))
    assert len(read(source.train)) == len(source.train)


def test_a_directory_named_like_an_image_is_no_image(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "folder.png").mkdir()
    source = folder(tmp_path)
    assert len(all_names(source)) == 10 and not source.skipped


def test_the_contents_decide_what_an_image_is_not_its_ending(tmp_path):
    two_classes(tmp_path)
    write(tmp_path / "cat" / "really-a-png.jpg", format="PNG")
    source = folder(tmp_path)
    assert len(all_names(source)) == 11 and not source.skipped


@pytest.mark.parametrize("each", [1, 2])
def test_too_few_images_to_split_are_refused(tmp_path, each):
    with pytest.raises(ValueError, match="cannot be split"):
        folder(two_classes(tmp_path, each=each))
