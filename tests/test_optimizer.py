"""The 2012 update rule against a loop, alone, in `fit` and over replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from devices import logical_cpus
from layer_checks import implement

import keras_alexnet
from keras_alexnet.training.optimizer import DecayedAdam, DecayedMomentum

MOMENTUM, DECAY = 0.9, 0.1  # A decay that shows within a few steps.


@pytest.fixture(params=["in_place", "xla"])
def way(request, monkeypatch):
    """The ways to update: TensorFlow's operations, and one compiled function."""
    implement(monkeypatch, "momentum", request.param)
    monkeypatch.setattr(DecayedMomentum, "jit_compile", True)
    return request.param


def expected(weights, gradients, rates, decay=DECAY):
    """The rule of the paper, section 5, in float64, for one variable."""
    w = np.asarray(weights, "float64")
    v = np.zeros_like(w)
    for gradient, rate in zip(gradients, rates, strict=True):
        v = MOMENTUM * v - rate * (gradient + decay * w)
        w = w + v
    return w


def optimizer(learning_rate=0.05, **arguments):
    arguments = {"momentum": MOMENTUM, "weight_decay": DECAY, **arguments}
    return DecayedMomentum(learning_rate, **arguments)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.usefixtures("way")
def test_update_is_that_of_the_paper_over_a_drop_of_the_rate(traced):
    rng = np.random.default_rng(0)
    rates = [0.1] * 15 + [0.01] * 15
    start = rng.normal(size=(2, 4, 3)).astype("float32")
    gradients = rng.normal(size=(30, 2, 4, 3)).astype("float32")
    kernel = keras.Variable(start[0], name="kernel")
    bias = keras.Variable(start[1].ravel(), name="bias")
    ours = optimizer(rates[0])
    ours.build([kernel, bias])
    apply = tf.function(ours.apply) if traced else ours.apply
    for rate, (of_kernel, of_bias) in zip(rates, gradients, strict=True):
        ours.learning_rate = rate
        apply([tf.constant(of_kernel), tf.constant(of_bias.ravel())])
    np.testing.assert_allclose(
        kernel.numpy(), expected(start[0], gradients[:, 0], rates), atol=2e-6
    )
    np.testing.assert_allclose(
        bias.numpy().reshape(4, 3),
        expected(start[1], gradients[:, 1], rates, decay=0),
        atol=2e-6,
    )
    assert int(ours.iterations.numpy()) == 30


def test_drop_of_the_rate_leaves_the_velocity_as_it_is():
    weight = keras.Variable([0.0], name="kernel")
    ours = optimizer(1.0, weight_decay=0.0)
    ours.build([weight])
    ours.apply([tf.constant([1.0])])  # v = -1, w = -1
    ours.learning_rate = 0.0
    ours.apply([tf.constant([1.0])])  # v = -0.9, w = -1.9
    assert weight.numpy() == pytest.approx(-1.9)


@pytest.mark.parametrize("momentum", [0.0, 1e-3, MOMENTUM])
@pytest.mark.usefixtures("way")
def test_steps_are_those_of_the_formula(momentum):
    kernel = keras.Variable([[1.0, -2.0]], name="kernel")
    ours = optimizer(0.5, momentum=momentum, weight_decay=0.1)
    ours.build([kernel])
    w, v = np.array([[1.0, -2.0]]), np.zeros((1, 2))
    apply = tf.function(ours.apply)
    for step in range(5):
        gradient = np.array([[0.3, step - 1.0]])
        apply([tf.constant(gradient, tf.float32)])
        v = momentum * v - 0.5 * (gradient + 0.1 * w)
        w = w + v
        np.testing.assert_allclose(kernel.numpy(), w, rtol=1e-6)


def test_biases_are_not_decayed_and_kernels_are():
    kernel = keras.Variable([[1.0]], name="kernel")
    bias = keras.Variable([1.0], name="bias")
    ours = optimizer(0.5)
    ours.build([kernel, bias])
    ours.apply([tf.zeros((1, 1)), tf.zeros(1)])
    assert bias.numpy() == 1.0
    assert kernel.numpy() == pytest.approx(1 - 0.5 * DECAY)


