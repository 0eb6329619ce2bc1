"""Every named network is the historical one, and may be changed like any other.

The figures are those of the published configurations and papers, none of them ours.
"""

import gc
from pathlib import Path

import keras
import numpy as np
import pytest
from reduced import VARIANTS, reduced

import keras_alexnet

PAGE = Path(__file__).parents[1] / "docs" / "variants.md"
TWO_TOWERS = ("alexnet_2012", "alexnet_2012_source", "bvlc_alexnet", "caffenet")

# === What is published ===
WEIGHTED = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
_TWO_TOWERS = (34_944, 307_456, 885_120, 663_936, 442_624)
_ONE_TOWER = (23_296, 307_392, 663_936)
_TOP = (37_752_832, 16_781_312, 4_097_000)
PARAMETERS = {
    **dict.fromkeys(TWO_TOWERS, (60_965_224, (*_TWO_TOWERS, *_TOP))),
    "alexnet_owt": (61_100_840, (*_ONE_TOWER, 884_992, 590_080, *_TOP)),
    "alexnet_slim_v2": (
        50_303_912,
        (*_ONE_TOWER, 1_327_488, 884_992, 26_218_496, *_TOP[1:]),
    ),
    # 11*11*3*48+48, 25*48*128+128, 9*128*192+192, 9*192*192+192, 9*192*256+256.
    "alexnet_2012_half": (
        59_798_312,
        (17_472, 153_728, 221_376, 331_968, 442_624, *_TOP),
    ),
}
MULTIPLICATIONS = {
    **dict.fromkeys(TWO_TOWERS, 724_406_816),
    "alexnet_owt": 714_188_480,
    "alexnet_slim_v2": 736_555_776,
    # Places times kernel, layer by layer; 391.5 million by hand.
    "alexnet_2012_half": 55 * 55 * 363 * 48
    + 27 * 27 * 1200 * 128
    + 13 * 13 * (1152 * 192 + 1728 * 192 + 1728 * 256)
    + (9216 + 4096 + 1000) * 4096,
}

SIZED = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
PIXELS = {
    **dict.fromkeys(VARIANTS, (55, 27, 27, 13, 13, 13, 13, 6)),
    "alexnet_slim_v2": (54, 26, 26, 12, 12, 12, 12, 5),
}
CHANNELS = {
    **dict.fromkeys(TWO_TOWERS, (96, 96, 256, 256, 384, 384, 256, 256)),
    "alexnet_owt": (64, 64, 192, 192, 384, 256, 256, 256),
    "alexnet_slim_v2": (64, 64, 192, 192, 384, 384, 256, 256),
    "alexnet_2012_half": (48, 48, 128, 128, 192, 192, 256, 256),
}
INPUTS = {
    **dict.fromkeys(VARIANTS, 224),
    **dict.fromkeys(("alexnet_2012", "bvlc_alexnet", "caffenet"), 227),
}

_USUAL_TOP = "flatten fc6 relu6 drop6 fc7 relu7 drop7 fc8 predictions"
_PAPER = (
    "images conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 "
    f"conv5 relu5 pool5 {_USUAL_TOP}"
)
_SOURCE = (
    "images pad1 conv1 norm1 pool1 relu1 conv2 relu2 norm2 spatial_norm2 pool2 conv3 "
    f"relu3 conv4 relu4 conv5 pool5 relu5 {_USUAL_TOP}"
)
_CAFFENET = (
    "images conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2 conv3 relu3 conv4 relu4 "
    f"conv5 relu5 pool5 {_USUAL_TOP}"
)
_TORCHVISION = (
    "images pad1 conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 "
    "relu5 pool5 avgpool flatten drop5 fc6 relu6 drop6 fc7 relu7 fc8 predictions"
)
_SLIM = (
    "images conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 "
    "pool5 fc6 relu6 drop6 fc7 relu7 drop7 fc8 squeeze predictions"
)
ORDERS = {
    "alexnet_2012": _PAPER,
    "alexnet_2012_source": _SOURCE,
    "alexnet_2012_half": _SOURCE,
    "bvlc_alexnet": _PAPER,
    "caffenet": _CAFFENET,
    "alexnet_owt": _TORCHVISION,
    "alexnet_slim_v2": _SLIM,
}

