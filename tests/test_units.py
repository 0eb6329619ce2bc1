"""Receptive fields against gradients, excitation and selectivity against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from image_sources import write

import keras_alexnet
from keras_alexnet.images.preprocessing import get_preprocessing
from keras_alexnet.inspect import units


@pytest.mark.parametrize(
    "name, layer, size",
    [
        ("alexnet_2012_source", "pool2", 99),
        ("alexnet_2012", "conv3", 99),
        ("alexnet_owt", "avgpool", 80),
        ("alexnet_slim_v2", "relu3", 99),
        ("cifar_18pct", "pool3", 24),
        ("alexnet_mini", "fc6", 28),
    ],
)
def test_receptive_fields_are_the_inputs_that_change_an_output(name, layer, size):
    architecture = keras_alexnet.get_architecture(name).widened(1 / 8)
    channels = architecture.channels
    model = keras_alexnet.build(
        architecture,
        input_shape=(size, size, channels),
        include_top=layer in ("fc6", "avgpool"),
    )
    rows, columns = units.receptive_fields(model, layer)
    network = keras.Model(model.inputs[0], model.get_layer(layer).output)
    x = np.random.default_rng(0).normal(0, 50, (12, size, size, channels))

    @tf.function
    def changes(row, column):
        with tf.GradientTape() as tape:
            at = tf.constant(x, tf.float32)
            tape.watch(at)
            found = network(at)
            y = found[:, row, column] if len(found.shape) == 4 else found
            y = tf.reduce_sum(y * tf.random.normal(tf.shape(y)))
        return tf.reduce_any(tape.gradient(y, at) != 0, axis=(0, 3))

    for place in {0, len(rows) // 2, len(rows) - 1}:
        seen = changes(tf.constant(place), tf.constant(place)).numpy()
        for axis, fields in ((1, rows), (0, columns)):
            found = np.flatnonzero(seen.any(axis=axis))
            assert (found[0], found[-1] + 1) == tuple(fields[place])


def test_alexnet_has_the_receptive_fields_of_the_literature():
    model = keras_alexnet.build("alexnet_2012")
    sizes = {"conv1": 11, "pool1": 19, "conv2": 51, "pool2": 67, "conv3": 99}
    for layer, size in {**sizes, "conv4": 131, "conv5": 163, "pool5": 195}.items():
        rows, _ = units.receptive_fields(model, layer)
        middle = rows[len(rows) // 2]
        assert middle[1] - middle[0] == size
    assert units.receptive_fields(model, "fc6")[0].tolist() == [[0, 227]]
    with pytest.raises(ValueError, match="Did you mean 'conv3'"):
        units.receptive_fields(model, "conv33")


def test_excitation_is_the_largest_output_of_each_image():
    model = keras_alexnet.build("alexnet_mini", classes=3)
    x = np.random.default_rng(0).normal(size=(20, 28, 28, 3)).astype("float32")
    labels = np.arange(20) % 3
    maps = keras.Model(model.inputs, model.get_layer("relu2").output)(x).numpy()
    found = units.Excitation(model, "relu2", range(4, 8), classes=5, top=3)
    for start in range(0, 20, 6):
        found.add(x[start : start + 6], labels[start : start + 6])
    for unit, patches in zip(range(4, 8), found.patches(), strict=True):
        best = maps[..., unit].max((1, 2))
        expected = np.argsort(-best, kind="stable")[:3]
        assert [one.image for one in patches] == expected.tolist()
        for one in patches:
            assert maps[one.image, one.row, one.column, unit] == pytest.approx(
                one.value, rel=1e-5
            )
    means = np.stack([maps[labels == k].mean((0, 1, 2)) for k in range(3)])
    for unit, (name, value) in zip(range(4, 8), found.selectivity(), strict=True):
        best = means[:, unit].max()
        rest = (means[:, unit].sum() - best) / 2
        assert name == means[:, unit].argmax()
        assert value == pytest.approx((best - rest) / (best + rest), rel=1e-4)


def test_units_are_a_layer_and_numbers():
    model = keras_alexnet.build("alexnet_mini", classes=3)
    assert units.parse_units("conv2:0-3", model) == ("conv2", range(4))
    assert units.parse_units("fc8:2", model) == ("fc8", range(2, 3))
    for text, message in (
        ("conv2", "conv3:0-15 or fc7:3"),
        ("conv9:1", "Did you mean 'conv"),
        ("fc8:3", "from 0 to 2"),
        ("fc8:2-1", "from 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            units.parse_units(text, model)


def test_windows_that_stand_in_for_overlapping_ones_are_as_small_as_they_are():
    model = keras_alexnet.build("alexnet_2012", pool="non_overlapping_max_pooling")
    for fields in units.receptive_fields(model, "pool1"):
        assert (fields[:, 1] - fields[:, 0] == 15).all() and len(fields) == 27


def test_the_command_draws_patches_and_prints_selectivity(tmp_path, command):
    model = keras_alexnet.build("alexnet_mini", classes=2)
    model.bind(get_preprocessing("torch").with_image_size(28))
    model.save(tmp_path / "net.keras")
    for number in range(6):
        kind = ("cat", "dog")[number % 2]
        write(tmp_path / "photos" / kind / f"{number}.png", seed=number, size=(40, 30))
    (tmp_path / "photos" / "cat" / "bad.png").write_bytes(b"no image")
    arguments = ("explain", tmp_path / "net.keras", tmp_path / "photos")
    options = ("--units", "relu2:0-3", "fc8:1", "--out", tmp_path / "out")
    code, printed, errors = command(*arguments, *options)
    assert code == 2 and "bad.png cannot be read" in errors
    assert "relu2:3" in printed and "selectivity" in printed
    assert "cat" in printed or "dog" in printed
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["fc8-1.png", "relu2-0-3.png"]
    code, _, errors = command(*arguments, "--units", "conv7:0")
    assert code == 2 and "Unknown layer 'conv7'" in errors


# === Images made for units ===


def test_an_image_made_for_a_linear_unit_is_its_weights_signs():
    weights = np.random.default_rng(0).choice([-1.0, 1.0], (3, 6, 6, 3))
    inputs = keras.Input((6, 6, 3))
    flat = keras.layers.Flatten()(inputs)
    outputs = keras.layers.Dense(3, use_bias=False, name="fc")(flat)
    model = keras_alexnet.AlexNet(inputs, outputs)
    model.get_layer("fc").set_weights([weights.reshape(3, -1).T])
    model.bind(get_preprocessing("torch", image_size=6, resize_size=6))
    free = {"total_variation": 0.0, "decay": 0.0, "jitter": 0}
    made = units.activation_maximization(model, "fc", [2, 0], steps=64, **free)
    # The deviations of torchvision's preprocessing differ, the signs do not.
    np.testing.assert_array_equal(made > 128, weights[[2, 0]] > 0)
    smooth = units.activation_maximization(model, "fc", [2, 0], steps=64)
    rough, smoother = (np.abs(np.diff(one, axis=1)).sum() for one in (made, smooth))
    assert smoother < rough
    assert 0 <= smooth.min() and smooth.max() <= 255


def test_images_made_for_units_excite_them_and_are_the_same_for_the_same_seed():
    model = keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 3), classes=4)
    model.bind(get_preprocessing("torch", image_size=16, resize_size=16))
    network = keras.Model(model.inputs[0], model.get_layer("conv2").output)

    def excitation(images):
        maps = network(model.metadata.preprocessing.normalize(images)).numpy()
        return maps.mean((1, 2))[[0, 1], [1, 5]]

    made = [
        units.activation_maximization(model, "conv2", [1, 5], steps=steps, seed=3)
        for steps in (1, 40, 40)
    ]
    assert (excitation(made[1]) > excitation(made[0])).all()
    np.testing.assert_array_equal(made[1], made[2])


# === Towers ===


def test_towers_are_split_and_their_colour_is_energy_outside_the_grey_axis():
    model = keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 3), groups=2)
    kernel = np.zeros(model.get_layer("conv1").kernel.shape, "float32")
    half = kernel.shape[-1] // 2
    kernel[..., :half] = 1.0  # Grey.
    kernel[..., 0, half:], kernel[..., 1, half:] = 1.0, -1.0  # Red against green.
    kernel[..., 0, -1], kernel[..., 1, -1] = 1.0, 0.0  # Red: two thirds.
    model.get_layer("conv1").kernel.assign(kernel)
    first, second = (units.color_fractions(one) for one in units.towers(model))
    np.testing.assert_allclose(first, 0, atol=1e-12)
    np.testing.assert_allclose(second[:-1], 1)
    assert second[-1] == pytest.approx(2 / 3)
    grey = keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 1))
    with pytest.raises(ValueError, match="no convolution of colour images"):
        units.towers(grey)


def test_the_command_needs_no_images_for_them(tmp_path, command):
    model = keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 3), classes=4)
    model.bind(get_preprocessing("torch", image_size=16, resize_size=16))
    model.save(tmp_path / "own.keras")
    out = tmp_path / "out"
    _, printed, _ = command("explain", tmp_path / "own.keras", "--towers", "--out", out)
    assert "tower" in printed and (out / "tower-2.png").is_file()
    options = ("--units", "conv2:0-1", "--out", out)
    command("explain", tmp_path / "own.keras", *options)
    assert (out / "conv2-0-1-made.png").is_file()
