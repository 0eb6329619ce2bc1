"""LPIPS: published distances, and the formula in NumPy with random weights."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from safetensors.numpy import load_file, save_file

import keras_alexnet
from keras_alexnet.errors import UserError

# The published convolutions, heads and pairs of images are others' data.
DATA = Path(__file__).parents[2] / "shared" / "data"
DATA = Path(os.environ.get("KERAS_ALEXNET_TEST_DATA", DATA))
# As published with the metric, TID2013's images and LPIPS 0.1 of AlexNet.
PUBLISHED = {
    "I03": "0.7237",
    "I04": "0.2572",
    "I06": "0.05079",
    "I08": "0.05205",
    "I19": "0.4253",
}
# torchvision's: number in `features`, filters, channels, kernel, stride, padding.
CONVOLUTIONS = (
    (0, 64, 3, 11, 4, 2),
    (3, 192, 64, 5, 1, 2),
    (6, 384, 192, 3, 1, 1),
    (8, 256, 384, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Random convolutions and heads, under the names of the published ones."""
    folder = tmp_path_factory.mktemp("lpips")
    rng = np.random.default_rng(0)
    weights, heads = {}, {}
    for index, (number, filters, channels, kernel, *_) in enumerate(CONVOLUTIONS):
        shape = (filters, channels, kernel, kernel)
        scale = np.sqrt(2 / (channels * kernel**2))
        values = rng.normal(0, scale, shape), rng.normal(0, 0.1, filters)
        for name, value in zip(("weight", "bias"), values, strict=True):
            weights[f"features.{number}.{name}"] = value.astype("float32")
        heads[f"lin{index}"] = rng.uniform(0, 1, filters).astype("float32")
    save_file(weights, folder / "weights.safetensors")
    save_file(heads, folder / "heads.safetensors")
    return folder / "weights.safetensors", folder / "heads.safetensors"


@pytest.fixture(scope="module")
def lpips(files):
    return keras_alexnet.LPIPS(*files)


def images(count=2, size=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 255, (count, size, size + 3, 3)).astype("float32")


