"""From an architecture and overrides to a model: what `build()` promises."""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from reduced import reduced

import keras_alexnet
from keras_alexnet.layers import (
    GroupedConv2D,
    LocalResponseNormalization,
    OverlappingMaxPooling2D,
    ScheduledDropout,
)

# === Arguments of keras.applications ===


def mini(**arguments):
    """The small network for a small image."""
    arguments.setdefault("input_shape", (16, 16, 1))
    return keras_alexnet.build("alexnet_mini", **arguments)


def layer_names(model):
    return [layer.name for layer in model.layers]


def types(model, role):
    return {type(layer) for layer in model.layers if layer.name.startswith(role)}


def ones(model, count=2):
    return np.ones((count, *model.input_shape[1:]), "float32")


def test_every_argument_of_keras_applications_is_taken():
    theirs = inspect.signature(keras.applications.VGG16).parameters
    ours = inspect.signature(keras_alexnet.build).parameters
    assert set(theirs) <= set(ours)
    for name in set(theirs) - {"weights", "classes", "name"}:
        assert ours[name].default == theirs[name].default, name


@pytest.mark.parametrize("pooling, reduce", [("avg", np.mean), ("max", np.max)])
def test_pooling_reduces_features_over_all_pixels(pooling, reduce):
    model = mini(include_top=False, pooling=pooling, input_shape=(32, 28, 1))
    assert model.output_shape == (None, 64)
    features = keras.Model(model.input, model.get_layer("pool5").output)
    x = np.random.default_rng(0).normal(size=(2, 32, 28, 1)).astype("float32")
    np.testing.assert_allclose(
        model(x), reduce(features(x), axis=(1, 2)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("classes", "channels"), [(1, 1), (2, 2), (np.int64(17), 3), (3, 5)]
)
def test_any_numbers_of_classes_and_of_channels(classes, channels):
    model = mini(classes=classes, input_shape=(16, 20, channels))
    assert model.get_layer("fc8").units == classes
    assert model.get_layer("conv1").kernel.shape[2] == channels
    assert model(ones(model)).shape == (2, classes)


def test_input_tensor_is_the_input_or_the_output_of_other_layers():
    inputs = keras.Input((16, 16, 1), name="mine")
    plain = mini(input_tensor=inputs, input_shape=None)
    assert plain.input is inputs
    scaled = keras.layers.Rescaling(0.5, name="halve")(keras.Input((16, 16, 1)))
    model = mini(input_tensor=scaled, input_shape=None)
    assert "halve" in layer_names(model)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype("float32")
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(model(x), plain(0.5 * x), rtol=1e-5)


def test_classifier_activation_turns_logits_into_the_output():
    softmax, logits = mini(), mini(classifier_activation=None)
    sigmoid = mini(classifier_activation="sigmoid")
    assert layer_names(softmax)[-1] == "predictions"
    assert logits(np.zeros((1, 16, 16, 1), "float32")).dtype == "float32"
    for model in (softmax, sigmoid):
        model.set_weights(logits.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype("float32")
    z = logits(x).numpy()
    by_hand = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(x), by_hand, rtol=1e-5)
    np.testing.assert_allclose(sigmoid(x), 1 / (1 + np.exp(-z)), rtol=1e-5)


# === Overrides ===


@pytest.mark.parametrize(
    "role, override, cls",
    [
        ("norm", "batch_normalization", keras.layers.BatchNormalization),
        ("norm", keras.layers.LayerNormalization, keras.layers.LayerNormalization),
        ("norm", "lrn", LocalResponseNormalization),
        ("pool", "max_pooling2d", keras.layers.MaxPooling2D),
        ("pool", keras.layers.AveragePooling2D, keras.layers.AveragePooling2D),
        (
            "pool",
            functools.partial(OverlappingMaxPooling2D, padding="valid"),
            OverlappingMaxPooling2D,
        ),
        ("conv", "grouped_conv", GroupedConv2D),
        ("conv", GroupedConv2D, GroupedConv2D),
        ("conv", keras.layers.Conv2D, keras.layers.Conv2D),
        ("activation", "leaky_re_lu", keras.layers.LeakyReLU),
        ("activation", "elu", keras.layers.Activation),
        ("activation", keras.layers.LeakyReLU, keras.layers.LeakyReLU),
        ("dropout", "gaussian_dropout", keras.layers.GaussianDropout),
        ("dropout", keras.layers.Dropout, keras.layers.Dropout),
        ("dense", lambda **options: keras.layers.Dense(**options), keras.layers.Dense),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:20]),
)
def test_role_is_overridden_by_name_class_or_function(role, override, cls):
    model = mini(**{role: override})
    prefix = {"activation": "relu", "dropout": "drop", "dense": "fc"}.get(role, role)
    default = mini()
    assert types(model, prefix) == {cls}
    assert layer_names(model) == layer_names(default)
    shapes = [layer.output.shape for layer in model.layers]
    assert shapes == [layer.output.shape for layer in default.layers]
    assert np.isfinite(model(ones(model), training=True)).all()


