"""One function opens a network, and what it opens knows itself."""

import json
import os
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.src.saving import saving_lib
from safetensors.numpy import save_file

import keras_alexnet
from keras_alexnet.errors import UserError
from keras_alexnet.files import digest_of
from keras_alexnet.images.preprocessing import MODES, Preprocessing
from keras_alexnet.training.checkpoint import CheckpointStore, snapshot
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.weights import catalog

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = ("ant", "bee", "cat")
PREPROCESSING = Preprocessing(16, 18, 1, (90.0,), 1 / 64)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A model that knows itself, in a file."""
    keras.utils.set_random_seed(0)
    model = keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 1), classes=3)
    model.bind(PREPROCESSING, class_names=NAMES, weights="a test")
    path = tmp_path_factory.mktemp("own") / "own.keras"
    model.save(path)
    return model, path


def assert_same(opened, model):
    assert isinstance(opened, keras_alexnet.AlexNet)
    assert opened.metadata.architecture == "alexnet_mini"
    assert opened.metadata.preprocessing == PREPROCESSING
    assert opened.metadata.class_names == NAMES
    x = opened.preprocess(np.full((20, 30, 3), 200, "uint8"))
    np.testing.assert_array_equal(opened(x), model(x))
    assert opened.decode_predictions([[0.1, 0.7, 0.2]], top=1)[0][0][1] == "bee"


# === Files ===


def test_a_model_file_is_opened_as_it_was_saved(own):
    model, path = own
    opened = keras_alexnet.open_network(path)
    assert_same(opened, model)
    assert opened.metadata == model.metadata


@pytest.mark.parametrize("architecture", [None, "alexnet_mini"])
def test_weights_of_a_file_of_ones_own_bring_what_it_knows(own, architecture):
    model, path = own
    shape = {} if architecture is None else {"input_shape": (16, 16, 1), "classes": 3}
    built = keras_alexnet.build(architecture, weights=path, **shape)
    assert_same(built, model)
    assert built.metadata.weights == "own.keras"
    assert built.metadata.digest.startswith("sha256:")


def test_for_other_classes_and_sizes_it_brings_what_still_holds(own):
    with pytest.warns(UserWarning, match="fc8"):
        built = keras_alexnet.build(
            "alexnet_mini", weights=own[1], input_shape=(32, 32, 1), classes=4
        )
    assert built.metadata.preprocessing == PREPROCESSING.with_image_size(32)
    assert built.metadata.class_names == ()


def test_a_functional_model_of_keras_becomes_an_alexnet(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.save(tmp_path / "theirs.keras")
    opened = keras_alexnet.open_network(tmp_path / "theirs.keras")
    opened.bind(MODES["torch"].with_image_size(8), class_names=["a", "b"])
    x = opened.preprocess(np.zeros((9, 9, 3), "uint8"))
    np.testing.assert_array_equal(opened(x), model(x))


def test_a_file_of_weights_is_opened_as_the_network_that_it_belongs_to(tmp_path):
    model = keras_alexnet.build("alexnet_mini", classes=4)
    model.save_weights(tmp_path / "a.weights.h5")
    opened = keras_alexnet.open_network(tmp_path / "a.weights.h5")
    for ours, theirs in zip(opened.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert opened.metadata.architecture == "alexnet_mini"


def test_weights_of_another_architecture_name_it(tmp_path):
    shapes = [(64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)]
    arrays = {}
    for index, (filters, channels, size) in zip((0, 3, 6, 8, 10), shapes, strict=True):
        kernel = np.zeros((filters, channels, size, size), "float32")
        arrays |= {f"features.{index}.weight": kernel}
        arrays |= {f"features.{index}.bias": kernel[:, 0, 0, 0]}
    save_file(arrays, tmp_path / "a")
    with pytest.raises(ValueError, match="of alexnet_owt: try that architecture"):
        keras_alexnet.build("alexnet_2012", weights=tmp_path / "a", include_top=False)
    model = keras_alexnet.open_network(tmp_path / "a")
    assert model.metadata.architecture == "alexnet_owt"
    assert model.metadata.preprocessing == MODES["torch"]
    assert model.output_shape == (None, 6, 6, 256)


# === Names ===


@pytest.fixture
def published(own, monkeypatch, tmp_path):
    """The file of a network that is in the catalog and has been downloaded."""
    file = catalog.PublishedFile(
        name="small",
        urls=("http://localhost:1/small.keras",),
        digest=digest_of(own[1]),
        source="a test",
        architecture="alexnet_mini",
    )
    monkeypatch.setattr(catalog, "CATALOG", {"small": file})
    monkeypatch.setenv(catalog.CACHE_VARIABLE, str(tmp_path))
    return tmp_path / "small.keras"


@pytest.mark.parametrize("name", ["small", "imagenet"])
def test_published_weights_are_fetched_by_name(own, published, name):
    published.write_bytes(own[1].read_bytes())
    assert_same(keras_alexnet.open_network(name), own[0])
    assert_same(keras_alexnet.build(weights=name), own[0])


@pytest.mark.parametrize(
    ("architecture", "weights", "message"),
    [
        (None, "smal", "Did you mean 'small'"),
        (None, "nowhere/small.pth", "No such weights file: nowhere/small.pth"),
        (
            "alexnet_2012",
            "imagenet",
            "of alexnet_2012.*some of alexnet_mini",
        ),
    ],
)
def test_an_unknown_name_is_a_mistake(published, architecture, weights, message):
    with pytest.raises(UserError, match=message):
        keras_alexnet.build(architecture, weights=weights)


# === Runs ===


@pytest.fixture
def run(own, tmp_path):
    """The directory of a run that was stopped after its second epoch."""
    config = TrainConfig(architecture="alexnet_mini", image_size=16)
    (tmp_path / "config.json").write_text(config.to_json())
    data = {"preprocessing": PREPROCESSING.to_config(), "class_names": NAMES}
    data["train"] = 1000
    (tmp_path / "data.json").write_text(json.dumps(data))
    model = keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 1), classes=3)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    store = CheckpointStore(tmp_path / "checkpoints")
    weights, history = {}, []
    for step, error in ((10, 0.1), (20, 0.3)):
        model.set_weights([w + step for w in model.get_weights()])
        history.append({"step": step, "val_top1_error": error})
        record = {"history": list(history), "stopped": False, "config": {}}
        store.save(step, snapshot(model), record)
        weights[step] = model.get_weights()
    return tmp_path, weights


@pytest.mark.parametrize(("which", "step"), [(None, 10), ("best", 10), ("last", 20)])
def test_a_stopped_run_is_opened_from_a_checkpoint(run, which, step):
    path, weights = run
    opened = keras_alexnet.open_network(path, checkpoint=which)
    for ours, theirs in zip(opened.get_weights(), weights[step], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert_same(opened, opened)


def test_a_finished_run_of_an_earlier_version_knows_itself(own, run):
    model, (path, weights) = own[0], run
    nameless = keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 1), classes=3)
    nameless.set_weights(model.get_weights())
    nameless.save(path / "model.keras")
    assert_same(keras_alexnet.open_network(path), model)
    best = keras_alexnet.open_network(path, checkpoint="best")
    np.testing.assert_array_equal(best.get_weights()[0], weights[10][0])


def test_what_holds_no_network_is_a_mistake(own, tmp_path):
    for where, options, message in (
        (tmp_path, {}, "not a run directory"),
        (tmp_path / "a.keras", {}, "No such weights file"),
        (__file__, {}, "none of the known formats"),
        (own[1], {"checkpoint": "best"}, "Only a run's directory"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_alexnet.open_network(where, **options)


# === Versions of Keras ===


def assert_opens(path):
    """Checks that Keras's own function and ours load what a file holds."""
    expected = np.load(FIXTURES / "keras_outputs.npy")
    for load in (keras.models.load_model, keras_alexnet.load_model):
        model = load(path)
        assert isinstance(model, keras_alexnet.AlexNet)
        assert model.metadata.class_names == NAMES
        assert model.metadata.architecture == "alexnet_mini"
        assert model.optimizer.iterations == 1
        x = np.linspace(-1, 1, 256, dtype="float32").reshape(1, 16, 16, 1)
        np.testing.assert_allclose(model(x), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["keras_3_12.keras", "keras_3_12.h5"])
