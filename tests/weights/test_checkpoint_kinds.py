"""Checkpoints as people have them: right, or refused with the advice that helps.

`docs/weights.md` has a line for each. `fixtures/kinds.zip` was written by PyTorch.
"""

import re
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import writers

import keras_alexnet
from keras_alexnet.weights import WeightFileError, read_weights

FIXTURES = Path(__file__).parent / "fixtures"
PAGE = Path(__file__).parents[2] / "docs" / "weights.md"
CONVOLUTIONS = tuple(writers.NAMES[:5])
HEADLESS = tuple(writers.NAMES[:7])
ALL = tuple(writers.NAMES)

# Kind -> what is read of it, and the argument that chooses among several networks.
READ = {
    "imagenet example": {},
    "model_state_dict": {},
    "net and accuracy": {},
    "lightning": {},
    "compiled": {},
    "averaged": {},
    "channels last": {},
    "half precision": {},
    "biases of four dimensions": {},
    "without the last layer": {"names": HEADLESS},
    "features only": {"names": CONVOLUTIONS},
    "query and key": {"prefix": "encoder_q"},
    "student and teacher": {"prefix": "teacher"},
    "network and average": {"prefix": "ema"},
}
SEVERAL = {
    "query and key": "'state_dict.module.encoder_k', 'state_dict.module.encoder_q'",
    "student and teacher": "'student.module.backbone'",
    "network and average": "'ema', 'net'",
}
REFUSED = {
    **{kind: f"several networks.*{names}" for kind, names in SEVERAL.items()},
    "nan": "conv2 have NaN",
    "batch normalisation": "has batch normalisation",
    "quantised": "quantised. Save the state dict of the one it was made from",
    "optimizer only": "no state dict",
    "lpips heads": r"of torchvision's AlexNet.*Found: .*lin0\.model\.1\.weight",
    "whole model": r"whole torch\.nn.*Save model\.state_dict\(\)",
    "whole model, before 1.6": r"whole torch\.nn.*model\.state_dict\(\)",
    "torchscript": r"Save torch\.jit\.load\(path\)\.state_dict\(\)",
    "exported program": r"Save torch\.export\.load\(path\)\.state_dict\(\)",
    "git lfs pointer": "git lfs pull",
    "web page": "a web page",
    "plain pickle": "Save the state dict with torch.save",
    "whole model of keras, .h5": "keras_alexnet.load_model",
    "onnx without its data": "other files, and 'a.data' is not beside it",
    "onnx from tensorflow": "Import the model it was made from",
    "mean image alone": "mean=",
}
OTHERS = {
    "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "web page": b"<!DOCTYPE html><html>404</html>",
    "plain pickle": b"\x80\x04}.",
    "mean image alone": writers.mean_blob().SerializeToString(),
}


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a file of a kind."""

    def write(kind):
        path = tmp_path / "weights"
        if kind in OTHERS:
            path.write_bytes(OTHERS[kind])
        elif kind == "whole model of keras, .h5":
            shutil.copy(FIXTURES.parents[1] / "fixtures" / "keras_3_12.h5", path)
        elif kind.startswith("onnx"):
            write_onnx(kind, path)
        else:
            with zipfile.ZipFile(FIXTURES / "kinds.zip") as kinds:
                path.write_bytes(kinds.read(kind))
        return path

    return write


def write_onnx(kind, path):
    graph = writers.onnx_graph()
    options = {"location": "a.data", "size_threshold": 0}
    if kind == "onnx from tensorflow":
        node = onnx.helper.make_node("Transpose", ["data_0"], ["x"], perm=[0, 2, 3, 1])
        graph.graph.node.insert(0, node)
    elif kind == "onnx of equal numbers":
        (bias,) = (one for one in graph.graph.initializer if one.name == "fc8_b_0")
        value = onnx.helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [0.5])
        shape = onnx.numpy_helper.from_array(np.array([3]), "shape")
        graph.graph.initializer.remove(bias)
        graph.graph.initializer.append(shape)
        names = ["shape"], ["fc8_b_0"]
        filled = onnx.helper.make_node("ConstantOfShape", *names, value=value)
        graph.graph.node.insert(0, filled)
    elif "data" in kind:
        onnx.save_model(graph, path, save_as_external_data=True, **options)
        if "without" in kind:
            (path.parent / "a.data").unlink()
        return
    path.write_bytes(graph.SerializeToString())


@pytest.mark.parametrize("kind", READ)
def test_it_is_read(kind, checkpoint):
    options = {"names": ALL, **READ[kind]}
    weight_file = read_weights(checkpoint(kind), prefix=options.get("prefix"))
    writers.check(weight_file, options["names"])
    assert weight_file.preprocessing == "torch"


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_with_advice(kind, checkpoint):
    with pytest.raises(WeightFileError, match=REFUSED[kind]):
        read_weights(checkpoint(kind))


def test_another_prefix_is_refused(checkpoint):
    with pytest.raises(WeightFileError, match="begin with 'vit'.*'ema', 'net'"):
        read_weights(checkpoint("network and average"), prefix="vit")


def test_without_the_last_layer_other_classes_are_learnt(checkpoint):
    path = checkpoint("without the last layer")
    with pytest.warns(UserWarning, match="Left fc8 .*: the file does not have it"):
        model = keras_alexnet.weights.load_weights_into(writers.model(), path)
    assert model.loaded == HEADLESS


def test_onnx_with_external_data(checkpoint):
    writers.check(read_weights(checkpoint("onnx with external data")))


def test_onnx_of_equal_numbers(checkpoint):
    found = read_weights(checkpoint("onnx of equal numbers")).layers["fc8"].bias
    np.testing.assert_array_equal(found, np.float32([0.5, 0.5, 0.5]))


@pytest.mark.parametrize(
    ("producer", "expected"),
    [("pytorch", "torch"), ("onnx-caffe2", "caffe"), ("somebody", None)],
)
def test_onnx_by_its_producer(producer, expected, tmp_path):
    graph = writers.onnx_graph()
    graph.producer_name = producer
    (tmp_path / "a").write_bytes(graph.SerializeToString())
    assert read_weights(tmp_path / "a").preprocessing == expected


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
@pytest.mark.parametrize("name", ["alexnet_small", "alexnet_bn", "cifar_18pct"])
def test_own_network_with_batch_normalisation(name, ending, tmp_path):
    narrow = keras_alexnet.get_architecture(name).widened(0.05)
    sizes = {"input_shape": (80, 80, 3)}
    last = "fc10" if name == "cifar_18pct" else "fc8"
    model = keras_alexnet.build(narrow, classes=3, **sizes)
    for variable in model.weights:
        values = np.linspace(-1, 1, np.prod(variable.shape, dtype=int))
        variable.assign(values.reshape(variable.shape))
    path = tmp_path / f"a{ending}"
    (model.save if ending == ".keras" else model.save_weights)(path)
    keras.utils.set_random_seed(1)
    again = keras_alexnet.build(narrow, classes=3, weights=path, **sizes)
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # For other classes everything but the last layer.
    with pytest.warns(UserWarning, match=f"Left {last} at its initial value"):
        other = keras_alexnet.build(narrow, classes=4, weights=path, **sizes)
    for ours, theirs in zip(other.weights[:-2], model.weights[:-2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_page_has_a_line_for_each_kind():
    kinds = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.M)
    onnx_kinds = {"onnx with external data", "onnx of equal numbers"}
    others = {"onnx by its producer", "own network with batch normalisation"}
    assert set(kinds) == {*READ, *REFUSED, *onnx_kinds, *others}
    assert len(kinds) == len(set(kinds))
