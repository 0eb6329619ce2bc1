"""Attributions against captum's, and against what they are defined by."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from image_sources import write

import keras_alexnet
from keras_alexnet.images.preprocessing import get_preprocessing
from keras_alexnet.inspect import explain

CAPTUM = np.load(Path(__file__).parent / "fixtures" / "captum.npz")
IMAGES = CAPTUM["images"].transpose(0, 2, 3, 1)
TARGET = CAPTUM["target"]


def captum_network():
    """The network that captum explained; see fixtures/make_with_captum.py."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, padding="same", name="conv"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(),
            # PyTorch flattens channel by channel.
            layers.Permute((3, 1, 2)),
            layers.Flatten(),
            layers.Dense(5),
            layers.Softmax(),
        ]
    )
    kernels = [CAPTUM[f"weight{index}"] for index in range(3)]
    kernels = [k.transpose(2, 3, 1, 0) if k.ndim == 4 else k.T for k in kernels]
    biases = [CAPTUM[f"bias{index}"] for index in range(3)]
    model.set_weights([a for pair in zip(kernels, biases, strict=True) for a in pair])
    return model


@pytest.fixture(scope="module")
def network():
    return captum_network()


def near(found, expected):
    """Relative to the largest, as captum's in float32 are."""
    assert found.shape == expected.shape and found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_attributions_are_those_of_captum(network):
    near(
        explain.saliency(network, IMAGES, TARGET),
        CAPTUM["saliency"].transpose(0, 2, 3, 1),
    )
    near(
        explain.integrated_gradients(network, IMAGES, TARGET),
        CAPTUM["integrated"].transpose(0, 2, 3, 1).astype("float32"),
    )
    near(
        explain.deconvolution(network, IMAGES, TARGET),
        CAPTUM["deconvolution"].transpose(0, 2, 3, 1),
    )
    near(
        explain.grad_cam(network, IMAGES, TARGET, layer="relu"),
        CAPTUM["grad_cam"][:, 0],
    )
    near(
        explain.occlusion(network, IMAGES, TARGET, window=5, stride=3),
        CAPTUM["occlusion"][:, 0],
    )


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_integrated_gradients_add_up_to_the_difference_of_the_scores(dtype):
    model = keras_alexnet.build("alexnet_mini", dtype=dtype)
    logits = keras.Model(model.inputs, model.get_layer("fc8").output)
    x = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype("float32")
    found = explain.integrated_gradients(model, x, [3, 5], steps=200)
    scores = np.array(logits(x), "float32") - np.array(logits(0 * x), "float32")
    expected = scores[[0, 1], [3, 5]]
    limit = 1e-3 if dtype == "float32" else 0.05
    assert found.sum((1, 2, 3)) == pytest.approx(expected, rel=limit, abs=limit / 10)


def test_smooth_gradients_are_the_mean_over_noisy_images(network):
    clean = explain.smooth_grad(network, IMAGES, TARGET, samples=1, noise=0.0)
    near(np.abs(clean), explain.saliency(network, IMAGES, TARGET))
    options = {"samples": 3, "noise": 0.2}
    one, same, other = (
        explain.smooth_grad(network, IMAGES, TARGET, seed=seed, **options)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    # The same draws, one after the other.
    random, deviation = np.random.default_rng(1), 0.2 * np.ptp(IMAGES, (1, 2, 3))
    total = np.zeros_like(IMAGES)
    for _ in range(3):
        draws = random.standard_normal(IMAGES.shape, np.float32)
        noisy = IMAGES + deviation[:, None, None, None] * draws
        total += explain.smooth_grad(network, noisy, TARGET, samples=1, noise=0.0)
    near(one, total / 3)


def test_the_likeliest_class_is_explained_by_default(network):
    best = network.predict(IMAGES, verbose=0).argmax(axis=1)
    for method in (explain.saliency, explain.integrated_gradients):
        np.testing.assert_array_equal(
            method(network, IMAGES), method(network, IMAGES, best)
        )


@pytest.mark.parametrize("name", ["alexnet_2012_source", "alexnet_owt", "alexnet_bn"])
def test_every_kind_of_network_can_be_explained(name):
    architecture = keras_alexnet.get_architecture(name).widened(1 / 16)
    model = keras_alexnet.build(architecture, input_shape=(67, 67, 3), classes=4)
    x = np.random.default_rng(0).normal(size=(1, 67, 67, 3)).astype("float32")
    for method in explain.METHODS.values():
        options = {"stride": 32} if method is explain.occlusion else {}
        found = method(model, x, 1, **options)
        assert np.isfinite(found).all() and found.shape[0] == 1


@pytest.mark.parametrize(
    "method, options, message",
    [
        ("saliency", {"target": 5}, "from 0 to 4. Received: 5"),
        ("saliency", {"target": [1, -1]}, "from 0 to 4"),
        ("smooth-grad", {"samples": 0}, "samples must be at least 1"),
        ("integrated-gradients", {"steps": 0}, "steps must be at least 1"),
        ("grad-cam", {"layer": "rely"}, "Did you mean 'relu'"),
        ("grad-cam", {"layer": "flatten"}, "Unknown layer with feature maps"),
        ("occlusion", {"window": 17}, "window must be at most 16"),
        ("occlusion", {"stride": 0}, "stride must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(network, method, options, message):
    with pytest.raises(ValueError, match=message):
        explain.METHODS[method](network, IMAGES, **options)


def test_images_come_in_batches(network):
    with pytest.raises(ValueError, match="a batch of .*16, 16, 3"):
        explain.saliency(network, IMAGES[0])


def test_the_command_draws_what_it_can_and_names_the_rest(tmp_path, command):
    model = keras_alexnet.build("alexnet_mini", classes=3)
    model.bind(get_preprocessing("torch").with_image_size(28))
    model.bind(class_names=("ant", "bee", "cat"))
    model.save(tmp_path / "net.keras")
    write(tmp_path / "photos" / "0.png")
    (tmp_path / "photos" / "1.png").write_bytes(b"no image")
    arguments = ("explain", tmp_path / "net.keras", tmp_path / "photos")
    out = ("--out", tmp_path / "out")
    code, printed, errors = command(*arguments, "--method", *explain.METHODS, *out)
    assert code == 2 and "1 images are explained" in printed
    assert "1.png cannot be read: " in errors
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(f"0-{method}.png" for method in explain.METHODS)
    # Neither is written over the other's picture, nor is a pipe waited for.
    write(tmp_path / "photos" / "more" / "0.png", seed=1)
    os.mkfifo(tmp_path / "photos" / "2.png")
    code, printed, errors = command(*arguments, *out)
    assert code == 2 and "2 images are explained" in printed
    assert "2.png cannot be read: not a regular file" in errors
    one, other = (tmp_path / "out" / f"0{n}-grad-cam.png" for n in ("", "-2"))
    assert one.read_bytes() != other.read_bytes()
    for options, message in (
        (("--target", "bea"), "Did you mean 'bee'"),
        (("--target", "3"), "Unknown class '3'"),
        (("--layer", "fc7"), "Unknown layer with feature maps 'fc7'"),
    ):
        code, _, errors = command(*arguments, *options, *out)
        assert code == 2 and message in errors
    code, printed, _ = command(*arguments, "--target", "bee", *out)
    assert "2 images are explained" in printed
