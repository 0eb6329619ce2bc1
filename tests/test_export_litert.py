"""LiteRT exports, run by TensorFlow's interpreter of them."""

import re

import numpy as np
import pytest
import tensorflow as tf
from exported_networks import check_program, network, saved
from reduced import reduced

from keras_alexnet.export.comparison import noise
from keras_alexnet.export.litert import FILE, FORMAT

NAMES = list("0123456789")


def written(folder, model, preprocessing, precision="float32"):
    """Writes an export; returns what runs it, and its operations and their dtypes."""
    model.bind(preprocessing, class_names=NAMES)
    FORMAT.write(model, folder, precision, list(noise(preprocessing)))
    interpreter = tf.lite.Interpreter(str(folder / FILE))
    operations = [one["op_name"] for one in interpreter._get_ops_details()]
    dtypes = [np.dtype(one["dtype"]) for one in interpreter.get_tensor_details()]
    return FORMAT.open(folder), operations, dtypes


# Normalisation per tower and over pixels, and clipped windows with and without a rest;
# none of all that; batch normalisation, which goes into the convolutions.
@pytest.mark.parametrize(
    "architecture",
    [
        *(reduced(name) for name in ("alexnet_2012_source", "caffenet")),
        *("alexnet_mini", "alexnet_small"),
    ],
)
def test_float32_is_the_model_in_few_built_in_operations(architecture, tmp_path):
    model, preprocessing, images = network(architecture)
    run, operations, _ = written(tmp_path, model, preprocessing)
    expected = model.predict_on_batch(preprocessing.normalize(images))
    for count in (1, 3):
        np.testing.assert_allclose(run(images[:count]), expected[:count], atol=1e-5)
    assert not [name for name in operations if "Flex" in name or "CUSTOM" in name]
    # These are what accelerators refuse.
    assert not {"SHAPE", "STRIDED_SLICE", "PACK", "ADD_N", "PADV2"} & set(operations)


def test_int8_computes_in_int8_and_is_a_quarter_as_large(tmp_path):
    model, preprocessing, _ = network("alexnet_mini")
    images = np.stack([one.image for one in noise(preprocessing, 64)])
    expected = model.predict_on_batch(preprocessing.normalize(images))
    run, operations, dtypes = written(tmp_path, model, preprocessing, "int8")
    found = run(images)
    assert np.abs(found - expected).max() < 0.2
    sure = np.sort(expected)[:, -1] > 0.6
    assert sure.sum() > 10
    np.testing.assert_array_equal(found.argmax(1)[sure], expected.argmax(1)[sure])
    # The probabilities and the best of them are handed out as float32.
    assert operations.count("DEQUANTIZE") == 2 and dtypes.count(np.float32) == 2
    size = (tmp_path / FILE).stat().st_size
    written(tmp_path, model, preprocessing)
    assert size < 0.3 * (tmp_path / FILE).stat().st_size


def test_a_program_without_this_package_uses_the_export(tmp_path, command):
    check_program("litert", command, tmp_path, "--precision", "float16")


def test_what_loses_too_much_is_not_written(tmp_path, command):
    (_, path), out = saved(tmp_path), tmp_path / "out"
    export = ("export", path, "--format", "litert", "--out", out)
    code, _, error = command(*export, "--precision", "int8")
    assert code == 2 and "no training images to calibrate int8 by" in error
    data = ("--data", "digits", "--images", 50, "--calibration-data", "digits")
    code, printed, error = command(*export, "--precision", "int8", *data)
    assert code == 0 and re.search(r"[-\d.]+ points", printed)
    options = ("--precision", "int8", *data, "--max-loss", -100, "--overwrite")
    before = (out / FILE).read_bytes()
    code, _, error = command(*export, *options)
    assert code == 2 and "more than --max-loss -100. Nothing was written." in error
    assert (out / FILE).read_bytes() == before
