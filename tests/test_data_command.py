"""`keras-alexnet data`: what it prints, draws and writes."""

import functools

import numpy as np
import pytest
from image_sources import opened, two_classes, write
from PIL import Image

from keras_alexnet.data.report import measure_sizes, read_labels


@pytest.fixture
def data(command):
    return functools.partial(command, "data")


def test_classes_counts_and_sizes_are_printed(tmp_path, data):
    two_classes(tmp_path / "train", each=4)
    two_classes(tmp_path / "val", each=2)
    picture = np.zeros((30, 20, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "train" / "cat" / "large.png")
    code, printed, _ = data(f"folder:{tmp_path}")
    lines = printed.splitlines()
    rows = [line.split() for line in lines[2:5]]
    assert code == 0
    assert rows == [["cat", "5", "2"], ["dog", "4", "2"], ["all", "9", "4"]]
    sizes = "Width x height: 7 x 9 to 20 x 30, in the middle 7 x 9 (9 images measured)."
    assert sizes in lines


def test_damaged_images_are_named_when_asked_for(tmp_path, data):
    two_classes(tmp_path)
    (tmp_path / "cat" / "empty.jpg").write_bytes(b"")
    assert "empty.jpg" not in data(f"folder:{tmp_path}")[1]
    code, output, _ = data(f"folder:{tmp_path}", "--check")
    assert code == 0 and "11 images checked, 1 damaged." in output
    assert f"Left out {tmp_path}/cat/empty.jpg: the file is empty" in output


def test_a_contact_sheet_shows_images(tmp_path, data):
    two_classes(tmp_path / "photos")
    write(tmp_path / "photos" / "cat" / "$odd.png").write_bytes(b"")
    sheet = tmp_path / "sheet.png"
    assert data(f"folder:{tmp_path / 'photos'}", "--contact-sheet", sheet)[0] == 0
    pixels = np.asarray(Image.open(sheet).convert("RGB"))
    # Noise in many colours on white.
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


def test_tfrecords_are_written_and_described_alike(tmp_path, data):
    out = tmp_path / "records"
    _, written, _ = data("digits", "--to-tfrecord", out, "--shards", 3)
    assert len(list((out / "train").iterdir())) == 3
    _, read, _ = data(f"tfrecord:{out}", "--contact-sheet", tmp_path / "sheet.png")
    assert "1,437" in written and "1,437" in read and "8 x 8" in read
    source = opened(f"tfrecord:{out}")
    digits = opened("digits")
    np.testing.assert_array_equal(
        np.bincount(read_labels(source.train)), np.bincount(digits.train.labels)
    )
    assert set(measure_sizes(source.test)) == {(8, 8)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit"], "Unknown data source 'digit'"),
        (["digits", "--shards", 3], "--shards says how --to-tfrecord writes"),
        (["digits", "--test-fraction", 2], "must be in [0, 1)"),
    ],
)
def test_mistakes_are_explained(data, arguments, message):
    code, _, error = data(*arguments)
    assert code == 2 and message in error
