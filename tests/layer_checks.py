"""One check of what a layer owes its users beyond Keras's own, for every layer."""

import functools
import inspect
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_alexnet
from keras_alexnet.layers.implementations import CHOICES

RELATIVE_ROUNDING = {"bfloat16": 2.0**-7, "float16": 2.0**-10}


def implement(monkeypatch, operation: str, name: str) -> None:
    """Makes an operation run by one implementation on every device in a test."""
    for entry in CHOICES:
        if entry[0] == operation:
            monkeypatch.setitem(CHOICES, entry, name)


def check_layer(
    cls: type[keras.layers.Layer],
    arguments: dict[str, Any],
    input_shape: tuple[int, ...],
    supports_masking: bool = False,
    half_precision: tuple[str, ...] = ("bfloat16", "float16"),
) -> None:
    """Asserts what Keras's own `run_layer_test` does not look at.

    Args:
        cls: The layer's class.
        arguments: Arguments of its constructor.
        input_shape: Shape of an input, with the batch size.
        supports_masking: Whether the layer hands on the mask of its input.
        half_precision: The dtypes that mixed precision is checked with.
    """
    # Distinct values, far apart, so that no maximum hangs on rounding.
    size = int(np.prod(input_shape))
    x = np.random.default_rng(1).permutation(np.linspace(-2, 2, size))
    x = x.reshape(input_shape).astype("float32")

    config = cls(**arguments, name="some_name").get_config()
    for name in constructor_arguments(cls) | {"name", "trainable", "dtype"}:
        assert name in config, f"get_config() lacks {name}"
    for name, value in arguments.items():
        if isinstance(config[name], str) or isinstance(value, (int, float)):
            assert config[name] in (value, (value, value)), name
    check_output_shapes(cls, arguments, x)
    for dtype in half_precision:
        check_mixed_precision(cls, arguments, x, dtype)
    check_masking(cls, arguments, supports_masking)
    check_saving(cls, arguments, x)


def constructor_arguments(cls) -> set[str]:
    """The arguments of a class and, through its **kwargs, of the class it extends."""
    found = set()
    for owner in (cls, cls.__base__):
        if owner is keras.layers.Layer:
            break
        parameters = inspect.signature(owner.__init__).parameters.values()
        named = (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        )
        found |= {p.name for p in parameters if p.kind in named}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return found - {"self"}


def check_output_shapes(cls, arguments: dict[str, Any], x: np.ndarray) -> None:
    """The promised shape is that of eager, symbolic, compiled and exported calls."""
    layer = cls(**arguments)
    promised = layer.compute_output_shape(x.shape)
    symbolic = layer(keras.KerasTensor((None, *x.shape[1:])))
    assert symbolic.shape == (None, *promised[1:])
    assert symbolic.dtype == "float32"
    modes = [{"training": False}, {"training": True}]
    for options in modes if takes_training(layer) else [{}]:
        eager = layer(tf.constant(x), **options)
        assert eager.shape == promised and eager.dtype == "float32"
        call = functools.partial(layer, **options)
        compiled = tf.function(call, jit_compile=True)(tf.constant(x))
        assert compiled.shape == promised
        if not options.get("training"):
            np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-5)
    # Inference with unknown sizes, as in an exported model.
    signature = [tf.TensorSpec((None, *x.shape[1:]), "float32")]
    exported = tf.function(lambda x: layer(x), input_signature=signature)
    assert exported(tf.constant(x)).shape == promised


def takes_training(layer: keras.layers.Layer | type) -> bool:
    """Whether the call of a layer, or of a class of layers, takes `training`."""
    return "training" in inspect.signature(layer.call).parameters


def check_mixed_precision(cls, arguments: dict, x: np.ndarray, dtype: str) -> None:
    """Half precision in and out, float32 weights, and a result that is close."""
    layer = cls(**arguments)
    expected = layer(x).numpy()
    mixed = cls(**arguments, dtype=f"mixed_{dtype}")
    y = mixed(x)
    assert y.dtype == dtype
    assert mixed(keras.KerasTensor(x.shape)).dtype == dtype
    assert all(weight.dtype == "float32" for weight in mixed.weights)
    mixed.set_weights(layer.get_weights())
    # Roundings of the input, the weights and the result, and of sums of products.
    tolerance = 4 * RELATIVE_ROUNDING[dtype] * np.abs(expected).max()
    y = tf.cast(mixed(x), "float32")
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance)

    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = mixed(inputs, training=True) if takes_training(mixed) else mixed(inputs)
        loss = tf.reduce_mean(tf.cast(y, "float32"))
    for gradient in tape.gradient(loss, [inputs, *mixed.trainable_variables]):
        assert gradient.dtype == "float32"
        assert np.isfinite(gradient).all()


def check_masking(cls, arguments: dict[str, Any], supports_masking: bool) -> None:
    """A layer that changes no position of its input hands on the input's mask."""
    layer = cls(**arguments)
    assert bool(layer.supports_masking) == supports_masking
    if supports_masking:
        mask = np.array([[True, False, True]])
        x = keras.layers.Masking()(np.ones((1, 3, 4), "float32") * mask[..., None])
        np.testing.assert_array_equal(layer(x)._keras_mask, mask)


def check_saving(cls, arguments: dict[str, Any], x: np.ndarray) -> None:
    """A model around the layer gives the same outputs after saving and loading."""
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, cls(**arguments)(inputs))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras_alexnet.load_model(path)
    assert loaded.layers[1].get_config() == model.layers[1].get_config()
    np.testing.assert_array_equal(loaded(x), model(x))


def central_differences(function, x: np.ndarray, step: float) -> np.ndarray:
    """The gradient of a scalar function by central differences, element by element.

    Args:
        function: Takes a float32 array of the shape of `x`, returns a number.
        x: Where.
        step: Distance to either side. In float32 its best size is near the cube root
            of the rounding, 1e-2, where rounding and truncation both cost some 1e-5.
    """
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        distance = float(ahead[index]) - float(behind[index])
        gradient[index] = (float(function(ahead)) - float(function(behind))) / distance
    return gradient
