"""Attacks against foolbox's, corruptions against those of ImageNet-C's own code."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from image_sources import opened, two_classes
from scipy import stats
from test_explain import captum_network

import keras_alexnet
from keras_alexnet.images.preprocessing import get_preprocessing
from keras_alexnet.inspect import robustness
from keras_alexnet.inspect.corruptions import CORRUPTIONS, corrupt, corruptions
from keras_alexnet.inspect.robustness import Accuracy, fgsm, parse_epsilon, pgd
from keras_alexnet.training.adversarial import make_attack
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.optimizer import DecayedMomentum

FIXTURES = Path(__file__).parent / "fixtures"
FOOLBOX = np.load(FIXTURES / "foolbox.npz")
PIXELS = FOOLBOX["pixels"].transpose(0, 2, 3, 1).astype("float32")
LABELS = FOOLBOX["labels"]
IMAGENET_C = np.load(FIXTURES / "imagenet_c.npz")


@pytest.fixture(scope="module")
def network():
    """The network that foolbox attacked; see fixtures/make_with_foolbox.py."""
    model = captum_network()
    model = keras_alexnet.AlexNet(model.inputs[0], model.outputs[0])
    model.bind(get_preprocessing("torch", image_size=16, resize_size=16))
    return model


def mistaken(model, images):
    found = model.predict(model.metadata.preprocessing.normalize(images), verbose=0)
    return found.argmax(axis=1) != LABELS[: len(images)]


# === Attacks ===


def test_attacks_from_the_image_itself_are_those_of_foolbox(network):
    options = {"random_start": False, "steps": 20}
    for name, epsilon, found in (
        ("fgsm", 4 / 255, fgsm(network, PIXELS, LABELS, 4 / 255)),
        ("pgd", 4 / 255, pgd(network, PIXELS, LABELS, 4 / 255, **options)),
        ("pgd_l2", 0.25, pgd(network, PIXELS, LABELS, 0.25, norm="l2", **options)),
    ):
        assert found.dtype == np.float32 and found.shape == PIXELS.shape
        success = mistaken(network, found)
        assert abs(success.mean() - FOOLBOX[f"{name}_success"].mean()) <= 0.01
        expected = 255 * FOOLBOX[name].transpose(0, 2, 3, 1)
        difference = np.abs(found[: len(expected)] - expected)
        # A sign that rounding turns, where a gradient is next to nothing, moves one
        # number by a step.
        assert (difference > 1e-2).mean() < 0.005, name
        change = (found - PIXELS) / 255
        lengths = np.abs(change).max((1, 2, 3))
        if name == "pgd_l2":
            lengths = np.linalg.norm(change.reshape(len(change), -1), axis=1)
        assert lengths.max() <= epsilon * (1 + 1e-5)
        assert found.min() >= 0 and found.max() <= 255


@pytest.mark.parametrize("norm, epsilon", [("linf", 4 / 255), ("l2", 0.25)])
def test_attacks_from_random_places_succeed_as_often_as_those_of_foolbox(
    network, norm, epsilon
):
    name = "pgd_random_success" if norm == "linf" else "pgd_l2_random_success"
    found = pgd(network, PIXELS, LABELS, epsilon, norm=norm)
    success = mistaken(network, found).mean()
    assert abs(success - FOOLBOX[name].mean()) <= 0.01
    again = pgd(network, PIXELS, LABELS, epsilon, norm=norm)
    np.testing.assert_array_equal(found, again)
    assert np.abs(
        pgd(network, PIXELS, LABELS, epsilon, norm=norm, seed=1) - found
    ).any()
    # What succeeded once stays.
    more = mistaken(
        network, pgd(network, PIXELS, LABELS, epsilon, norm=norm, restarts=3)
    )
    assert (more | ~mistaken(network, found)).all()


def test_random_starts_fill_the_ball():
    for norm in ("linf", "l2"):
        random = np.random.default_rng(0)
        points = robustness._in_ball((4000, 2, 1, 1), norm, random).reshape(-1, 2)
        if norm == "linf":
            radii = np.abs(points).max(axis=1)
        else:
            radii = np.linalg.norm(points, axis=1)
        # In two dimensions the area within a radius is its square.
        assert stats.kstest(radii**2, "uniform").pvalue > 0.01


def test_what_is_mistaken_anyway_stays_as_it_is(network):
    wrong = (LABELS + 1) % 5
    np.testing.assert_array_equal(pgd(network, PIXELS, wrong, 4 / 255), PIXELS)


@pytest.mark.parametrize("name", ["alexnet_2012_source", "alexnet_owt", "alexnet_bn"])
def test_every_kind_of_network_can_be_attacked(name):
    architecture = keras_alexnet.get_architecture(name).widened(1 / 16)
    for dtype in ("float32", "mixed_bfloat16"):
        model = keras_alexnet.build(
            architecture, input_shape=(67, 67, 3), classes=4, dtype=dtype
        )
        model.bind(get_preprocessing("caffe", image_size=67))
        x = np.random.default_rng(0).uniform(0, 255, (2, 67, 67, 3)).astype("float32")
        labels = model.predict(model.metadata.preprocessing.normalize(x), verbose=0)
        found = pgd(model, x, labels.argmax(1), 8 / 255, steps=3)
        assert np.isfinite(found).all() and np.abs(found - x).max() <= 8.001
        assert np.abs(found - x).max() > 1


def test_epsilon_is_written_as_in_papers():
    assert parse_epsilon("8/255") == 8 / 255 and parse_epsilon("0.03") == 0.03
    assert parse_epsilon("765/255", "l2") == 3
    for text in ("8", "0", "-1/255", "8/0", "3px", "1%", "", "300/255", "nan", "inf"):
        with pytest.raises(ValueError, match="such as 8/255 or 0.03. Received: "):
            parse_epsilon(text)
    with pytest.raises(ValueError, match="Received: 3"):
        parse_epsilon("3", "l2")


def test_what_makes_no_sense_is_refused(network):
    for options, message in (
        ({"steps": 0}, "steps must be at least 1"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"norm": "l1"}, "linf or l2"),
    ):
        with pytest.raises(ValueError, match=message):
            pgd(network, PIXELS, LABELS, 0.1, **options)
    with pytest.raises(ValueError, match="from 0 to 4"):
        pgd(network, PIXELS, LABELS + 1, 0.1)
    unbound = keras_alexnet.build("alexnet_mini")
    with pytest.raises(ValueError, match="model.bind"):
        pgd(unbound, np.zeros((1, 28, 28, 3)), [0], 0.1)


# === Corruptions ===


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("defocus-blur", "defocus_blur"),
        ("zoom-blur", "zoom_blur"),
        ("brightness", "brightness"),
        ("contrast", "contrast"),
        ("pixelate", "pixelate"),
        ("jpeg", "jpeg_compression"),
    ],
)
@pytest.mark.parametrize("benchmark", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", [1, 5])
def test_corruptions_are_those_of_imagenet_c(name, theirs, benchmark, severity):
    image = IMAGENET_C[f"{benchmark}_pixels"]
    found = corrupt(image, name, severity)
    assert found.dtype == np.uint8 and found.shape == image.shape
    expected = IMAGENET_C[f"{benchmark}_{theirs}_{severity}"]
    difference = np.abs(found[-32:, :32].astype(int) - expected)
    # What lies next to a whole number is cut off there or one below.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.1


def test_noise_has_its_distribution():
    image = np.full((224, 224, 3), 102.0)

    def noisy(name, severity):
        return (corrupt(image, name, severity).astype(float) + 0.5) / 255

    gauss = noisy("gaussian-noise", 1)
    assert gauss.mean() == pytest.approx(0.4, abs=2e-3)
    assert gauss.std() == pytest.approx(0.08, rel=0.02)
    shot = noisy("shot-noise", 1)
    assert shot.mean() == pytest.approx(0.4, abs=3e-3)
    assert shot.std() == pytest.approx((0.4 / 60) ** 0.5, rel=0.02)
    impulse = corrupt(image, "impulse-noise", 5)
    assert (impulse == 255).mean() == pytest.approx(0.135, rel=0.05)
    assert (impulse == 0).mean() == pytest.approx(0.135, rel=0.05)
    assert set(np.unique(impulse)) <= {0, 101, 102, 255}


def test_corruptions_take_grey_images_and_are_the_same_for_the_same_seed():
    image = np.random.default_rng(0).uniform(0, 255, (28, 28, 1))
    for name in CORRUPTIONS:
        one, same, other = (corrupt(image, name, 3, seed) for seed in (1, 1, 2))
        assert one.shape == image.shape
        np.testing.assert_array_equal(one, same)
        assert (one != other).any() == name.endswith("noise")
    for arguments, message in (
        (("fog", 1), "Unknown corruption"),
        (("jpeg", 6), "from 1 to 5"),
    ):
        with pytest.raises(ValueError, match=message):
            corrupt(image, *arguments)


# === Accuracy ===


def test_intervals_are_wilsons():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for right, images, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = Accuracy(right, images)
        assert found.value == right / images
        assert found.interval == pytest.approx((low, high), abs=5e-5)


def test_errors_are_parts_of_a_baselines():
    def measured(clean, *under):
        counts = {None: clean}
        counts |= {("jpeg", s + 1): right for s, right in enumerate(under)}
        return {name: Accuracy(right, 100) for name, right in counts.items()}

    one, other = measured(90, 80, 70, 60, 50, 40), measured(80, 70, 60, 50, 40, 30)
    found = robustness.mean_errors(one, other)["jpeg"]
    assert found == pytest.approx({"error": 0.4, "ce": 0.8, "relative_ce": 1.0})
    assert robustness.mean_errors(one) == {"jpeg": {"error": pytest.approx(0.4)}}
    perfect = measured(100, 100, 100, 100, 100, 100)
    assert np.isnan(robustness.mean_errors(one, perfect)["jpeg"]["ce"])


def test_accuracy_is_that_of_each_image_under_each_change(network, tmp_path):
    two_classes(tmp_path, each=5)
    (tmp_path / "cat" / "bad.png").write_bytes(b"no image")
    data = opened(f"folder:{tmp_path}")
    splits = list(data.splits.values())
    changes = corruptions(["gaussian-noise"], seed=3)
    outputs = np.array([2, 4], np.int32)
    found = robustness.accuracies(network, splits, outputs, changes)
    assert [one.images for one in found.values()] == [10] * 6
    # By batches of another size, and one by one.
    assert found == robustness.accuracies(network, splits, outputs, changes, 3)
    images, labels = [], []
    for split in splits:
        for index in range(len(split)):
            if split.name(index).endswith("bad.png"):
                continue
            geometry = network.metadata.preprocessing.geometry
            images.append(geometry.prepare_file(split.file(index)).numpy())
            labels.append(outputs[split.labels[index]])
    noisy = [
        corrupt(x, "gaussian-noise", 2, (3, 0, 2, n)).astype("float32")
        for n, x in enumerate(images)
    ]
    for name, expected in ((None, images), (("gaussian-noise", 2), noisy)):
        x = network.metadata.preprocessing.normalize(np.stack(expected))
        right = (network.predict(x, verbose=0).argmax(1) == labels).sum()
        assert found[name].right == right


def test_the_command_prints_writes_and_draws(tmp_path, command):
    two_classes(tmp_path / "images", each=6)
    (tmp_path / "images" / "cat" / "bad.png").write_bytes(b"no image")
    for name in ("net", "other"):
        model = keras_alexnet.build("alexnet_mini", classes=2)
        model.bind(get_preprocessing("torch").with_image_size(28))
        model.bind(class_names=("cat", "dog"))
        model.save(tmp_path / f"{name}.keras")
    data = ("--data", f"folder:{tmp_path / 'images'}")
    arguments = ("robustness", tmp_path / "net.keras", *data)
    out = tmp_path / "out"
    baseline = ("--baseline", tmp_path / "other.keras")
    epsilons = ("--epsilon", "1/255", "8/255", "--steps", 2, "--restarts", 2)
    code, printed, errors = command(*arguments, *baseline, *epsilons, "--out", out)
    assert code == 0 and "bad.png" in printed + errors
    assert "12 images" in printed and "pgd 8/255, 2 steps, 2 restarts" in printed
    assert "relative CE" in printed
    found = json.loads((out / "robustness.json").read_text())
    clean = found["accuracy"]["unchanged"]
    assert clean["images"] == 12 and len(clean["interval"]) == 2
    assert found["accuracy"]["fgsm 1/255"]["epsilon"] == 1 / 255
    assert {f"jpeg {n}" for n in range(1, 6)} <= found["baseline_accuracy"].keys()
    assert found["corruption_errors"].keys() == CORRUPTIONS.keys()
    names = sorted(path.name for path in (out / "figures").iterdir())
    assert names == ["attacks.png", "corruptions.png"]
    # The same numbers again; only some images; nothing written.
    code, again, _ = command(*arguments, *baseline, *epsilons)
    assert code == 0 and again in printed
    few = ("--limit", 3, "--attacks", "--corruptions", "jpeg", "brightness")
    code, printed, _ = command(*arguments, *few)
    assert code == 0 and "3 images" in printed and "fgsm" not in printed
    assert "CE" not in printed and "zoom-blur" not in printed


@pytest.mark.parametrize(
    "options, message",
    [
        (("--epsilon", "8"), "such as 8/255 or 0.03. Received: 8"),
        (("--epsilon-l2", "2"), "Received: 2"),
        (("--steps", "0"), "--steps must be at least 1"),
        (("--restarts", "0"), "--restarts must be at least 1"),
        (("--limit", "0"), "--limit must be at least 1"),
        (("--batch-size", "0"), "--batch-size must be at least 1"),
        (("--corruptions", "fog"), "fog"),
    ],
)
def test_mistakes_are_said_before_the_network_is_read(command, options, message):
    code, _, errors = command("robustness", "none", "--data", "digits", *options)
    assert code == 2 and message in errors and "No such" not in errors


# === Adversarial training ===


@pytest.mark.parametrize("steps", [1, 8])
@pytest.mark.parametrize("probabilities", [False, True])
def test_training_images_go_to_the_corner_of_a_linear_networks_ball(
    steps, probabilities
):
    """Its gradient has the same signs everywhere: those of the weights' difference."""
    inputs = keras.Input((4, 4, 3))
    features = keras.layers.Flatten()(inputs)
    logits = keras.layers.Dense(2, name="fc8")(features)
    model = keras.Model(inputs, keras.layers.Softmax()(logits))
    model.compile(DecayedMomentum())
    random = np.random.default_rng(0)
    kernel = random.normal(size=(48, 2)).astype("float32")
    model.get_layer("fc8").set_weights([kernel, np.zeros(2, "float32")])
    preprocessing = get_preprocessing("torch", image_size=4, resize_size=4)
    config = TrainConfig(adversarial="8/255", adversarial_steps=steps)
    attack = make_attack(config, model, preprocessing)
    pixels = random.integers(0, 256, (6, 4, 4, 3)).astype("float32")
    labels = np.array([0, 1] * 3)
    given = tf.one_hot(labels, 2) if probabilities else tf.constant(labels)
    moved = attack(preprocessing.normalize(tf.constant(pixels)), given).numpy()
    uphill = np.sign(kernel[:, 1] - kernel[:, 0]).reshape(4, 4, 3)
    uphill = np.where(labels[:, None, None, None] == 0, uphill, -uphill)
    corner = np.clip(pixels + 8 * uphill, 0, 255)
    found = moved * np.float32([0.229, 0.224, 0.225]) * 255
    found += np.float32([0.485, 0.456, 0.406]) * 255  # torchvision's numbers.
    assert np.abs(found - pixels).max() <= 8.001
    if steps > 1:
        np.testing.assert_allclose(found, corner, atol=2e-3)
    else:
        # From the far side of the ball a step of 10 grey levels does not reach it.
        assert (np.abs(found - corner) < 2e-3).mean() > 0.5
        assert (np.sign(found - pixels) * np.sign(corner - pixels) >= 0).mean() > 0.7