# Deviation of the weights, layer by layer, and the constant of the biases.
_SOURCE_INITIAL = (
    (0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01),
    (0, 1, 0, 1, 1, 1, 1, 0),
)
_CAFFE_DEVIATIONS = (0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.01)
_OWT_INPUTS = np.array([363, 1600, 1728, 3456, 2304, 9216, 4096, 4096])
_SLIM_IN = np.array([363, 1600, 1728, 3456, 3456])
_SLIM_OUT = np.array([121 * 64, 25 * 192, 9 * 384, 9 * 384, 9 * 256])
# A normal distribution cut off at two deviations.
_TRUNCATED = 0.005 * 0.879626
INITIAL = {
    "alexnet_2012": ((0.01,) * 8, (0, 1, 0, 1, 1, 1, 1, 0)),
    "alexnet_2012_source": _SOURCE_INITIAL,
    "alexnet_2012_half": _SOURCE_INITIAL,
    "bvlc_alexnet": (_CAFFE_DEVIATIONS, (0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0)),
    "caffenet": (_CAFFE_DEVIATIONS, (0, 1, 0, 1, 1, 1, 1, 0)),
    # Uniform within 1 / sqrt(inputs), biases too.
    "alexnet_owt": (tuple(1 / np.sqrt(3 * _OWT_INPUTS)), None),
    # Xavier: 2 / (inputs + outputs) is the variance.
    "alexnet_slim_v2": (
        (*np.sqrt(2 / (_SLIM_IN + _SLIM_OUT)), *[_TRUNCATED] * 3),
        (*[0.1] * 7, 0),
    ),
}


