"""From files into models: what fits, what does not, conversions, the command."""

import dataclasses
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import writers
from reduced import reduced

import keras_alexnet
from keras_alexnet.weights import (
    LAYER_NAMES,
    LayerWeights,
    WeightFile,
    WeightFileError,
    load_weights_into,
    read_weights,
    recognise,
)
from keras_alexnet.weights.assignment import bind_weights

FIXTURES = Path(__file__).parent / "fixtures"
TINY = FIXTURES / "tiny_zip.pth"


def snapshot(model):
    # Of a layer too.
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def check_loaded(model, names):
    for name, weights in writers.expected().items():
        if name not in [layer.name for layer in model.layers]:
            continue
        for variable, array in zip(model.get_layer(name).weights, weights, strict=True):
            same = variable.shape == array.shape and np.array_equal(variable, array)
            assert same == (name in names), name


@pytest.mark.parametrize("options", [{}, {"dtype": "mixed_bfloat16"}])
def test_everything_fits(options):
    model = writers.model(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = load_weights_into(model, TINY, strict=True)
    assert report.loaded == LAYER_NAMES and not report.initial and not report.unused
    check_loaded(model, LAYER_NAMES)


def test_without_the_top_the_classifier_is_unused():
    model = writers.model(include_top=False)
    with pytest.raises(WeightFileError, match="fc6: found .*; expected no such layer"):
        load_weights_into(model, TINY, strict=True)
    report = load_weights_into(model, TINY)
    assert report.unused == ("fc6", "fc7", "fc8") and not report.initial
    check_loaded(model, LAYER_NAMES[:5])


@pytest.mark.parametrize(
    ("options", "name", "why"),
    [
        ({"classes": 7}, "fc8", "3 classes in the file, 7 in the model"),
        ({"input_shape": (48, 48, 3)}, "fc6", "8 inputs in the file"),
        ({"input_shape": (28, 28, 1)}, "conv1", "3 channels in the file, 1 in the"),
    ],
)
def test_what_does_not_fit_keeps_its_initial_value_and_is_named(options, name, why):
    model = writers.model(**options)
    before = snapshot(model.get_layer(name))
    with pytest.warns(UserWarning, match=f"Left {name} at its initial value: .*{why}"):
        report = load_weights_into(model, TINY)
    assert list(report.initial) == [name]
    for variable, array in zip(model.get_layer(name).weights, before, strict=True):
        np.testing.assert_array_equal(variable, array)
    check_loaded(model, set(LAYER_NAMES) - {name})


def test_other_layers_with_weights_are_named():
    model = writers.model(norm="batch_normalization")
    with pytest.warns(UserWarning, match="norm1"):
        report = load_weights_into(model, TINY)
    assert set(report.initial) == {"norm1", "norm2"}


@pytest.mark.parametrize("strict", [False, True])
def test_a_mismatch_names_layer_found_and_expected_and_changes_nothing(
    strict, tmp_path
):
    model = writers.model(groups=1)
    before = snapshot(model)
    with pytest.raises(ValueError) as caught:
        load_weights_into(model, TINY, strict=strict)
    message = str(caught.value)
    assert "conv2: found (5, 5, 1, 4), (4,); expected (5, 5, 2, 4), (4,)" in message
    assert "conv4" in message and "conv3" not in message
    weights = read_weights(TINY)
    layers = {n: w for n, w in weights.layers.items() if n not in ("conv3", "fc7")}
    with pytest.raises(ValueError, match="conv3: found no such layer; expected"):
        load_weights_into(model, dataclasses.replace(weights, layers=layers))
    (tmp_path / "damaged").write_bytes(TINY.read_bytes()[:-100])
    with pytest.raises(WeightFileError):
        load_weights_into(model, tmp_path / "damaged", strict=strict)
    for now, then in zip(snapshot(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_dense_layers_written_as_convolutions_are_dense(tmp_path):
    model = keras_alexnet.build(reduced("alexnet_slim_v2"))
    assert model.get_layer("fc6").kernel.shape == (5, 5, 32, 48)
    model.save(tmp_path / "a.keras")
    weights = read_weights(tmp_path / "a.keras")
    assert weights.layers["fc6"].kernel.shape == (800, 48)
    again = keras_alexnet.build(reduced("alexnet_slim_v2"))
    load_weights_into(again, weights)
    for now, then in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(now, then)


# === Recognition ===
def weights_of(convolutions, inputs=9216, **more):
    # Views of one number: the shapes of full-size networks, without their memory.
    def empty(*shape):
        return np.broadcast_to(np.float32(0), shape)

    layers = {
        name: LayerWeights(empty(*shape), empty(shape[-1]))
        for name, shape in zip(LAYER_NAMES[:5], convolutions, strict=True)
    }
    layers["fc6"] = LayerWeights(empty(inputs, 4096), empty(4096))
    layers["fc7"] = LayerWeights(empty(4096, 4096), empty(4096))
    layers["fc8"] = LayerWeights(empty(4096, 1000), empty(1000))
    return WeightFile(**{"format": "keras", "layers": layers, **more})


TOWERS = [(11, 11, 3, 96), (5, 5, 48, 256), (3, 3, 256, 384)]
TOWERS += [(3, 3, 192, 384), (3, 3, 192, 256)]
OWT = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384)]
OWT += [(3, 3, 384, 256), (3, 3, 256, 256)]


def test_architectures_are_recognised():
    owt = weights_of(OWT, format="torch")
    assert owt.count_params() == 61_100_840
    assert recognise(owt) == ("alexnet_owt",)
    towers = weights_of(TOWERS)
    assert towers.count_params() == 60_965_224
    assert set(recognise(towers)) == {
        *("alexnet_2012", "alexnet_2012_source", "bvlc_alexnet", "caffenet")
    }
    for form in ("caffe", "onnx"):
        first = weights_of(TOWERS, format=form, norm_first=True)
        assert recognise(first) == ("bvlc_alexnet",)
        behind = weights_of(TOWERS, format=form, norm_first=False)
        assert recognise(behind) == ("caffenet",)
    assert recognise(weights_of(TOWERS, format="npy"))[0] == "bvlc_alexnet"
    assert recognise(weights_of(TOWERS, name="caffenet")) == ("caffenet",)
    slim = [*OWT[:3], (3, 3, 384, 384), (3, 3, 384, 256)]
    slim_file = weights_of(slim, inputs=6400)
    assert slim_file.count_params() == 50_303_912
    assert recognise(slim_file) == ("alexnet_slim_v2",)
    assert recognise(weights_of(slim)) == ()
    half = [(11, 11, 3, 48), (5, 5, 48, 128), (3, 3, 128, 192)]
    half_file = weights_of([*half, (3, 3, 192, 192), (3, 3, 192, 256)])
    assert half_file.count_params() == 59_798_312
    assert recognise(half_file) == ("alexnet_2012_half",)
    assert recognise(read_weights(TINY)) == ()


# === The command ===


def test_the_command_saves_a_model_with_the_files_weights(tmp_path, command):
    model = keras_alexnet.build("alexnet_mini", classes=4)
    path, out = tmp_path / "a.weights.h5", tmp_path / "b.keras"
    model.save_weights(path)
    for options in ((), ("--architecture", "alexnet_mini")):
        code, said, _ = command("import-weights", path, "--out", out, *options)
        assert code == 0 and "Saved as alexnet_mini" in said
        assert f"{model.count_params():,}" in said
    loaded = keras_alexnet.load_model(out)
    for now, then in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("file", "options", "match"),
    [
        (TINY, {}, "no architecture has these layers .conv1 5x5x3x2"),
        (TINY, {"architecture": "alexnet_mini"}, r"conv1: found \(5, 5, 3, 2\)"),
        (TINY, {"architecture": "resnet"}, "Unknown architecture"),
        (TINY, {"out": "b.h5"}, r"\.keras"),
        (TINY, {"out": "missing/b.keras"}, "directory"),
        (__file__, {}, "none of the known formats"),
    ],
)
def test_the_command_refuses_what_cannot_work(
    file, options, match, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    options = {"out": "b.keras", **options}
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    code, _, said = command("import-weights", file, *flags)
    assert code == 2 and said.count("\n") == 1 and re.search(match, said)
    assert not (tmp_path / "b.keras").exists()


# === What weights expect ===


@pytest.mark.parametrize(
    ("format", "order", "mean"),
    [
        ("torch", "rgb", (0.485, 0.456, 0.406)),
        ("caffe", "bgr", (104.0, 117.0, 123.0)),
    ],
)
def test_weights_bring_what_they_expect_of_images(format, order, mean, tmp_path):
    model = keras_alexnet.build(reduced("bvlc_alexnet"))
    layers = {
        layer.name: LayerWeights(*layer.get_weights())
        for layer in model.layers
        if layer.name in LAYER_NAMES
    }
    bind_weights(model, WeightFile(format, layers, preprocessing=format))
    model.save(tmp_path / "model.keras")
    again = keras_alexnet.load_model(tmp_path / "model.keras")
    for one in (model, again):
        assert one.metadata.preprocessing.channel_order == order
        assert one.metadata.preprocessing.mean == mean
        assert one.metadata.preprocessing.image_size == 227
        assert one.metadata.class_order is None  # They are not ImageNet's 1,000.


def test_a_mean_image_takes_the_place_of_the_mean():
    model = keras_alexnet.build(reduced("bvlc_alexnet"))
    layers = {"conv1": LayerWeights(*model.get_layer("conv1").get_weights())}
    mean = np.random.default_rng(0).uniform(90, 130, (256, 256, 3)).astype("float32")
    bind_weights(
        model, WeightFile("caffe", layers, preprocessing="caffe", mean_image=mean)
    )
    image = np.full((227, 227, 3), (200, 150, 100), "uint8")
    found = model.metadata.preprocessing.normalize(image)
    # The channels turned round, and the centre of the mean image subtracted.
    centre = mean[14 : 14 + 227, 14 : 14 + 227]
    np.testing.assert_allclose(found, np.float32([100, 150, 200]) - centre, atol=1e-4)


class Nested(keras.layers.Layer):
    """A layer of a user's own, whose weights are in a layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.layers.BatchNormalization()

    def call(self, x):
        return self.inner(x)


def test_a_file_of_ours_fills_layers_inside_a_users_own(tmp_path):
    settings = {"norm": Nested, "input_shape": (16, 16, 1)}
    model = keras_alexnet.build("alexnet_mini", **settings)
    scale = model.get_layer("norm1").inner.gamma
    scale.assign(scale + 1)
    model.save(tmp_path / "model.keras")
    keras.utils.set_random_seed(5)
    path = tmp_path / "model.keras"
    again = keras_alexnet.build("alexnet_mini", **settings, weights=path)
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    with pytest.raises(WeightFileError, match="of a model with the same layers as"):
        keras_alexnet.build("alexnet_mini", **settings, classes=3, weights=path)