def test_what_stands_there_already_keeps_its_options_and_goes_with_none():
    default = mini()
    for override in ("grouped_conv", GroupedConv2D):
        assert mini(conv=override).count_params() == default.count_params()
    for role, prefix in (
        *(("norm", "norm"), ("pool", "pool")),
        *(("activation", "relu"), ("dropout", "drop")),
    ):
        kept = [one for one in layer_names(default) if not one.startswith(prefix)]
        assert layer_names(mini(**{role: None})) == kept


@pytest.mark.parametrize("rate", [0, 0.2, 0.75])
def test_number_as_dropout_changes_the_rate_only(rate):
    model = mini(dropout=rate)
    assert types(model, "drop") == {ScheduledDropout}
    assert [model.get_layer(f"drop{i}").rate for i in (6, 7)] == [rate, rate]


@pytest.mark.parametrize(("groups", "towers"), [(None, 2), (1, 1), (4, 4)])
def test_groups_set_the_towers_of_the_layers_that_have_two(groups, towers):
    model = mini(groups=groups)
    found = [model.get_layer(f"conv{i}").groups for i in (1, 2, 3, 4, 5)]
    assert found == [1, towers, 1, towers, towers]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"conv": None}, "conv cannot be left out"),
        ({"dense": None}, "dense cannot be left out"),
        ({"norm": "lnr"}, "Did you mean 'lrn'?"),
        ({"norm": lambda **_: "nothing"}, "expected a Keras layer, received str"),
        ({"norm": lambda: None}, "cannot be the norm layer norm1"),
        ({"pool": "dense"}, "cannot be the pool layer pool1"),
        ({"dropout": 1.0}, "rate must be in"),
        ({"groups": 3}, "groups"),
        ({"pooling": "mean"}, "pooling must be None, 'avg' or 'max'"),
        ({"classes": 0}, "classes must be at least 1"),
        ({"classes": True}, "classes must be an integer"),
        ({"groups": 2.0}, "groups must be an integer"),
        ({"dropout_position": "behind"}, "Available: after, before"),
        ({"pool": lambda **_: keras.layers.Dense(3)}, "conv2 cannot take"),
        ({"weights": "nowhere.keras"}, "No such weights file: nowhere.keras"),
        ({"input_shape": (16, 16)}, "input_shape must be three numbers"),
        ({"input_shape": (None, None, 1)}, "Only without the top"),
        ({"input_shape": (16, 16, None), "include_top": False}, "channels never"),
        ({"input_tensor": np.ones((1, 16, 16, 1))}, "must be a Keras tensor"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_mistakes_are_value_errors_that_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError) as raised:
        mini(**arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("position", "order"),
    [
        ("before", "flatten drop5 fc6 relu6 drop6 fc7 relu7 fc8"),
        ("after", "flatten fc6 relu6 drop6 fc7 relu7 drop7 fc8"),
    ],
)
@pytest.mark.parametrize("name", ["alexnet_mini", "alexnet_owt"])
def test_dropout_stands_before_or_after_the_hidden_layers(name, position, order):
    model = keras_alexnet.build(reduced(name), dropout_position=position)
    assert order in " ".join(layer_names(model))


def test_an_architecture_is_a_name_or_a_value_and_names_the_model():
    architecture = keras_alexnet.get_architecture("alexnet_mini")
    assert keras_alexnet.build(architecture).name == mini().name == "alexnet_mini"
    assert mini(name="mine").name == "mine"
    with pytest.raises(ValueError, match="must be a name or an Architecture.*False"):
        keras_alexnet.build(False)
    with pytest.raises(ValueError, match="Did you mean 'alexnet_2012'.*alexnet_mini"):
        keras_alexnet.build("alexnet2012")


