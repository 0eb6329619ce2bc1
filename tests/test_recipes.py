"""Recipes: against the papers, logs and files that they stand for."""

import dataclasses

import numpy as np
import pytest

from keras_alexnet.architectures import get_architecture
from keras_alexnet.schedules import parse_schedule, per_epoch
from keras_alexnet.training.config import DEFAULTS, TrainConfig, get_recipe
from keras_alexnet.training.preparation import build_network
from keras_alexnet.training.rates import decays as layer_decays
from keras_alexnet.training.recipes import RECIPES


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match="Unknown recipe 'digts'.*Did you mean 'digits'"
    ):
        get_recipe("digts")


@pytest.mark.parametrize(
    "data, recipe",
    [("digits", "digits"), ("folder:photos", "images"), ("", "images")],
)
def test_auto_is_the_recipe_that_suits_the_data(data, recipe):
    config = get_recipe("auto", data)
    assert config == get_recipe(recipe, data)
    assert config.recipe == recipe and config.data == data


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_what_it_says_and_nothing_else(name):
    config = dataclasses.asdict(get_recipe(name, "folder:x"))
    expected = {**DEFAULTS, **RECIPES[name]}
    assert config == {**expected, "recipe": name, "data": "folder:x"}


def test_the_2012_recipe_is_the_papers():
    config = get_recipe("alexnet-2012", "folder:imagenet")
    assert config.architecture == "alexnet_2012" and config.horizontal_flip
    # Sections 4.1, 4.2 and 5.
    assert (config.epochs, config.global_batch_size) == (90, 128)
    assert (config.momentum, config.weight_decay) == (0.9, 0.0005)
    assert (config.color_noise, config.dropout) == ("0.1", "0.5")


def test_digits_are_never_mirrored():
    assert not get_recipe("digits").horizontal_flip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_a_network(name):
    architecture = get_recipe(name).architecture
    # These choose when images and weights are known.
    assert (architecture is None) == (name in ("images", "fine-tune"))
    if architecture is not None:
        get_architecture(architecture)


def test_the_rate_of_2012_falls_three_times_and_is_that_of_biases():
    config = get_recipe("alexnet-2012")
    rates = per_epoch(parse_schedule(config.learning_rate), 90)
    assert sorted(set(rates)) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])
    assert config.bias_multiplier == "1" and config.rate_multipliers == ()


# === The logged run: epochs as in its log, of 91 ===

IMAGES = 1_281_167


def logged_rates():
    """Rates of weights, of conv1 and of biases, and colour noise, by epoch."""
    for epoch in range(91):
        rate = 10.0 ** -(2 + sum(epoch >= drop for drop in (25, 51, 79)))
        conv1 = rate if epoch < 67 else 1e-5 if epoch < 72 else 0.0
        yield rate, conv1, 0.02, 0.1 if epoch < 67 else 0.0