def test_what_another_version_of_keras_saved_is_opened(name):
    assert_opens(FIXTURES / name)


def test_arguments_that_this_version_does_not_know_are_left_out(tmp_path):
    # As of Keras 3.15, whose HeNormal has input_axes, for 3.12.
    path = tmp_path / "future.keras"
    with zipfile.ZipFile(FIXTURES / "keras_3_12.keras") as old:
        with zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "config.json":
                    content = content.replace(b'"seed": null', b'"seed": null, "a": 7')
                new.writestr(name, content)
    with pytest.warns(UserWarning, match="Another version of Keras.*'a': 7"):
        assert_opens(path)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.12.0", "3.13.2"])
def test_each_version_opens_what_the_other_saves(tmp_path, version, own):
    """Installs another version of Keras before the one that is there."""
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target"]
        + [str(tmp_path / "other"), f"keras=={version}"],
        capture_output=True,
    )
    if installed.returncode:
        pytest.skip(f"Keras {version} cannot be installed here.")
    program = """
import keras, keras_alexnet, numpy, sys
assert keras.__version__ == sys.argv[1]
model = keras_alexnet.open_network(sys.argv[2])
x = numpy.full((1, 16, 16, 1), 0.5, "float32")
numpy.save(sys.argv[4], model(x))
model.save(sys.argv[3])
"""
    theirs, outputs = tmp_path / "theirs.keras", tmp_path / "outputs.npy"
    path = os.pathsep.join([str(tmp_path / "other"), *sys.path])
    subprocess.run(
        [sys.executable, "-c", program, version, own[1], theirs, outputs],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )
    x = np.full((1, 16, 16, 1), 0.5, "float32")
    for model in (own[0], keras_alexnet.open_network(theirs)):
        np.testing.assert_allclose(np.load(outputs), model(x), rtol=1e-5)