@pytest.mark.usefixtures("way")
def test_decay_may_differ_from_layer_to_layer():
    model = keras.Sequential(
        [keras.Input((3,)), *(keras.layers.Dense(3, name=n) for n in ("fc6", "fc8"))]
    )
    ours = optimizer(0.5, weight_decay=0.004, decay_multipliers={"fc8": 750})
    ours.build(model.trainable_variables)
    before = [model.get_layer(name).kernel.numpy() for name in ("fc6", "fc8")]
    for _ in range(2):
        ours.apply([tf.zeros(w.shape) for w in model.trainable_variables])
    for name, start, decay in zip(("fc6", "fc8"), before, (0.004, 3.0), strict=True):
        w = expected(start, np.zeros((2, 3, 3)), [0.5, 0.5], decay)
        np.testing.assert_allclose(model.get_layer(name).kernel, w, atol=1e-6)
    assert DecayedMomentum.from_config(ours.get_config()).decay_multipliers == {
        "fc8": 750
    }
    with pytest.raises(ValueError, match="Unknown layer .*'fc9'.*fc8"):
        optimizer(decay_multipliers={"fc9": 2}).build(model.trainable_variables)
    with pytest.raises(ValueError, match="Unknown layer .*'biases'"):
        optimizer(decay_multipliers={"biases": 2}).build(model.trainable_variables)


@pytest.mark.parametrize("layer", ["dense", "grouped_conv"])
def test_biases_of_real_layers_are_found(layer):
    model = keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 1))
    ours = optimizer()
    ours.build(model.trainable_variables)
    before = [w.numpy() for w in model.trainable_variables]
    ours.apply([tf.zeros(w.shape) for w in model.trainable_variables])
    cls = keras_alexnet.get_layer(layer)
    kernels = {id(x.kernel) for x in model.layers if isinstance(x, cls)}
    biases = {id(x.bias) for x in model.layers if isinstance(x, cls)}
    assert kernels and biases
    for weight, old in zip(model.trainable_variables, before, strict=True):
        if id(weight) in kernels:
            np.testing.assert_allclose(weight.numpy(), old * (1 - 0.05 * DECAY), 1e-6)
        if id(weight) in biases:
            np.testing.assert_array_equal(weight.numpy(), old)


def linear_model(**compile_arguments):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.set_weights([np.full((3, 2), 0.5), np.full(2, 0.25)])
    model.compile(optimizer(), "mse", **compile_arguments)
    return model


def data(count=8):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(count, 3)), rng.normal(size=(count, 2))
    return x.astype("float32"), y.astype("float32")


def linear_regression_by_hand(x, y, steps, rate=0.05):
    """Weights after some steps on the whole data, in float64."""
    kernel, bias = np.full((3, 2), 0.5), np.full(2, 0.25)
    v_kernel, v_bias = np.zeros((3, 2)), np.zeros(2)
    for _ in range(steps):
        error = 2 * (x @ kernel + bias - y) / y.size
        v_kernel = MOMENTUM * v_kernel - rate * (x.T @ error + DECAY * kernel)
        v_bias = MOMENTUM * v_bias - rate * error.sum(axis=0)
        kernel, bias = kernel + v_kernel, bias + v_bias
    return kernel, bias


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_takes_the_same_steps_as_the_loop(jit_compile):
    x, y = data()
    model = linear_model(jit_compile=jit_compile)
    model.fit(x, y, batch_size=len(x), epochs=6, verbose=0)
    for weight, by_hand in zip(
        model.get_weights(), linear_regression_by_hand(x, y, 6), strict=True
    ):
        np.testing.assert_allclose(weight, by_hand, rtol=1e-5)


def test_fit_on_two_replicas_takes_the_same_steps_as_the_loop():
    x, y = data()
    with logical_cpus().scope():
        model = linear_model()
    model.fit(x, y, batch_size=len(x), epochs=6, verbose=0)
    for variable, by_hand in zip(
        model.weights, linear_regression_by_hand(x, y, 6), strict=True
    ):
        for copy in variable.value.values:
            np.testing.assert_allclose(copy, by_hand, rtol=1e-5)