def test_the_source_recipe_goes_through_the_rates_of_the_log():
    config = get_recipe("alexnet-2012-source", "folder:imagenet")
    assert config.epochs == 91 and config.global_batch_size == 128
    assert config.architecture == "alexnet_2012_source"
    rate = parse_schedule(config.learning_rate)
    bias = parse_schedule(config.bias_multiplier)
    conv1 = config.by_layer("rate_multipliers")["conv1"]
    steps = -(-91 * IMAGES // 128)
    for epoch, expected in enumerate(logged_rates()):
        # The first and the last whole step of the epoch.
        for step in (
            -(-epoch * IMAGES // 128),
            -(-(epoch + 1) * IMAGES // 128) - 2,
        ):
            at = step / steps
            found = rate(at), rate(at) * conv1(at), rate(at) * bias(at)
            assert found == pytest.approx(expected[:3]), (epoch, step)
    noise = per_epoch(parse_schedule(config.color_noise), 91)
    assert noise == tuple(row[3] for row in logged_rates())


def test_caffes_rate_falls_every_100_000_steps():
    config = get_recipe("caffe", "folder:imagenet")
    assert config.architecture == "bvlc_alexnet" and config.bias_multiplier == "2"
    assert (config.momentum, config.weight_decay) == (0.9, 0.0005)
    assert config.color_noise == "0" and config.global_batch_size == 256
    steps = config.epochs * IMAGES / 256
    assert steps == pytest.approx(450_000, rel=1e-3)
    rate = parse_schedule(config.learning_rate)
    for step in range(0, 450_000, 12_500):
        assert rate(step / steps) == pytest.approx(0.01 * 0.1 ** (step // 100_000))


def test_fine_tuning_moves_the_new_layer_ten_times_as_fast():
    config = get_recipe("fine-tune", "folder:photos")
    assert config.rate_multipliers is None  # See test_choices.py.
    assert config.epochs < get_recipe("alexnet-2012").epochs
    rate = parse_schedule(config.learning_rate)
    assert max(map(rate, (0, 0.05, 0.1, 0.5, 1))) == 0.001


def test_the_digits_are_trained_as_ever():
    config = get_recipe("digits")
    assert config.learning_rate == "cosine(0.02, warmup=0.05)"
    assert (config.epochs, config.global_batch_size, config.dropout) == (30, 64, "0.5")
    assert config.bias_multiplier == "1" and config.rate_multipliers == ()
    assert config.weights is None and config.freeze == ()


# === Recipes and some settings ===


@pytest.mark.parametrize(
    "values, recipe",
    [
        ({}, "digits"),
        ({"data": "folder:photos"}, "images"),
        ({"recipe": "caffe"}, "caffe"),
        ({"recipe": "auto", "data": "folder:photos"}, "images"),
        ({"recipe": "digits", "data": "folder:photos", "epochs": 3}, "digits"),
    ],
)
def test_what_is_not_given_is_the_recipes(values, recipe):
    config = dataclasses.asdict(TrainConfig(**values))
    expected = dataclasses.asdict(get_recipe(recipe))
    assert config == {**expected, **values, "recipe": recipe}


def test_all_settings_reproduce_themselves():
    config = TrainConfig(recipe="caffe", epochs=3, learning_rate="0.1")
    assert TrainConfig(**dataclasses.asdict(config)) == config


# === CIFAR-10: layers-*.cfg and layer-params-*.cfg of cuda-convnet ===


@pytest.mark.parametrize(
    "name, decays, drops",
    [
        ("80sec", {"conv1": 0.004, "fc64": 0.03, "fc10": 0.03}, (8,)),
        ("19pct", {"conv1": 0.004, "fc10": 3.0}, (120, 130)),
        ("18pct", {"conv1": 0.004, "fc10": 1.0}, (120, 130)),
    ],
)
def test_the_cifar_recipes_are_those_of_the_program(name, decays, drops):
    config = get_recipe(f"cifar-{name}", "folder:cifar")
    model = build_network(config, channels=3, classes=10)
    factors = layer_decays(config, model)
    for layer, decay in decays.items():
        found = config.weight_decay * factors.get(layer, 1)
        assert found == pytest.approx(decay, rel=1e-12)
    rates = per_epoch(parse_schedule(config.learning_rate), config.epochs)
    expected = [0.001 * 0.1 ** sum(e >= d for d in drops) for e in range(config.epochs)]
    assert rates == pytest.approx(expected)
    assert parse_schedule(config.bias_multiplier)(0.0) * 0.001 == 0.002
    deviations = {"conv1": 0.0001, "conv2": 0.01, "conv3": 0.01, "fc64": 0.1}
    deviations["fc10"] = 0.1 if name == "80sec" else 0.01
    for layer in (one for one in model.layers if hasattr(one, "kernel")):
        assert layer.kernel_initializer.stddev == deviations[layer.name]


def test_the_cifar_networks_average_as_the_program_does():
    # conv_util.cuh: windows are cut at the border, and what is left is averaged.
    model = build_network(get_recipe("cifar-19pct"), channels=3, classes=10)
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 32)).astype("float32")
    expected = [
        [x[0, i : i + 3, j : j + 3].mean((0, 1)) for j in range(0, 16, 2)]
        for i in range(0, 16, 2)
    ]
    pooled = model.get_layer("pool2")(x)[0]
    np.testing.assert_allclose(pooled, expected, atol=1e-6)
    # 32 -> 16 -> 8 -> 4 pixels.
    assert model.get_layer("fc10").kernel.shape == (4 * 4 * 64, 10)