def by_formula(files, first, second):
    """The distance of two images, in float64, channels first as in PyTorch."""
    weights, heads = map(load_file, files)
    towers = []
    for image in (first, second):
        x = image.astype("float64") / 127.5 - 1
        x = (x - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
        x, activations = x.transpose(2, 0, 1), []
        for number, _, _, kernel, stride, padding in CONVOLUTIONS:
            x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
            windows = np.lib.stride_tricks.sliding_window_view(
                x, (x.shape[0], kernel, kernel)
            )[0, ::stride, ::stride]
            x = np.einsum(
                "ijckl,fckl->fij", windows, weights[f"features.{number}.weight"]
            )
            x = np.maximum(x + weights[f"features.{number}.bias"][:, None, None], 0)
            norm = np.sqrt((x**2).sum(0))
            activations.append(x / (norm + 1e-10))
            if number in (0, 3):
                x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
                x = x[:, ::2, ::2].max((3, 4))
        towers.append(activations)
    return sum(
        (heads[f"lin{i}"][:, None, None] * (one - other) ** 2).sum(0).mean()
        for i, (one, other) in enumerate(zip(*towers, strict=True))
    )


def test_published_distances_are_reproduced_to_all_their_digits():
    if not (DATA / "lpips_pairs").is_dir():
        pytest.skip(f"the published weights and images are not in {DATA}")
    lpips = keras_alexnet.LPIPS(
        DATA / "torchvision_alexnet_conv.safetensors",
        DATA / "lpips_v01_alex_heads.safetensors",
    )
    for name, published in PUBLISHED.items():
        pair = (
            np.asarray(Image.open(DATA / "lpips_pairs" / f"{kind}_{name}.png"))[None]
            for kind in ("ref", "dist")
        )
        found = float(lpips.distances(*pair)[0])
        digits = len(published.partition(".")[2])
        assert f"{found:.{digits}f}" == published


def test_the_distance_is_the_formula(lpips, files):
    first, second = images(), images(seed=1)
    expected = [by_formula(files, *pair) for pair in zip(first, second, strict=True)]
    np.testing.assert_allclose(lpips.distances(first, second), expected, rtol=1e-5)
    scaled = keras_alexnet.LPIPS(*files, max_value=1.0)
    found = scaled.distances(first / 255, second / 255)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_it_is_a_loss_and_a_metric_of_keras(lpips):
    first, second = images(), images(seed=1)
    distances = lpips.distances(first, second).numpy()
    assert float(lpips(first, second)) == pytest.approx(distances.mean(), rel=1e-6)
    model = keras.Sequential(
        [keras.Input(first.shape[1:]), keras.layers.Rescaling(1.0)]
    )
    model.compile("sgd", loss=lpips, metrics=[lpips.metric()])
    scores = model.evaluate(first, second, verbose=0, return_dict=True)
    assert scores["lpips"] == pytest.approx(distances.mean(), rel=1e-5)


def test_equal_images_have_no_distance_and_black_ones_a_gradient(lpips):
    first = images()
    np.testing.assert_array_equal(lpips.distances(first, first), [0, 0])
    for x in (first, np.zeros_like(first)):
        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            loss = lpips(images(seed=1), variable)
        assert np.isfinite(tape.gradient(loss, variable)).all()


def test_gradients_pull_images_together(lpips):
    target, x = images(1), tf.Variable(images(1, seed=1))
    before = float(lpips(target, x))
    for _ in range(5):
        with tf.GradientTape() as tape:
            loss = lpips(target, x)
        gradient = tape.gradient(loss, x)
        x.assign_sub(40 * gradient / tf.reduce_max(tf.abs(gradient)))
    assert float(lpips(target, x)) < 0.9 * before


def test_bfloat16_is_near(files, lpips):
    first, second = images(), images(seed=1)
    half = keras_alexnet.LPIPS(*files, dtype="mixed_bfloat16")
    found = half.distances(first, second)
    np.testing.assert_allclose(found, lpips.distances(first, second), rtol=0.02)


def test_it_survives_a_config_round_trip(lpips):
    config = keras.losses.serialize(lpips)
    again = keras.losses.deserialize(config)
    np.testing.assert_array_equal(
        again.distances(images(), images(seed=1)),
        lpips.distances(images(), images(seed=1)),
    )


def test_what_makes_no_pair_is_named(lpips, files, tmp_path):
    with pytest.raises(UserError, match="same shape. Received: .*40.* and .*41"):
        lpips.distances(images(), images(size=41))
    with pytest.raises(UserError, match="must be .batch, height, width, 3"):
        lpips.distances(images()[0], images()[0])
    with pytest.raises(UserError, match="31 pixels high and wide at least. Received"):
        lpips.distances(images(size=28), images(size=28))
    assert np.isfinite(lpips.distances(images(size=31), images(size=31))).all()
    with pytest.raises(UserError, match="no heads of LPIPS"):
        keras_alexnet.LPIPS(files[0], files[0])
    with pytest.raises(UserError, match="max_value must be positive"):
        keras_alexnet.LPIPS(*files, max_value=0)


# === The command ===


@pytest.fixture
def folders(tmp_path):
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        for index, image in enumerate(images(seed=number).astype("uint8")):
            Image.fromarray(image).save(tmp_path / folder / f"{index}.png")
    return tmp_path / "a", tmp_path / "b"


def test_the_command_compares_folders(command, folders, files, lpips):
    options = ("--weights", files[0], "--heads", files[1])
    code, output, _ = command("lpips", *folders, *options, "--csv")
    pairs = (images(seed=seed).astype("uint8") for seed in (0, 1))
    expected = lpips.distances(*pairs).numpy()
    found = [float(line.split(",")[2]) for line in output.splitlines()[1:]]
    assert code == 0
    np.testing.assert_allclose(found, expected, atol=1e-6)

    (folders[1] / "1.png").write_bytes(b"no image")
    code, output, errors = command("lpips", *folders, *options)
    assert code == 2 and "1.png cannot be read" in errors
    assert output.splitlines()[0].startswith(f"{expected[0]:.6f}")

    (folders[1] / "1.png").unlink()
    code, _, errors = command("lpips", *folders, *options)
    assert code == 2 and "no partner of the same name, such as 1.png" in errors
    code, _, errors = command("lpips", folders[0], folders[1] / "0.png", *options)
    assert code == 2 and "two files, or two folders" in errors