def test_saved_and_loaded_model_goes_on_with_its_velocity(tmp_path):
    x, y = data()
    model = linear_model()
    model.fit(x, y, batch_size=len(x), epochs=3, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras_alexnet.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, DecayedMomentum)
    loaded.fit(x, y, batch_size=len(x), epochs=3, verbose=0)
    for weight, by_hand in zip(
        loaded.get_weights(), linear_regression_by_hand(x, y, 6), strict=True
    ):
        np.testing.assert_allclose(weight, by_hand, rtol=1e-5)


@pytest.mark.parametrize("name", ["loss_scale", "plain"])
def test_mixed_precision_weights_stay_float32(name):
    weight = keras.Variable([1.0], name="kernel")
    ours = optimizer(0.5, weight_decay=0.0)
    if name == "loss_scale":
        ours = keras.optimizers.LossScaleOptimizer(ours, initial_scale=4.0)
    ours.build([weight])
    ours.apply([tf.constant([4.0 if name == "loss_scale" else 1.0])])
    assert weight.dtype == "float32"
    assert weight.numpy() == pytest.approx(0.5)


def test_half_precision_gradients_are_taken():
    weight = keras.Variable([1.0], name="kernel")
    ours = optimizer(0.5, weight_decay=0.0)
    ours.build([weight])
    ours.apply([tf.constant([0.5], "bfloat16")])
    assert weight.numpy() == pytest.approx(0.75)


def test_configuration_makes_the_same_optimizer():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    for ours in (
        optimizer(0.03, momentum=0.8, weight_decay=0.2, clipnorm=1.0, name="mine"),
        optimizer(schedule),
    ):
        again = keras.optimizers.deserialize(keras.optimizers.serialize(ours))
        assert type(again) is DecayedMomentum
        assert keras.optimizers.serialize(again) == keras.optimizers.serialize(ours)
    config = optimizer(0.03, momentum=0.8, weight_decay=0.2).get_config()
    assert (config["momentum"], config["weight_decay"]) == (0.8, 0.2)
    assert config["learning_rate"] == pytest.approx(0.03)


