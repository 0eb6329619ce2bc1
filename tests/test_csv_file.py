"""CSV files: which rows become images, with which labels."""

import numpy as np
import pytest
from image_sources import opened, picture, two_classes, write
from PIL import Image

from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.images.preprocessing import Preprocessing, decode


def table(path, text, **options):
    file = path / "images.csv"
    file.write_bytes(text.encode())
    return opened(f"csv:{file}", **options)


def rows(source):
    found = {}
    for part in (source.train, source.test):
        for index in range(len(part)):
            found[part.name(index)] = source.class_names[part.labels[index]]
    return found


def test_paths_start_from_the_file_and_labels_are_names(tmp_path):
    two_classes(tmp_path / "photos", each=3)
    elsewhere = write(tmp_path / "elsewhere" / "x y, ü.png")
    lines = [f"photos/{name}/{i}.png,{name}" for name in ("dog", "cat") for i in (0, 1)]
    lines += [f'"{elsewhere}",cat', "photos/dog/2.png,dog"]
    source = table(tmp_path, "path,label\n" + "\n".join(lines))
    assert source.class_names == ("cat", "dog") and source.channels == 3
    expected = {f"{tmp_path}/photos/dog/{i}.png": "dog" for i in range(3)}
    expected |= {f"{tmp_path}/photos/cat/{i}.png": "cat" for i in range(2)}
    assert rows(source) == {**expected, str(elsewhere): "cat"}
    for index in range(len(source.train)):
        pixels = np.asarray(Image.open(source.train.name(index)))
        np.testing.assert_array_equal(decode(source.train.file(index), 3), pixels)


def test_numbers_are_classes_in_the_order_of_their_size(tmp_path):
    lines = "\n".join(f"{i}.png,{i % 3 * 5 + 5}" for i in range(30))
    source = table(tmp_path, f"path,label\r\n{lines}")
    assert source.class_names == ("5", "10", "15")
    np.testing.assert_array_equal(np.bincount(source.test.labels), [2, 2, 2])


def test_a_column_may_say_how_the_images_are_split(tmp_path):
    text = "\ufefflabel,other,split,path\na,,train,1\nb,,train,2\nb,,val,3\na,,test,4\n"
    source = table(tmp_path, text)
    assert [source.train.name(i) for i in (0, 1)] == [f"{tmp_path}/1", f"{tmp_path}/2"]
    np.testing.assert_array_equal(source.validation.labels, [1])
    np.testing.assert_array_equal(source.test.labels, [0])
    # Earlier versions tested by both, and may go on.
    assert len(source.fingerprints) == 4


def test_rows_without_path_or_label_are_named(tmp_path):
    text = "path,label\n1,a\n,a\n2,\n3,b\n4\n5,b\n6,a\n7,a\n8,b\n"
    source = table(tmp_path, text, test_fraction=0.5)
    assert [(name[-1], why) for name, why in source.skipped] == [
        ("3", "the row has no path"),
        ("4", "the row has no label"),
        ("6", "the row has no label"),
    ]
    assert len(source.train) + len(source.test) == 6


def test_files_that_are_not_there_are_named_when_they_are_read(tmp_path):
    picture(0).save(tmp_path / "good.png")
    text = "path,label,split\ngood.png,a,train\ngood.png,b,train\n"
    source = table(tmp_path, text + "gone.png,a,val\ngood.png,b,val\n")
    preprocessing = Preprocessing(4, 4, 3, (0.0,) * 3, 1.0)
    ((_, labels, weights),) = evaluation_batches(source.test, preprocessing, 2)
    np.testing.assert_array_equal(weights, [0, 1])
    assert labels[1] == 1
    assert list(source.skipped) == [
        (f"{tmp_path}/gone.png", "No such file or directory")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name the column path. Received: nothing"),
        ("path,class\n1,a\n", "the column label. Received: path, class"),
        ("path,label\n", "lists no images"),
        ("path,label\n1,a\n2,a\n", "only one class, 'a'"),
        ("path,label\n1,a\n2,b\n", "cannot be split"),
        ("path,label,split\n1,a,train\n2,b,dev\n", "Row 3 .* Received: 'dev'"),
        ("path,label,split\n1,a,train\n2,b,train\n", "cannot be split"),
        ("path,label,split\n1,a,train\n2,b,val\n", "class 'b' to test"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        table(tmp_path, text)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Cannot read .*nothing.csv: No such file"):
        opened(f"csv:{tmp_path}/nothing.csv")
    (tmp_path / "x.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(ValueError, match="is no CSV file in UTF-8"):
        opened(f"csv:{tmp_path}/x.csv")