def run_python(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_keras_finds_the_classes_once_the_package_is_imported(own):
    load = f"import keras; keras.models.load_model({str(own[1])!r})"
    assert run_python(f"import keras, keras_alexnet; {load}").returncode == 0
    last = run_python(load).stderr.splitlines()[-1]
    assert last.startswith("TypeError: Could not locate class 'AlexNet'")
    assert "imported" in last and "keras_alexnet.model" in last


def test_another_backend_is_refused_in_one_line():
    failed = run_python("import keras_alexnet", KERAS_BACKEND="torch")
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("ImportError: keras_alexnet works with Keras on TensorFlow")


# === The Hugging Face Hub ===


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub with one model; what huggingface_hub itself does was tried by hand."""

    def snapshot_download(repo_id, **_):
        if repo_id != "user/net":
            raise OSError("404 Client Error.\n\nRepository Not Found")
        return str(tmp_path / "hub")

    stand_in = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setattr(saving_lib, "huggingface_hub", stand_in)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    return tmp_path / "hub"


def test_a_model_on_the_hub_is_opened_by_its_name(hub, monkeypatch):
    model = keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 1), classes=3)
    model.bind(class_names=["a", "b", "c"])
    hub.mkdir()
    model.save(hub, zipped=False)  # As Keras uploads it.
    again = keras_alexnet.open_network("hf://user/net")
    assert again.metadata.class_names == ("a", "b", "c")
    x = np.ones((2, 16, 16, 1), "float32")
    np.testing.assert_array_equal(again(x), model(x))
    with pytest.raises(ValueError, match="cannot be had from the Hub: 404 Client Err"):
        keras_alexnet.open_network("hf://user/nothing")
    with pytest.raises(ValueError, match="named hf://user/name. Received: hf://net"):
        keras_alexnet.open_network("hf://net")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r'pip install "keras-alexnet\[hub\]"'):
        keras_alexnet.open_network("hf://user/net")
