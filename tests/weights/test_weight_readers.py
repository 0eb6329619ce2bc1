"""Every format gives the same weights, those that the file says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_net
import writers
from writers import check

from keras_alexnet.weights import (
    WeightFileError,
    load_weights_into,
    read_mean,
    read_weights,
)

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("tiny_zip.pth", "torch"),
        ("tiny_legacy.pth", "torch"),
        ("tiny_checkpoint.pth", "torch"),
        ("tiny_checkpoint_legacy.pth", "torch"),
        ("tiny.safetensors", "safetensors"),
        ("tiny_bfloat16.safetensors", "safetensors"),
        ("tiny_lists.npy", "npy"),
        ("tiny_dicts.npy", "npy"),
    ],
)
def test_real_files_are_read_under_any_name(file, form, tmp_path):
    shutil.copy(FIXTURES / file, tmp_path / "weights.jpg")
    weight_file = read_weights(tmp_path / "weights.jpg")
    check(weight_file)
    assert weight_file.format == form
    assert weight_file.preprocessing == ("caffe" if form == "npy" else "torch")


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("double", [False, True])
# The last layer is renamed where there are other classes.
@pytest.mark.parametrize("fc8", ["fc8", "fc8_flickr"])
def test_caffemodels_are_read(v1, norm_first, double, fc8, tmp_path):
    path = tmp_path / "weights"
    net = writers.caffe_net(v1=v1, norm_first=norm_first, double=double, fc8=fc8)
    path.write_bytes(net.SerializeToString())
    weight_file = read_weights(path)
    check(weight_file)
    assert weight_file.format == "caffe" and weight_file.preprocessing == "caffe"
    assert weight_file.norm_first == norm_first and weight_file.name == "Tiny"


def test_a_mean_image_goes_with_a_caffemodel(tmp_path):
    path, mean = tmp_path / "weights", tmp_path / "mean"
    path.write_bytes(writers.caffe_net().SerializeToString())
    mean.write_bytes(writers.mean_blob().SerializeToString())
    image = read_weights(path, mean=mean).mean_image
    assert image.shape == (3, 4, 3) and image.dtype == np.float32
    for y, x, channel in np.ndindex(3, 4, 3):
        assert image[y, x, channel] == (channel * 3 + y) * 4 + x
    np.testing.assert_array_equal(read_mean(mean), image)
    with pytest.raises(WeightFileError, match="mean image"):
        read_weights(mean)
    with pytest.raises(WeightFileError, match="mean image"):
        read_mean(path)


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("floats", [False, True])
def test_onnx_graphs_are_read(constants, transposed, floats, tmp_path):
    path = tmp_path / "weights"
    graph = writers.onnx_graph(
        constants=constants, transposed=transposed, floats=floats, norm_first=floats
    )
    path.write_bytes(graph.SerializeToString())
    weight_file = read_weights(path)
    check(weight_file)
    assert weight_file.format == "onnx" and weight_file.norm_first == floats


def test_onnx_weights_in_other_files_are_not_looked_for(tmp_path):
    graph = writers.onnx_graph()
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    path = tmp_path / "weights"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(WeightFileError, match="other files"):
        read_weights(path)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5"])
def test_keras_files_are_read_and_hold_the_same_bits(name, tmp_path):
    model = writers.model()
    load_weights_into(model, FIXTURES / "tiny_zip.pth")
    # Beside an optimizer's variables, which are not read.
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    (model.save if name == "a.keras" else model.save_weights)(tmp_path / name)
    weight_file = read_weights(tmp_path / name)
    check(weight_file)
    assert weight_file.format == "keras"
    assert weight_file.name == ("alexnet_mini" if name == "a.keras" else None)


@pytest.mark.parametrize("file", ["tiny_zip.pth", "tiny.safetensors", "tiny_lists.npy"])
def test_the_model_computes_what_pytorch_computed(file):
    model = writers.model(classifier_activation=None)
    load_weights_into(model, read_weights(FIXTURES / file))
    image = np.array(tiny_net.image(), np.float32).reshape(1, 3, 28, 28)
    logits = model(image.transpose(0, 2, 3, 1), training=False)
    expected = json.loads((FIXTURES / "tiny_logits.json").read_text())["logits"]
    np.testing.assert_allclose(logits[0], expected, rtol=0, atol=1e-6)
