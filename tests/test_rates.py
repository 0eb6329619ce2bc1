"""Multipliers and frozen layers: names and patterns against a model's layers."""

import pytest

import keras_alexnet
from keras_alexnet.schedules import Constant, Linear, Piecewise
from keras_alexnet.training.config import TrainConfig, get_recipe
from keras_alexnet.training.rates import BIASES, dropouts, frozen_layers, multipliers
from keras_alexnet.training.recipes import RECIPES

LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


@pytest.fixture(scope="module")
def model():
    return keras_alexnet.build("alexnet_mini", input_shape=(28, 28, 1), classes=10)


def test_by_default_every_layer_has_the_learning_rate(model):
    assert multipliers(TrainConfig(), model) == {}
    assert frozen_layers(TrainConfig(), model) == ()


def test_a_pattern_stands_for_its_layers_and_the_last_that_fits_counts(model):
    factors = ("conv*=linear(1, end=0)", "fc8=10", "conv2=0.5", " fc6 = 1 ")
    config = TrainConfig(rate_multipliers=factors)
    convolutions = [name for name in LAYERS if name.startswith("conv")]
    assert multipliers(config, model) == {
        **dict.fromkeys(convolutions, Linear(1, end=0)),
        "conv2": Constant(0.5),
        "fc8": Constant(10.0),
    }


def test_biases_have_a_multiplier_of_their_own(model):
    config = TrainConfig(bias_multiplier="piecewise((2, 20), (0.5,))")
    assert multipliers(config, model) == {BIASES: Piecewise((2, 20), (0.5,))}


def test_frozen_layers_are_found_by_name_and_pattern(model):
    config = TrainConfig(freeze=("conv[12]", "fc6", "conv1"))
    assert frozen_layers(config, model) == ("conv1", "conv2", "fc6")
    config = TrainConfig(freeze=("conv*",), rate_multipliers=("*=0.5", "conv1=2"))
    for name in frozen_layers(config, model):
        model.get_layer(name).trainable = False
    try:
        # A frozen layer is still a layer of the model, but has no rate.
        half = Constant(0.5)
        assert multipliers(config, model) == {"fc6": half, "fc7": half, "fc8": half}
        assert frozen_layers(config, model) == tuple(LAYERS[:5])
    finally:
        model.trainable = True


@pytest.mark.parametrize(
    "name, nearest", [("fc9", "fc"), ("convv1", "conv1"), ("CONV1", None), ("x*", None)]
)
def test_an_unknown_layer_is_refused_with_the_nearest(model, name, nearest):
    message = f"Unknown layer with weights {name!r}".replace("*", r"\*")
    hint = f". Did you mean '{nearest}" if nearest else ".*Available: conv1"
    with pytest.raises(ValueError, match=message + hint):
        multipliers(TrainConfig(rate_multipliers=(f"{name}=0",)), model)
    with pytest.raises(ValueError, match=message + hint):
        frozen_layers(TrainConfig(freeze=(name,)), model)


def test_a_layer_without_weights_cannot_be_frozen(model):
    with pytest.raises(ValueError, match="Unknown layer with weights 'pool1'"):
        frozen_layers(TrainConfig(freeze=("pool1",)), model)


def test_something_is_left_to_train(model):
    with pytest.raises(ValueError, match=r"All layers are frozen by conv\*, fc\*"):
        frozen_layers(TrainConfig(freeze=("conv*", "fc*")), model)


@pytest.mark.parametrize("name", RECIPES)
def test_the_layers_that_recipes_name_exist(model, name):
    multipliers(get_recipe(name), model)
    frozen_layers(get_recipe(name), model)


# === Dropout ===


def test_dropout_layers_have_the_common_rate_or_their_own(model):
    config = TrainConfig(dropout="0.4", dropout_by_layer=("drop7=linear(0.6, end=0)",))
    assert dropouts(TrainConfig(dropout="0.4"), model) == {
        "drop6": Constant(0.4),
        "drop7": Constant(0.4),
    }
    assert dropouts(config, model) == {
        "drop6": Constant(0.4),
        "drop7": Linear(0.6, end=0),
    }


def test_an_unknown_dropout_layer_is_refused_with_the_nearest(model):
    config = TrainConfig(dropout_by_layer=("drop8=0.5",))
    with pytest.raises(ValueError, match="Unknown dropout layer 'drop8'. Did you mean"):
        dropouts(config, model)