def test_defaults_are_those_of_the_paper():
    config = DecayedMomentum().get_config()
    assert config["learning_rate"] == pytest.approx(0.01)
    assert (config["momentum"], config["weight_decay"]) == (0.9, 0.0005)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"momentum": -0.1}, r"momentum must be in \[0, 1\)"),
        ({"weight_decay": -1e-4}, "weight_decay must not be negative"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DecayedMomentum(**arguments)


# === Multipliers ===


def two_layers(multipliers, **arguments):
    """Two dense layers' variables in an optimizer, all ones."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(2, name="conv1", kernel_initializer="ones"),
            keras.layers.Dense(2, name="fc8", kernel_initializer="ones"),
        ]
    )
    ours = optimizer(0.1, multipliers=multipliers, **arguments)
    ours.build(model.trainable_variables)
    return model, ours


def step_with_ones(model, ours):
    ours.apply([tf.ones(w.shape) for w in model.trainable_variables])


def test_multipliers_change_the_rate_of_their_layers_and_of_biases():
    # Caffe: biases at twice the rate, without decay.
    model, ours = two_layers({"conv1": 0.5, "biases": 2.0})
    for _ in range(3):
        step_with_ones(model, ours)
    rates = {"conv1": 0.05, "fc8": 0.1}
    for layer in model.layers:
        rate = rates[layer.name]
        kernel = expected(np.ones(1), np.ones(3), [rate] * 3)
        bias = expected(np.zeros(1), np.ones(3), [2 * rate] * 3, decay=0)
        np.testing.assert_allclose(layer.kernel, np.full((2, 2), kernel), rtol=1e-6)
        np.testing.assert_allclose(layer.bias, np.full(2, bias), rtol=1e-6)


def test_a_multiplier_of_zero_leaves_weight_and_velocity_alone():
    # The 2012 program neither decays nor moves a layer whose rate is 0.
    model, ours = two_layers({"conv1": 1.0})
    step = tf.function(lambda: step_with_ones(model, ours))
    step()
    before = [w.numpy() for w in model.layers[0].weights]
    velocity = ours._slots[0][0].numpy()
    ours.set_multiplier("conv1", 0.0)
    for _ in range(3):
        step()
    for weight, old in zip(model.layers[0].weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    np.testing.assert_array_equal(ours._slots[0][0], velocity)
    ours.set_multiplier("conv1", 1.0)
    step()
    # It goes on from there: v = momentum * v - rate * (g + decay * w).
    expected_velocity = MOMENTUM * velocity - 0.1 * (1 + DECAY * before[0])
    np.testing.assert_allclose(ours._slots[0][0], expected_velocity, rtol=1e-6)


def test_multipliers_of_unknown_layers_and_bad_factors_are_refused():
    with pytest.raises(ValueError, match="Unknown layer .*'fc9'.*Did you mean 'fc8'"):
        two_layers({"fc9": 1.0})
    with pytest.raises(ValueError, match="must be finite and not negative.*conv1: -1"):
        DecayedMomentum(multipliers={"conv1": -1})
    with pytest.raises(ValueError, match="Unknown multiplier 'fc8'"):
        DecayedMomentum(multipliers={"conv1": 1}).set_multiplier("fc8", 1.0)


def test_multipliers_survive_saving():
    ours = optimizer(multipliers={"conv1": 0.5}, dynamic_loss_scale=True)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(ours))
    assert again.multipliers == {"conv1": 0.5} and again.dynamic_loss_scale


# === AdamW ===


@pytest.mark.usefixtures("way")
def test_adam_is_that_of_keras():
    rng = np.random.default_rng(1)
    start = rng.normal(size=(4, 3)).astype("float32")
    ours, theirs = (keras.Variable(start, name="kernel") for _ in range(2))
    settings = {"weight_decay": 0.1, "beta_2": 0.99, "epsilon": 1e-5}
    optimizers = (
        DecayedAdam(0.05, momentum=0.8, **settings),
        keras.optimizers.AdamW(0.05, beta_1=0.8, **settings),
    )
    for one, variable in zip(optimizers, (ours, theirs), strict=True):
        one.build([variable])
        apply = tf.function(one.apply)
        for step in range(12):
            one.learning_rate = 0.05 if step < 6 else 0.01
            gradient = np.random.default_rng(step).normal(size=(4, 3))
            apply([tf.constant(gradient, tf.float32)])
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.usefixtures("way")
def test_a_step_that_was_skipped_is_none_of_adams():
    gradients = [np.float32([[0.3]]), np.float32([[np.nan]]), np.float32([[-1.0]])]
    weights = []
    for some in (gradients, gradients[::2]):
        kernel = keras.Variable([[1.0]], name="kernel")
        ours = DecayedAdam(0.1)
        ours.build([kernel])
        apply = tf.function(ours.apply)
        for gradient in some:
            apply([tf.constant(gradient)])
        weights.append(float(kernel.numpy()[0, 0]))
    assert weights[0] == pytest.approx(weights[1], rel=1e-6)


def test_adam_has_the_same_multipliers_and_its_settings_survive_saving():
    ours = DecayedAdam(0.1, multipliers={"conv1": 0.5}, beta_2=0.98, average=0.9)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(ours))
    assert type(again) is DecayedAdam
    assert again.get_config() == ours.get_config()
    with pytest.raises(ValueError, match=r"beta_2 must be in \(0, 1\)"):
        DecayedAdam(beta_2=1.0)


# === What all replicas have in common ===


def apply_on_replicas(ours, gradients):
    """Runs a step in which replica r has the r-th of some gradients."""
    gradients = tf.constant(gradients, tf.float32)

    @tf.function
    def step():
        def on_replica():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            ours.apply([gradients[replica]])
            return ours.own_finite

        return ours._distribution_strategy.run(on_replica)

    finite = ours._distribution_strategy.experimental_local_results(step())
    return [bool(value) for value in finite]


def replicated(initial, rate=1.0, **arguments):
    strategy = logical_cpus()
    with strategy.scope():
        weight = keras.Variable(initial, name="kernel")
        ours = optimizer(rate, weight_decay=0.0, **arguments)
        ours.build([weight])
    return weight, ours


@pytest.mark.usefixtures("way")
def test_clipping_limits_the_norm_of_the_summed_gradients():
    # Keras clips on each replica; the sum of two unit vectors may then be 2 long.
    weight, ours = replicated([0.0, 0.0], global_clipnorm=1.0)
    apply_on_replicas(ours, [[3.0, 0.0], [0.0, 4.0]])
    for copy in weight.value.values:
        np.testing.assert_allclose(copy, [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("replica", [0, 1])
@pytest.mark.usefixtures("way")
def test_a_step_that_is_not_finite_on_one_replica_changes_none(replica, bad):
    weight, ours = replicated([1.0, 2.0])
    gradients = np.ones((2, 2), "float32")
    gradients[replica, 1] = bad
    for count in (1, 2):
        finite = apply_on_replicas(ours, gradients)
        assert finite == [replica != 0, replica != 1]
        assert int(ours.skipped_in_row.numpy()) == count
    for copy in weight.value.values:
        np.testing.assert_array_equal(copy, [1.0, 2.0])
    assert int(ours.iterations.numpy()) == 2
    assert apply_on_replicas(ours, np.ones((2, 2))) == [True, True]
    assert int(ours.skipped_in_row.numpy()) == 0
    for copy in weight.value.values:
        np.testing.assert_array_equal(copy, [-1.0, 0.0])


@pytest.mark.usefixtures("way")
def test_loss_scale_is_halved_by_the_reduced_gradients_and_doubled_in_time(monkeypatch):
    from keras_alexnet.training import optimizer as module

    monkeypatch.setattr(module, "STEPS_TO_DOUBLE", 3)
    weight, ours = replicated([0.0], dynamic_loss_scale=True)
    assert float(ours.scale_loss(tf.constant(1.0))) == 2.0**15
    apply_on_replicas(ours, [[1.0], [float("inf")]])
    assert float(ours.scale_loss(tf.constant(1.0))) == 2.0**14
    np.testing.assert_array_equal(weight.numpy(), [0.0])
    for _ in range(3):
        apply_on_replicas(ours, [[2.0**14], [2.0**14]])
    # Unscaled, each replica's gradient is 1: v = -2, then -3.8, then -5.42.
    np.testing.assert_allclose(weight.numpy(), [-11.22], rtol=1e-6)
    assert float(ours.scale_loss(tf.constant(1.0))) == 2.0**15


def test_what_keras_cannot_do_on_several_replicas_is_refused():
    for argument in ({"use_ema": True}, {"gradient_accumulation_steps": 2}):
        with pytest.raises(ValueError, match="micro_batches"):
            DecayedMomentum(**argument)
    weight, ours = replicated([0.0])
    with ours._distribution_strategy.scope():
        with pytest.raises(ValueError, match="within strategy.run"):
            ours.apply([tf.constant([1.0])])


@pytest.mark.usefixtures("way")
def test_averages_follow_the_weights_by_their_formula_on_every_replica():
    weight, ours = replicated([1.0, -2.0], rate=0.5, average=0.9)
    for _ in range(90):  # Beyond the steps with a smaller decay.
        apply_on_replicas(ours, [[0.1, 0.0], [0.0, -0.2]])
    value = average = np.array([1.0, -2.0])
    velocity = np.zeros(2)
    for step in range(90):
        velocity = MOMENTUM * velocity - 0.5 * np.array([0.1, -0.2])
        value = value + velocity
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    for copy in weight.value.values:
        np.testing.assert_allclose(copy, value, rtol=1e-5)
    with ours.averaged():
        for copy in weight.value.values:
            np.testing.assert_allclose(copy, average, rtol=1e-5)
    for copy in weight.value.values:
        np.testing.assert_allclose(copy, value, rtol=1e-5)
