"""What holds for every layer: the shared check, and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.testing import TestCase
from layer_checks import central_differences, check_layer, takes_training

import keras_alexnet

IMAGES = (2, 7, 6, 4)

# For every registered layer: arguments, other than the defaults where there is a
# choice; the shape of an input; and whether masks pass through.
CASES = {
    "fused_batch_normalization": [
        ({}, IMAGES, True),
        ({"momentum": 0.5, "epsilon": 1e-2, "axis": 1}, IMAGES, True),
    ],
    "adaptive_average_pooling": [
        ({}, IMAGES, False),
        (
            {"output_size": (3, 2), "data_format": "channels_first"},
            (2, 4, 7, 6),
            False,
        ),
    ],
    "classic_dropout": [
        ({}, IMAGES, True),
        ({"rate": 0.25, "seed": 7}, (3, 5), True),
    ],
    "grouped_conv": [
        ({"filters": 4, "kernel_size": 3}, IMAGES, False),
        (
            {
                "filters": 6,
                "kernel_size": (3, 2),
                "groups": 1,
                "strides": (2, 1),
                "padding": "same",
                "use_bias": False,
                "activation": "relu",
                "kernel_initializer": "he_normal",
                "kernel_regularizer": keras.regularizers.L2(1e-3),
            },
            IMAGES,
            False,
        ),
        (
            {
                # Not as many as columns: Keras takes those for channels then.
                "filters": 8,
                "kernel_size": 2,
                "dilation_rate": 2,
                "data_format": "channels_first",
                "bias_initializer": "ones",
            },
            (2, 4, 7, 6),
            False,
        ),
    ],
    "lrn": [
        ({}, IMAGES, True),
        (
            {
                "size": 3,
                "alpha": 0.5,
                "beta": 0.5,
                "k": 1.0,
                "alpha_over_size": True,
                "groups": 2,
                "data_format": "channels_last",
            },
            IMAGES,
            True,
        ),
    ],
    "non_overlapping_max_pooling": [
        ({}, IMAGES, False),
        (
            {
                "pool_size": (3, 4),
                "strides": (2, 3),
                "padding": "valid",
                "data_format": "channels_first",
            },
            (2, 4, 6, 7),
            False,
        ),
        ({"pool_size": 3, "strides": 2, "padding": "same"}, IMAGES, False),
    ],
    "overlapping_max_pooling": [
        ({}, IMAGES, False),
        (
            {
                "pool_size": (3, 2),
                "strides": (2, 1),
                "rounding": "ceil",
                "padding": "valid",
                "data_format": "channels_first",
            },
            (2, 4, 6, 7),
            False,
        ),
        ({"pool_size": 4, "strides": 3, "padding": "same"}, IMAGES, False),
    ],
    "scheduled_dropout": [
        ({}, IMAGES, True),
        ({"rate": 0.25, "seed": 7}, (3, 5), True),
    ],
    "spatial_response_norm": [
        ({}, IMAGES, False),
        (
            {
                "size": 3,
                "alpha": 0.5,
                "beta": 0.5,
                "k": 2.0,
                "data_format": "channels_first",
            },
            (2, 4, 7, 6),
            False,
        ),
    ],
}

TRAINING_DIFFERS = {
    name for name in CASES if takes_training(keras_alexnet.get_layer(name))
}
FLAT_CASES = [
    pytest.param(name, *case, id=f"{name}-{index}")
    for name, cases in CASES.items()
    for index, case in enumerate(cases)
]


def own_layers() -> list[str]:
    """Names of the layers of this package, without those of installed plugins."""
    return [
        name
        for name in keras_alexnet.list_layers()
        if keras_alexnet.get_layer(name).__module__.startswith("keras_alexnet.")
    ]


@pytest.mark.parametrize("name", own_layers())
def test_every_registered_layer_has_a_case_in_this_file(name):
    assert CASES.get(name), f"Add arguments and an input shape for {name} to CASES."


@pytest.mark.parametrize("name, arguments, shape, masking", FLAT_CASES)
def test_layer_is_a_complete_keras_layer(name, arguments, shape, masking):
    # TensorFlow has no gradient of dilated convolutions in float16 on CPUs.
    dtypes = ("bfloat16",) if "dilation_rate" in arguments else ("bfloat16", "float16")
    cls = keras_alexnet.get_layer(name)
    check_layer(cls, arguments, shape, masking, dtypes)
    layer = cls(**arguments)
    layer(np.zeros(shape, "float32"))
    # Configuration, symbolic calls, a step of `fit`, dtypes.
    TestCase().run_layer_test(
        cls,
        init_kwargs=arguments,
        input_shape=shape,
        expected_output_shape=layer.compute_output_shape(shape),
        expected_num_trainable_weights=len(layer.trainable_weights),
        expected_num_non_trainable_weights=len(layer.non_trainable_weights),
        expected_num_losses=len(layer.losses),
        supports_masking=masking,
    )


@pytest.mark.parametrize(
    "name, arguments, shape, training",
    [
        pytest.param(name, arguments, shape, training, id=f"{name}-{index}-{training}")
        for name, cases in CASES.items()
        for index, (arguments, shape, _) in enumerate(cases)
        # Twice where training differs from inference.
        for training in ((False, True) if name in TRAINING_DIFFERS else (False,))
    ],
)
def test_gradients_equal_central_differences(name, arguments, shape, training):
    # Fewer pixels; distinct values further apart than twice the step, so that the
    # maximum of a window stays where it is, and (relu) few sums near zero.
    shape = (1, *shape[1:])
    rng = np.random.default_rng(5)
    size = int(np.prod(shape))
    x = rng.permutation(np.linspace(-2.0, 2.0, size)).reshape(shape).astype("float32")
    step = 0.4 / size if name.endswith("overlapping_max_pooling") else 1e-2
    arguments = {key: v for key, v in arguments.items() if key != "activation"}
    layer = keras_alexnet.get_layer(name)(**arguments)
    layer.build(shape)
    weighting = rng.normal(size=layer.compute_output_shape(shape)).astype("float32")
    state = [variable.numpy() for variable in layer.variables]

    @tf.function
    def loss(x):
        y = layer(x, training=training) if takes_training(layer) else layer(x)
        return tf.reduce_sum(y * weighting)

    def restart(x):
        # The random state of dropout, so that every call draws the same mask.
        for variable, value in zip(layer.variables, state, strict=True):
            variable.assign(value)
        return tf.constant(x)

    with tf.GradientTape() as tape:
        inputs = restart(x)
        tape.watch(inputs)
        value = loss(inputs)
    of_inputs, *of_weights = tape.gradient(value, [inputs, *layer.trainable_variables])
    expected = central_differences(lambda x: loss(restart(x)), x, step)
    np.testing.assert_allclose(of_inputs, expected, rtol=5e-3, atol=5e-3)

    for variable, gradient in zip(layer.trainable_variables, of_weights, strict=True):

        def loss_of_weight(value, variable=variable):
            inputs = restart(x)
            variable.assign(value)
            return loss(inputs)

        expected = central_differences(loss_of_weight, variable.numpy(), 1e-2)
        np.testing.assert_allclose(gradient, expected, rtol=5e-3, atol=5e-3)