# === Sizes ===


def test_smallest_size_is_that_of_the_network_with_its_overrides():
    with pytest.raises(ValueError, match="smallest are 1 x 1 pixels"):
        mini(pool=None, input_shape=(0, 16, 1))
    assert mini(pool=None, input_shape=(1, 1, 1)).output_shape == (None, 10)


# === An ordinary Keras model ===


def test_a_clone_has_fresh_weights_and_a_saved_model_the_same(tmp_path):
    model = mini(norm="batch_normalization", dropout=0.25)
    model.save(tmp_path / "model.keras")
    loaded = keras_alexnet.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    assert (clone.get_weights()[0] != model.get_weights()[0]).any()
    clone.set_weights(model.get_weights())
    for one in (loaded, clone):
        assert isinstance(one, keras_alexnet.AlexNet)
        assert layer_names(one) == layer_names(model)
        assert one.get_layer("drop6").rate == 0.25
        np.testing.assert_array_equal(one(ones(model)), model(ones(model)))


@pytest.mark.parametrize("as_default", [False, True])
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_gives_float32_probabilities(dtype, as_default):
    reference = mini()
    keras.config.set_dtype_policy(dtype if as_default else "float32")
    try:
        model = mini(dtype=None if as_default else dtype)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("conv2").compute_dtype == dtype.removeprefix("mixed_")
    assert {weight.dtype for weight in model.weights} == {"float32"}
    model.set_weights(reference.get_weights())
    y = model(ones(model))
    assert y.dtype == tf.float32
    np.testing.assert_allclose(y, reference(ones(model)), atol=0.05)


def test_channels_first_is_the_same_network_with_other_axes():
    reference = mini(include_top=False, input_shape=(18, 16, 3))
    keras.config.set_image_data_format("channels_first")
    try:
        model = mini(include_top=False, input_shape=(3, 18, 16))
    finally:
        keras.config.set_image_data_format("channels_last")
    model.set_weights(reference.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 18, 16, 3)).astype("float32")
    y = np.moveaxis(model(np.moveaxis(x, -1, 1)), 1, -1)
    np.testing.assert_allclose(y, reference(x), rtol=1e-4, atol=1e-5)


# === Architectures ===


def test_architectures_are_listed_by_pattern_and_cannot_be_changed():
    listed = keras_alexnet.list_architectures()
    assert listed == sorted(listed) and "alexnet_mini" in listed
    assert keras_alexnet.list_architectures("*_2012") == ["alexnet_2012"]
    assert keras_alexnet.list_architectures("vgg*") == []
    architecture = keras_alexnet.get_architecture("alexnet_mini")
    with pytest.raises(AttributeError):
        architecture.input_size = 1
    with pytest.raises(TypeError):
        architecture.features[0].options["filters"] = 1


def test_building_twice_gives_the_same_weights_from_the_same_seed():
    outputs = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = mini()
        outputs.append(model(ones(model)).numpy())
        fc6, fc7 = (model.get_layer(name).kernel for name in ("fc6", "fc7"))
        assert (fc6.numpy()[:10, :10] != fc7.numpy()[:10, :10]).all()
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert (outputs[0] != outputs[2]).any()


def test_a_network_is_widened_in_filters_and_hidden_units():
    mini = keras_alexnet.get_architecture("alexnet_mini")
    model = keras_alexnet.build(mini.widened(0.5), input_shape=(28, 28, 1))
    filters = [model.get_layer(f"conv{i}").kernel.shape[-1] for i in range(1, 6)]
    assert filters == [16, 32, 48, 48, 32]
    units = [model.get_layer(f"fc{i}").kernel.shape[-1] for i in (6, 7, 8)]
    assert units == [128, 128, 10]
    odd = keras_alexnet.build(mini.widened(0.53), input_shape=(28, 28, 1))
    # Two towers must share them.
    assert all(odd.get_layer(f"conv{i}").kernel.shape[-1] % 2 == 0 for i in (2, 4, 5))
    assert mini.widened(1.0) is mini
