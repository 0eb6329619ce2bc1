"""`keras-alexnet data`: what it prints, draws and writes."""

import numpy as np
import pytest
from image_sources import opened, two_classes, write
from PIL import Image

from keras_alexnet.cli import main
from keras_alexnet.data.report import count_labels, measure_sizes


def data(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["data", *map(str, arguments)])
    return stop.value.code


def test_classes_counts_and_sizes_are_printed(tmp_path, capsys):
    two_classes(tmp_path / "train", each=4)
    two_classes(tmp_path / "val", each=2)
    picture = np.zeros((30, 20, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "train" / "cat" / "large.png")
    assert data(f"folder:{tmp_path}") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("│ ").split("│") for line in lines if line.startswith("│")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells == [["cat", "5", "2"], ["dog", "4", "2"], ["all", "9", "4"]]
    sizes = "Width x height: 7 x 9 to 20 x 30, in the middle 7 x 9 (9 images measured)."
    assert sizes in lines


def test_damaged_images_are_named_when_asked_for(tmp_path, capsys):
    two_classes(tmp_path)
    (tmp_path / "cat" / "empty.jpg").write_bytes(b"")
    assert data(f"folder:{tmp_path}") == 0
    assert "empty.jpg" not in capsys.readouterr().out
    assert data(f"folder:{tmp_path}", "--check") == 0
    output = capsys.readouterr().out
    assert "11 images checked, 1 damaged." in output
    assert f"Left out {tmp_path}/cat/empty.jpg: the file is empty" in output


def test_a_contact_sheet_shows_images(tmp_path):
    two_classes(tmp_path / "photos")
    write(tmp_path / "photos" / "cat" / "$odd.png").write_bytes(b"")
    sheet = tmp_path / "sheet.png"
    assert data(f"folder:{tmp_path / 'photos'}", "--contact-sheet", sheet) == 0
    pixels = np.asarray(Image.open(sheet).convert("RGB"))
    # Noise in many colours on white.
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


def test_tfrecords_are_written_and_described_alike(tmp_path, capsys):
    out = tmp_path / "records"
    assert data("digits", "--to-tfrecord", out, "--shards", 3) == 0
    written = capsys.readouterr().out
    assert len(list((out / "train").iterdir())) == 3
    assert data(f"tfrecord:{out}", "--contact-sheet", tmp_path / "sheet.png") == 0
    read = capsys.readouterr().out
    assert "1,437" in written and "1,437" in read and "8 x 8" in read
    source = opened(f"tfrecord:{out}")
    digits = opened("digits")
    np.testing.assert_array_equal(
        count_labels(source.train, 10), np.bincount(digits.train.labels)
    )
    assert measure_sizes(source.test).largest == (8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit"], "Unknown data source 'digit'"),
        (["digits", "--shards", 3], "--shards says how --to-tfrecord writes"),
        (["digits", "--test-fraction", 2], "must be in [0, 1)"),
    ],
)
def test_mistakes_are_explained(capsys, arguments, message):
    assert data(*arguments) == 2
    assert message in capsys.readouterr().err
