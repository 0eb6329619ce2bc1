"""`keras-alexnet verify`: published values, from genuine and from other weights."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import keras_alexnet
from keras_alexnet import verification
from keras_alexnet.images.preprocessing import get_preprocessing
from keras_alexnet.weights.catalog import CATALOG
from keras_alexnet.weights.labels import imagenet_classes

# The published convolutions, heads and pairs of images are others' data.
DATA = Path(__file__).parents[2] / "shared" / "data"
DATA = Path(os.environ.get("KERAS_ALEXNET_TEST_DATA", DATA))
GENUINE = DATA / "torchvision_alexnet_conv.safetensors"
HEADS = DATA / "lpips_v01_alex_heads.safetensors"


def torchvision_shaped(path, seed=0):
    """Writes random convolutions of torchvision's shapes."""
    random, weights = np.random.default_rng(seed), {}
    shapes = (64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)
    for number, (filters, channels, side) in zip((0, 3, 6, 8, 10), shapes, strict=True):
        shape = (filters, channels, side, side)
        kernel = random.normal(0, 0.05, shape).astype("float32")
        weights[f"features.{number}.weight"] = kernel
        weights[f"features.{number}.bias"] = np.zeros(filters, "float32")
    save_file(weights, path)
    return path


def rows_of(output):
    """Returns what the table says of each check."""
    return [line.rstrip().rsplit("  ", 1)[-1] for line in output.splitlines()[2:]]


def test_genuine_weights_give_what_was_published(command, tmp_path):
    if not GENUINE.is_file():
        pytest.skip(f"the published weights and images are not in {DATA}")
    options = ("--heads", HEADS, "--lpips-pairs", DATA / "lpips_pairs")
    code, output, _ = command("verify", GENUINE, *options)
    assert code == 0 and "DIFFERS" not in output
    # One digest, ten activations and five distances; it is no whole file.
    assert rows_of(output).count("ok") == 16
    assert "the file has no dense layers" in output

    weights = load_file(GENUINE)
    weights["features.6.weight"] += np.float32(1e-3)
    save_file(weights, tmp_path / "changed.safetensors")
    code, output, _ = command("verify", tmp_path / "changed.safetensors")
    assert code == 1 and rows_of(output).count("DIFFERS") == 1


def test_other_weights_differ_and_what_cannot_be_checked_is_said(command, tmp_path):
    path = torchvision_shaped(tmp_path / "own.safetensors")
    code, output, _ = command("verify", path)
    assert code == 1
    assert rows_of(output) == ["not checked", "DIFFERS", *["not checked"] * 3]
    assert output.count("these are not torchvision's convolutions") == 2


@pytest.fixture(params=["channels_last", "channels_first"])
def data_format(request):
    keras.config.set_image_data_format(request.param)
    yield request.param
    keras.config.set_image_data_format("channels_last")


def test_activations_are_those_of_the_network(data_format, monkeypatch, tmp_path):
    path = torchvision_shaped(tmp_path / "own.safetensors")
    model = keras_alexnet.open_network(path)
    values = model.preprocess(verification.synthetic_image())
    # By Keras's own layers, without the features' names.
    golden = {}
    for layer in model.layers[1:]:
        values = layer(values)
        if layer.name in verification.ACTIVATIONS:
            maps = np.asarray(values[0], np.float64)
            maps = np.moveaxis(maps, -1, 0) if data_format == "channels_last" else maps
            place = (3, 5, 7)
            golden[layer.name] = (np.linalg.norm(maps), place, maps[place])
    monkeypatch.setattr(verification, "ACTIVATIONS", golden)
    digest = verification._convolutions(model)
    monkeypatch.setattr(verification, "CONVOLUTIONS", digest)
    checks = list(verification.verify(model, path))
    assert [check.ok for check in checks[1:12]] == [True] * 11
    norm, place, value = golden["relu3"]
    golden["relu3"] = (norm * 1.0001, place, value)
    checks = list(verification.verify(model, path))
    assert [check.what for check in checks if check.ok is False] == ["relu3 norm"]


def test_accuracies_are_compared_on_all_images_of_imagenet(monkeypatch, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras_alexnet.build("alexnet_mini", classes=1000)
    model.bind(
        get_preprocessing("torch", image_size=28, resize_size=32),
        class_order="wordnet",
    )
    wnids = [wnid for wnid, _ in imagenet_classes("wordnet")]
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (4, 40, 40, 3), np.uint8)
    scores = model(model.preprocess(pixels))
    likeliest = np.argsort(-np.asarray(scores), axis=1)
    # Right, right among five, and twice wrong; in the order of their classes.
    for number, place in enumerate((0, 3, 500, 900)):
        folder = tmp_path / wnids[likeliest[number, place]]
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels[number]).save(folder / f"{number}.png")
    published = CATALOG["torchvision-alexnet"]
    checks = list(verification._accuracies(model, published, tmp_path))
    assert [check.expected for check in checks] == ["56.522%", "79.066%"]
    assert [check.got.split(",")[0] for check in checks] == ["25.000%", "50.000%"]
    assert [check.ok for check in checks] == [None, None]
    monkeypatch.setattr(verification, "IMAGENET_IMAGES", 4)
    checks = list(verification._accuracies(model, published, tmp_path))
    assert [check.ok for check in checks] == [False, False]
