"""Exports are used by programs that do not know this package."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_alexnet
from keras_alexnet.export import saved_model
from keras_alexnet.export.artefact import in_precision
from keras_alexnet.export.comparison import compare, noise
from keras_alexnet.export.keras_file import FORMAT
from keras_alexnet.export.saved_model import export_saved_model, open_saved_model
from keras_alexnet.images.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(28, 32, 3, (120.0, 110.0, 100.0), 1 / 64)
NAMES = ["ant", "bée", "cat", "dog", "eel", "fox"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = keras_alexnet.build("alexnet_mini", classes=len(NAMES))
    # Larger weights at the end, so that probabilities are far from equal.
    kernel, bias = model.get_layer("fc8").get_weights()
    model.get_layer("fc8").set_weights([kernel * 100, bias])
    path = tmp_path_factory.mktemp("export") / "saved_model"
    export_saved_model(model, path, PREPROCESSING, NAMES)
    return model, PREPROCESSING, path


def images(count=5, size=28):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), "uint8")


def test_requests_to_warm_up_are_those_of_tensorflow_serving(exported):
    # Of tensorflow-serving-api 2.21: a PredictionLog whose predict_log.request has the
    # signature "serve" and "images", tf.make_tensor_proto([[[[7]]]], uint8).
    theirs = (
        "322e0a2c0a071a05736572766512210a06696d61676573121708041210120208011202080112020801"
        "120208013a0107"
    )
    pixel = np.full((1, 1, 1, 1), 7, "uint8")
    assert saved_model._request("serve", "images", pixel).hex() == theirs
    path = exported[2] / "assets.extra" / "tf_serving_warmup_requests"
    assert len(list(tf.data.TFRecordDataset(str(path)))) == 3


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_serve_takes_pixels_of_either_type_in_any_number(exported, dtype, count):
    model, _, path = exported
    pixels = images(count).astype(dtype)
    # The network's input, written out.
    inputs = (pixels.astype("float32") - [120, 110, 100]) / 64
    expected = model(inputs.astype("float32"), training=False)
    exported = tf.saved_model.load(path)
    found = exported.serve(pixels)["probabilities"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_the_difference_from_the_model_is_at_most_rounding(exported):
    model, preprocessing, path = exported
    model.bind(preprocessing)
    run = open_saved_model(path)
    found = compare(run, model, noise(preprocessing), any_size=False)
    assert found.images == 16 and found.difference <= 1e-5 and found.agreement == 1


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_a_keras_file_is_the_model_in_its_precision(precision, tmp_path):
    model = keras_alexnet.build("alexnet_mini", classes=len(NAMES))
    model.bind(PREPROCESSING, class_names=NAMES)
    FORMAT.write(model, tmp_path, precision, ())
    expected = in_precision(model, precision) if precision else model
    inputs = PREPROCESSING.normalize(images())
    np.testing.assert_array_equal(
        FORMAT.open(tmp_path)(images()), expected.predict_on_batch(inputs)
    )
    opened = keras_alexnet.load_model(tmp_path / "model.keras")
    assert opened.metadata == model.metadata
    assert opened.get_layer("fc6").kernel.dtype == (precision or "float32")


def test_there_is_no_jitted_function_in_it(exported):
    _, _, path = exported
    assert b"_XlaMustCompile" not in (path / "saved_model.pb").read_bytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_that_are_rounded_in_every_call_are_exported_rounded(dtype, tmp_path):
    def save(policy):
        model = keras_alexnet.build("alexnet_mini", classes=len(NAMES), dtype=policy)
        export_saved_model(model, tmp_path / policy, PREPROCESSING, NAMES)
        return model, tf.saved_model.load(tmp_path / policy)

    model, exported = save(f"mixed_{dtype}")
    found = exported.serve(images())["probabilities"].numpy()
    inputs = PREPROCESSING.normalize(images())
    np.testing.assert_array_equal(found, model(inputs, training=False))
    assert {v.dtype for v in model.weights} == {"float32"}
    kept = {v.dtype for v in exported.variables if v.dtype.is_floating}
    assert kept == {tf.as_dtype(dtype)}
    save("float32")
    size, whole = (
        sum(file.stat().st_size for file in (tmp_path / policy / "variables").iterdir())
        for policy in (f"mixed_{dtype}", "float32")
    )
    assert size < 0.6 * whole


def test_normalisations_with_weights_keep_them_in_float32(tmp_path):
    model = keras_alexnet.build(
        "alexnet_mini",
        classes=len(NAMES),
        norm="batch_normalization",
        dtype="mixed_bfloat16",
    )
    for layer in model.layers:
        if "norm" in layer.name:
            layer.moving_mean.assign(layer.moving_mean + 0.1234567)
    export_saved_model(model, tmp_path, PREPROCESSING, NAMES)
    exported = tf.saved_model.load(tmp_path)
    found = exported.serve(images())["probabilities"].numpy()
    inputs = PREPROCESSING.normalize(images())
    np.testing.assert_array_equal(found, model(inputs, training=False))


def test_classify_reads_image_files_of_any_size_in_a_process_with_tensorflow_only(
    exported, tmp_path
):
    model, preprocessing, path = exported
    files = []
    for number, suffix in enumerate(("png", "jpeg", "bmp", "gif")):
        files.append(tmp_path / f"image.{suffix}")
        Image.fromarray(images(1, 40 + number)[0]).save(files[-1])
    program = """
import json, runpy, sys
import tensorflow as tf
example, *sys.argv = sys.argv[1:]
runpy.run_path(example)
model = tf.saved_model.load(sys.argv[1])
files = tf.stack([tf.io.read_file(path) for path in sys.argv[2:]])
answer = model.signatures["classify"](files)
assert "keras_alexnet" not in sys.modules
print(json.dumps({
    "labels": [[one.decode() for one in row] for row in answer["labels"].numpy()],
    "probabilities": answer["probabilities"].numpy().tolist(),
}))
"""
    example = Path(__file__).parents[1] / "examples" / "serve_saved_model.py"
    command = [sys.executable, "-c", program, example, "", path, *files]
    *printed, answer = subprocess.run(
        list(map(str, command)),
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    ).stdout.splitlines()
    answer = json.loads(answer)
    for file, line, labels, probabilities in zip(
        files, printed, answer["labels"], answer["probabilities"], strict=True
    ):
        image = preprocessing.decode(tf.io.read_file(str(file)))
        image = preprocessing.center_crop(preprocessing.resize(image))
        expected = model.predict(preprocessing.normalize(image)[None], verbose=0)[0]
        best = np.argsort(expected)[::-1][:5]
        assert labels == [NAMES[index] for index in best]
        np.testing.assert_allclose(probabilities, expected[best], atol=1e-5)
        # What the example program prints.
        assert line.startswith(f"{file} {labels[0]} ") and line.count("%") == 5