@pytest.fixture(scope="module", params=VARIANTS)
def network(request):
    """What the tests need of a full-size network, but not its 240 MB of weights."""
    keras.utils.set_random_seed(0)
    # Without a name it is the network of the paper.
    name = request.param if request.param != "alexnet_2012" else None
    model = keras_alexnet.build(name)
    assert model.name == request.param
    assert all(weight.trainable for weight in model.weights)
    facts = {
        "name": request.param,
        "order": " ".join(layer.name for layer in model.layers),
        "shapes": {layer.name: layer.output.shape[1:] for layer in model.layers},
        "parameters": model.count_params(),
        "layers": [model.get_layer(name).count_params() for name in WEIGHTED],
        "kernels": {},
        "multiplications": 0,
        "initial": [],
    }
    for name in WEIGHTED:
        kernel, bias = model.get_layer(name).get_weights()
        facts["kernels"][name] = kernel.shape
        places = np.prod(facts["shapes"][name][:-1], dtype=int)
        facts["multiplications"] += int(places * kernel.size)
        sample = kernel.reshape(-1)[:: max(1, kernel.size // 300_000)].astype("float64")
        facts["initial"].append((sample, np.abs(kernel).max(), bias))
    del model
    keras.backend.clear_session()
    gc.collect()
    return facts


def test_parameters_of_the_network_and_of_each_layer(network):
    total, layers = PARAMETERS[network["name"]]
    assert network["parameters"] == total == sum(layers)
    assert network["layers"] == list(layers)


def test_the_shapes_of_the_kernels_follow_from_the_architecture(network):
    architecture = keras_alexnet.get_architecture(network["name"])
    assert architecture.kernel_shapes() == network["kernels"]


def test_the_page_of_variants_has_the_sizes_and_parameters(network):
    found = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## "):
        title, *lines = section.splitlines()
        rows = [line.strip("| ").split(" | ") for line in lines if line[:1] == "|"]
        if title in ("Sizes", "Parameters"):
            column = rows[0].index(f"`{network['name']}`") + 1
            found[title] = {row[0]: row[column] for row in rows[2:]}
    counts = [f"{count:,}" for count in network["layers"]]
    assert found["Parameters"] == dict(zip(WEIGHTED, counts, strict=True))
    assert list(found["Sizes"]) == [*SIZED, "fc6", "fc7", "fc8"]
    for layer, size in found["Sizes"].items():
        assert size == "x".join(map(str, network["shapes"][layer]))


def test_multiplications_per_image(network):
    assert network["multiplications"] == MULTIPLICATIONS[network["name"]]


def test_the_order_of_the_layers(network):
    assert network["order"] == ORDERS[network["name"]]


def test_the_shape_behind_every_layer(network):
    name, shapes = network["name"], network["shapes"]
    assert shapes["images"] == (INPUTS[name], INPUTS[name], 3)
    found = [shapes[layer] for layer in SIZED]
    sizes = zip(PIXELS[name], CHANNELS[name], strict=True)
    assert found == [(pixels, pixels, channels) for pixels, channels in sizes]
    one = (1, 1) if name == "alexnet_slim_v2" else ()
    assert shapes["fc6"] == shapes["fc7"] == (*one, 4096)
    assert shapes["fc8"] == (*one, 1000)
    assert shapes["predictions"] == (1000,)


def test_the_initial_weights(network):
    deviations, constants = INITIAL[network["name"]]
    for index, (sample, largest, bias) in enumerate(network["initial"]):
        deviation = deviations[index]
        # Four standard errors: each fails once in 16,000 seeds, and the seed is fixed.
        error = 4 / np.sqrt(sample.size)
        assert abs(sample.mean()) < error * deviation
        assert sample.std() == pytest.approx(deviation, rel=error)
        if network["name"] == "alexnet_owt":
            bound = 1 / np.sqrt(_OWT_INPUTS[index])
            assert 0.99 * bound < largest <= bound * 1.000001
            assert 0.8 * bound < np.abs(bias).max() <= bound * 1.000001
            assert abs(bias.mean()) < bound / 4
        else:
            assert np.all(bias == np.float32(constants[index]))
            if deviation == _TRUNCATED:
                assert largest <= 0.01 * 1.000001
            elif network["name"] != "alexnet_slim_v2":
                assert largest > 3.5 * deviation  # Not truncated.


# === The conventions ===
@pytest.mark.parametrize(
    ("name", "k", "factor", "towers"),
    [
        ("alexnet_2012", 2.0, 1e-4, 1),
        ("alexnet_2012_source", 2.0, 2e-5, 2),
        ("alexnet_2012_half", 2.0, 2e-5, 1),
        ("bvlc_alexnet", 1.0, 2e-5, 1),
        ("caffenet", 1.0, 2e-5, 1),
    ],
)
def test_the_constants_of_response_normalisation(name, k, factor, towers):
    model = keras_alexnet.build(reduced(name))
    for norm in (model.get_layer("norm1"), model.get_layer("norm2")):
        alpha = norm.alpha / norm.size if norm.alpha_over_size else norm.alpha
        assert (norm.size, norm.beta, norm.k, norm.groups) == (5, 0.75, k, towers)
        assert alpha == pytest.approx(factor)


@pytest.mark.parametrize("name", ["alexnet_2012_source", "alexnet_2012_half"])
def test_the_source_halves_at_test_time(name):
    model = keras_alexnet.build(reduced(name))
    x = np.ones((1, 48), "float32")
    for layer in ("drop6", "drop7"):
        np.testing.assert_array_equal(model.get_layer(layer)(x), x / 2)


def test_every_network_says_what_it_is_and_where_sources_disagree():
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    for name in keras_alexnet.list_architectures():
        architecture = keras_alexnet.get_architecture(name)
        assert architecture.summary and f"| {architecture.summary} |" in page
        assert f"### {name} " in page


# === Changes ===
def names(model):
    return [layer.name for layer in model.layers]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    "change",
    [
        {"groups": 1, "norm": None},
        {"norm": "batch_normalization", "dropout": 0.2},
        {"norm": "lrn", "activation": "gelu"},
        {"pool": "max_pooling2d", "dropout": "scheduled_dropout"},
        {"conv": "conv2d", "groups": 1, "dropout": None},
        {"groups": 1, "norm": "batch_normalization", "pool": "average_pooling2d"},
        {"classes": 7, "input_shape": (226, 229, 1)},
    ],
    ids=lambda change: ",".join(f"{key}={value}" for key, value in change.items()),
)
def test_overrides_combine_with_every_network(name, change):
    model = keras_alexnet.build(reduced(name), **change)
    assert model.output_shape == (None, change.get("classes", 10))
    for layer in model.layers:
        if "groups" in change:
            assert getattr(layer, "groups", 1) == 1
        if "dropout" in change and layer.name.startswith("drop"):
            rate = change["dropout"] if isinstance(change["dropout"], float) else 0.5
            assert layer.rate == pytest.approx(rate)
    norms = [each for each in names(model) if "norm" in each]
    if "norm" in change:
        # One in each of the two historical places, or none.
        assert norms == ([] if change["norm"] is None else ["norm1", "norm2"])
    elif name in ("alexnet_owt", "alexnet_slim_v2"):
        assert norms == []


def test_a_norm_fills_the_empty_places_before_pooling():
    for name in ("alexnet_owt", "alexnet_slim_v2"):
        order = " ".join(names(keras_alexnet.build(reduced(name), norm="lrn")))
        assert "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3" in order


def test_one_tower_joins_convolutions_and_normalisations():
    model = keras_alexnet.build("alexnet_2012_source", groups=1)
    assert model.count_params() == 62_378_344  # 96-256-384-384-256, ungrouped.
    assert {model.get_layer(f"norm{i}").groups for i in (1, 2)} == {1}


@pytest.mark.parametrize("name", VARIANTS)
def test_features_without_the_top(name):
    model = keras_alexnet.build(
        reduced(name), include_top=False, input_shape=(None, None, 3)
    )
    assert names(model)[-1] in ("pool5", "relu5")
    assert model(np.zeros((1, 96, 80, 3), "float32")).shape[3] == 32
    pooled = keras_alexnet.build(
        reduced(name), include_top=False, pooling="avg", input_shape=(96, 96, 3)
    )
    assert pooled.output_shape == (None, 32)


@pytest.mark.parametrize(
    ("name", "include_top", "smallest"),
    [
        # Backwards through three pools and conv1. Rounding down: 1-3-7-15-67 pixels.
        ("alexnet_2012", True, 67),
        ("alexnet_2012", False, 67),
        # With one pixel in two enough for a clipped window: 1-2-4-8-39, of them 3 pad.
        ("alexnet_2012_source", True, 36),
        ("alexnet_2012_half", False, 36),
        ("bvlc_alexnet", True, 39),
        ("caffenet", False, 39),
        # 67, of them 4 pad; as torchvision says.
        ("alexnet_owt", True, 63),
        ("alexnet_slim_v2", False, 67),
        # fc6 needs 5 pixels: 5-11-23-47-195.
        ("alexnet_slim_v2", True, 195),
    ],
)
def test_the_smallest_image_is_named(name, include_top, smallest):
    def build(size):
        return keras_alexnet.build(
            reduced(name), include_top=include_top, input_shape=(size, size, 3)
        )

    with pytest.raises(ValueError, match=f"smallest are {smallest} x {smallest}"):
        build(smallest - 1)
    assert build(smallest).output_shape[-1] == (10 if include_top else 32)


# The networks that have all layers between them.
@pytest.mark.parametrize(
    "name", ["alexnet_2012_source", "alexnet_owt", "alexnet_slim_v2"]
)
def test_it_trains_in_mixed_precision_saves_and_loads(name, tmp_path):
    model = keras_alexnet.build(reduced(name), dtype="mixed_bfloat16")
    model.compile("sgd", "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
    before = [weight.numpy() for weight in model.trainable_weights]
    loss = model.train_on_batch(x, np.array([1, 2]))
    assert np.isfinite(loss)
    after = [weight.numpy() for weight in model.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in after)
    assert not np.array_equal(before[-1], after[-1])
    model.save(tmp_path / "model.keras")
    again = keras_alexnet.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict_on_batch(x), model.predict_on_batch(x))


def test_a_role_that_a_network_lacks_is_named():
    with pytest.raises(ValueError, match="alexnet_slim_v2 has no dense layers"):
        keras_alexnet.build("alexnet_slim_v2", dense="dense")
