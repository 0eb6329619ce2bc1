"""Optimizers: the 2012 network's, and AdamW with the same care."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from keras_alexnet.errors import UserError, unknown
from keras_alexnet.layers.implementations import choose

# The key of `multipliers` that stands for the biases of all layers.
BIASES = "biases"

# What the names of averages end with.
AVERAGE = "average"

# As other implementations of dynamic loss scaling; float16 ends at 65504.
FIRST_LOSS_SCALE = 2.0**15
STEPS_TO_DOUBLE = 2000


@keras.saving.register_keras_serializable("keras_alexnet")
class DecayedMomentum(keras.optimizers.Optimizer):
    """Stochastic gradient descent as in 2012: rate and decay inside the momentum.

    For each weight w with gradient g (paper section 5; Caffe's solver does the same)

        v <- momentum * v - rate * (g + weight_decay * w)
        w <- w + v

    where biases and other vectors are not decayed. A drop of the rate leaves the
    velocity that has built up as it is. (`keras.optimizers.SGD` applies its
    `weight_decay` outside the momentum, to biases too.)

    The gradients of all replicas are added up first; what follows - the check that they
    are finite, clipping, the update - is the same on each. (Keras clips, and looks for
    numbers that are not finite, on each replica alone.) A step whose gradients, or
    their norm, are not finite changes neither weights nor velocities; it counts as a
    step all the same, and in `skipped_steps` and `skipped_in_row`.

    The update is one fused TensorFlow operation per variable, and one for the decay; on
    GPUs one compiled pass over all weights where `jit_compile` is set, which `AlexNet`
    does when it is compiled with `jit_compile=True`.

    Args:
        learning_rate: A float, a `LearningRateSchedule`, or a callable. Defaults to
            0.01.
        momentum: In [0, 1). Defaults to 0.9.
        weight_decay: Defaults to 0.0005.
        multipliers: Factors of the learning rate, by name of layer; under `"biases"`
            that of all biases, on top of their layer's. A factor of 0 leaves weight and
            velocity alone, as the 2012 program did. `set_multiplier` changes one
            without retracing. Defaults to none.
        decay_multipliers: Factors of `weight_decay`, by name of layer. Defaults to
            none.
        dynamic_loss_scale: Whether `scale_loss` scales, for float16: halved after a
            step whose gradients were not finite, doubled after 2,000 that were.
            Defaults to False.
        average: Decay m of an exponential moving average of the weights, in (0, 1):
            a <- m * a + (1 - m) * w, where m is (1 + t) / (10 + t) in early steps t, as
            in `tf.train.ExponentialMovingAverage`. See `averaged`. Defaults to None,
            for no average.
        name: Defaults to `"decayed_momentum"`.
        **kwargs: Other arguments of `keras.optimizers.Optimizer`, such as
            `global_clipnorm`, which limits the norm of the summed gradients.

    Raises:
        ValueError: An argument is out of range, or one that this optimizer does not
            support; in `build`, no variable has the layer of a multiplier.
    """

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0005,
        multipliers: Mapping[str, float] | None = None,
        decay_multipliers: Mapping[str, float] | None = None,
        dynamic_loss_scale: bool = False,
        average: float | None = None,
        name: str = "decayed_momentum",
        **kwargs,
    ):
        # Not handed to the parent, which would decay a second time.
        super().__init__(learning_rate, name=name, **kwargs)
        if not 0 <= momentum < 1:
            raise UserError(
                f"momentum must be in [0, 1). Received: momentum={momentum}"
            )
        if weight_decay < 0:
            raise UserError(
                "weight_decay must not be negative. "
                f"Received: weight_decay={weight_decay}"
            )
        if average is not None and not 0 < average < 1:
            raise UserError(f"average must be in (0, 1). Received: average={average}")
        if self.use_ema or self.gradient_accumulation_steps:
            # Keras does both with operations that several replicas do not allow.
            raise UserError(
                "DecayedMomentum keeps moving averages by its argument average, and "
                "the model accumulates gradients by AlexNet.micro_batches."
            )
        self.momentum = momentum
        self.decay = weight_decay
        self.multipliers = {
            layer: _check_multiplier(layer, factor)
            for layer, factor in (multipliers or {}).items()
        }
        self.decay_multipliers = {
            layer: _check_multiplier(layer, factor)
            for layer, factor in (decay_multipliers or {}).items()
        }
        self.dynamic_loss_scale = dynamic_loss_scale
        self.average = average

    # Whether XLA may compile the update.
    jit_compile: bool = False

    # What is kept for each variable.
    slots: tuple[str, ...] = ("velocity",)

    # === Variables ===

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the slots of each variable, and what counts skipped steps."""
        if self.built:
            return
        super().build(variables)
        slots = [self.add_optimizer_variables(variables, name) for name in self.slots]
        self._slots = list(zip(*slots, strict=True))
        if self.average:
            self._averages = self.add_optimizer_variables(variables, AVERAGE)
            for average, variable in zip(self._averages, variables, strict=True):
                average.assign(variable)
        # Biases, and the scales of other normalisations, are vectors.
        self._decays = [
            self.decay * self.decay_multipliers.get(_layer_name(v), 1.0)
            if len(v.shape) > 1
            else 0.0
            for v in variables
        ]
        self.skipped_steps = self._add_scalar("skipped_steps", 0, "int64")
        self.skipped_in_row = self._add_scalar("skipped_in_row", 0, "int64")
        if self.dynamic_loss_scale:
            self._loss_scale = self._add_scalar("loss_scale", FIRST_LOSS_SCALE)
            self._steps_at_scale = self._add_scalar("steps_at_scale", 0, "int32")
        # Out of Keras's sight: settings, not state.
        self._settings = types.SimpleNamespace(
            factors={
                name: keras.Variable(factor, dtype="float32", trainable=False)
                for name, factor in self.multipliers.items()
            },
            # Each replica has its own value of this one, and keeps it.
            own_finite=tf.Variable(
                True,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            ),
        )
        self._factors = [self._factors_of(variable) for variable in variables]
        layers = {_layer_name(variable) for variable in variables}
        # Biases have a rate and no decay.
        for names, known in (
            (self.multipliers, [*sorted(layers), BIASES]),
            (self.decay_multipliers, sorted(layers)),
        ):
            for name in names:
                if name not in known:
                    raise UserError(
                        unknown(name, "layer with trainable weights", known)
                    )

    def set_multiplier(self, name: str, factor: float) -> None:
        """Changes one of `multipliers`, without retracing.

        Args:
            name: A key of `multipliers`.
            factor: The new factor.

        Raises:
            ValueError: There is no such multiplier, or the factor is out of range.
        """
        if name not in self.multipliers:
            raise UserError(unknown(name, "multiplier", self.multipliers))
        self.multipliers[name] = _check_multiplier(name, factor)
        if self.built:
            self._settings.factors[name].assign(factor)

    def _add_scalar(
        self, name: str, value: float, dtype: str = "float32"
    ) -> keras.Variable:
        return self.add_variable(
            (),
            keras.initializers.Constant(value),
            dtype=dtype,
            # All replicas assign the same.
            aggregation="only_first_replica",
            name=name,
        )

    def _factors_of(self, variable: keras.Variable) -> list[keras.Variable]:
        names = [_layer_name(variable)] + [BIASES] * (variable.name == "bias")
        factors = self._settings.factors
        return [factors[name] for name in names if name in factors]

    # === Steps ===

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """Returns what to take the gradients of."""
        if self.dynamic_loss_scale:
            return loss * tf.cast(self._loss_scale.value, loss.dtype)
        return super().scale_loss(loss)

    def apply(
        self,
        grads: Sequence[tf.Tensor],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Takes a step.

        Args:
            grads: This replica's gradients, of the loss that `scale_loss` returned. A
                replica's loss is its share of the mean over all.
            trainable_variables: The variables that they belong to. Defaults to those
                that the optimizer was built with.
        """
        if not grads:
            return
        variables = trainable_variables or self._trainable_variables
        self.build(list(variables))
        grads, variables = self._filter_empty_gradients(grads, list(variables))
        with tf.name_scope(self.name):
            grads = [tf.convert_to_tensor(g) for g in grads]
            several = self._distribution_strategy.num_replicas_in_sync > 1
            if several:
                self._settings.own_finite.assign(_are_finite(grads))
                grads = _replica_context().all_reduce(tf.distribute.ReduceOp.SUM, grads)
            way = choose("momentum", variables[0].value, training=self.jit_compile)
            update = self._update if way == "xla" else self._update_in_place
            finite = update(grads, variables)
            if not several:
                self._settings.own_finite.assign(finite)
            # Not by tf.cond, for whose predicate the host would wait.
            in_row = tf.where(finite, tf.zeros((), tf.int64), self.skipped_in_row + 1)
            self.skipped_in_row.assign(in_row)
            self.skipped_steps.assign_add(tf.cast(~finite, tf.int64))
            if self.dynamic_loss_scale:
                self._adapt_loss_scale(finite)
            for variable in variables:
                if variable.constraint is not None:
                    variable.assign(variable.constraint(variable))
            if self.average:
                self._update_averages()
        self.iterations.assign_add(1)

    def _update_in_place(
        self, grads: list[tf.Tensor], variables: list[keras.Variable]
    ) -> tf.Tensor:
        """Updates by TensorFlow's fused operations; returns whether it did."""
        finite = _are_finite(grads)
        grads = self._clip_gradients(self._unscaled(grads))

        def update() -> tf.Tensor:
            for gradient, variable in zip(grads, variables, strict=True):
                self.update_step(gradient, variable.value, self.learning_rate)
            return tf.constant(0)  # A branch must return something.

        tf.cond(finite, update, lambda: tf.constant(0))
        return finite

    def _update(
        self, grads: list[tf.Tensor], variables: list[keras.Variable]
    ) -> tf.Tensor:
        """Updates in one compiled pass over the weights; returns whether it did.

        Nothing waits for the host here: a step that is skipped writes the old values.
        """

        # A new function for each trace, because it holds one replica's variables.
        @functools.partial(tf.function, jit_compile=True, autograph=False)
        def update(grads: list[tf.Tensor]) -> tf.Tensor:
            finite = _are_finite(grads)
            grads = self._clip_gradients(self._unscaled(grads))
            for gradient, variable in zip(grads, variables, strict=True):
                index = self._get_variable_index(variable)
                weight = variable.value
                old = (weight, *(slot.value for slot in self._slots[index]))
                rate = tf.cast(self.learning_rate, weight.dtype)
                applied = finite
                for factor in self._factors[index]:
                    rate *= tf.cast(factor.value, weight.dtype)
                    applied &= factor.value != 0
                gradient = tf.cast(gradient, weight.dtype)
                new = self._after_step(*old, gradient, rate, self._decays[index])
                for variable, value in zip(old, new, strict=True):
                    variable.assign(tf.where(applied, value, variable))
            return finite

        return update(grads)

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one replica's copy of one variable."""
        index = self._get_variable_index(variable)
        gradient = tf.cast(gradient, variable.dtype)
        rate = tf.cast(learning_rate, variable.dtype)
        slots = [slot.value for slot in self._slots[index]]
        factors = self._factors[index]
        for factor in factors:
            rate *= tf.cast(factor.value, variable.dtype)

        def update() -> tf.Tensor:
            self._step_in_place(variable, *slots, gradient, rate, self._decays[index])
            return tf.constant(0)  # A branch must return something.

        if not factors:
            update()
            return
        # Not the rate itself: where that is 0, the velocity still moves the weight.
        frozen = tf.reduce_any([factor.value == 0 for factor in factors])
        tf.cond(frozen, lambda: tf.constant(0), update)

    def _after_step(self, weight, velocity, gradient, rate, decay) -> tuple:
        """Returns a weight and its slots after a step."""
        momentum = tf.cast(self.momentum, weight.dtype)
        velocity = momentum * velocity - rate * (gradient + decay * weight)
        return weight + velocity, velocity

    def _step_in_place(self, weight, velocity, gradient, rate, decay) -> None:
        """Does the same by TensorFlow's fused operations."""
        if decay and self.momentum:
            # Into the velocity, in place, divided by what multiplies that next: two
            # fewer arrays of the weights' size than decay * w + g makes.
            tf.raw_ops.ResourceApplyGradientDescent(
                var=velocity.handle,
                alpha=rate * (decay / self.momentum),
                delta=weight,
            )
        elif decay:
            gradient += decay * weight
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=weight.handle,
            accum=velocity.handle,
            lr=rate,
            grad=gradient,
            momentum=tf.cast(self.momentum, weight.dtype),
        )

    def _update_averages(self) -> None:
        step = tf.cast(self.iterations.value, tf.float32)
        decay = tf.minimum(self.average, (1 + step) / (10 + step))
        for average, variable in zip(
            self._averages, self._trainable_variables, strict=True
        ):
            tf.raw_ops.ResourceApplyGradientDescent(
                var=average.value.handle,
                alpha=tf.cast(1 - decay, average.dtype),
                delta=tf.convert_to_tensor(average.value) - variable.value,
            )

    def use_averages(self) -> None:
        """Makes the weights their moving averages, if there are any."""
        if self.average:
            for average, variable in zip(
                self._averages, self._trainable_variables, strict=True
            ):
                variable.assign(average)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Makes the weights their moving averages within a `with` statement."""
        if not self.average:
            yield
            return
        variables = self._trainable_variables
        weights = [tf.convert_to_tensor(variable.value) for variable in variables]
        self.use_averages()
        try:
            yield
        finally:
            for variable, value in zip(variables, weights, strict=True):
                variable.assign(value)

    @property
    def own_finite(self) -> tf.Tensor:
        """Whether this replica's own gradients were finite in the last step."""
        return self._settings.own_finite.read_value()

    def _unscaled(self, grads: list[tf.Tensor]) -> list[tf.Tensor]:
        scale = self.loss_scale_factor
        if self.dynamic_loss_scale:
            scale = self._loss_scale.value
        return grads if scale is None else [g / tf.cast(scale, g.dtype) for g in grads]

    def _adapt_loss_scale(self, finite: tf.Tensor) -> None:
        steps = tf.where(finite, self._steps_at_scale.value + 1, 0)
        doubled = tf.where(steps >= STEPS_TO_DOUBLE, 2.0, 1.0)
        factor = tf.where(finite, doubled, 0.5)
        self._loss_scale.assign(tf.maximum(self._loss_scale.value * factor, 1.0))
        self._steps_at_scale.assign(steps % STEPS_TO_DOUBLE)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.decay,
            "multipliers": self.multipliers,
            "decay_multipliers": self.decay_multipliers,
            "dynamic_loss_scale": self.dynamic_loss_scale,
            "average": self.average,
        }


@keras.saving.register_keras_serializable("keras_alexnet")
class DecayedAdam(DecayedMomentum):
    """AdamW (https://arxiv.org/abs/1711.05101), in all else as `DecayedMomentum`.

    For each weight w with gradient g, in step t of those that were applied

        m <- momentum * m + (1 - momentum) * g
        v <- beta_2 * v + (1 - beta_2) * g^2
        a = rate * sqrt(1 - beta_2^t) / (1 - momentum^t)
        w <- w - rate * weight_decay * w - a * m / (sqrt(v) + epsilon)

    as `keras.optimizers.AdamW`, but for the decay of vectors: there is none here.

    Args:
        learning_rate: Defaults to 0.001.
        momentum: Decay of the first moment, Keras's `beta_1`. Defaults to 0.9.
        weight_decay: Defaults to 0.004.
        beta_2: Decay of the second moment, in (0, 1). Defaults to 0.999.
        epsilon: Defaults to 1e-7.
        name: Defaults to `"decayed_adam"`.
        **kwargs: As `DecayedMomentum`.
    """

    slots = ("first_moment", "second_moment")

    def __init__(
        self,
        learning_rate: float = 0.001,
        momentum: float = 0.9,
        weight_decay: float = 0.004,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str = "decayed_adam",
        **kwargs,
    ):
        super().__init__(learning_rate, momentum, weight_decay, name=name, **kwargs)
        if not 0 < beta_2 < 1:
            raise UserError(f"beta_2 must be in (0, 1). Received: beta_2={beta_2}")
        self.beta_2, self.epsilon = beta_2, epsilon

    def _powers(self, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns both decays to the power of the step."""
        applied = self.iterations.value - tf.cast(
            self.skipped_steps.value, self.iterations.value.dtype
        )
        step = tf.cast(applied + 1, dtype)
        return tf.pow(tf.cast(self.momentum, dtype), step), tf.pow(
            tf.cast(self.beta_2, dtype), step
        )

    def _after_step(self, weight, first, second, gradient, rate, decay) -> tuple:
        power_1, power_2 = self._powers(weight.dtype)
        first = first + (gradient - first) * (1 - self.momentum)
        second = second + (gradient * gradient - second) * (1 - self.beta_2)
        alpha = rate * tf.sqrt(1 - power_2) / (1 - power_1)
        weight = weight - weight * (rate * decay)
        return weight - alpha * first / (tf.sqrt(second) + self.epsilon), first, second

    def _step_in_place(self, weight, first, second, gradient, rate, decay) -> None:
        if decay:
            tf.raw_ops.ResourceApplyGradientDescent(
                var=weight.handle, alpha=rate * decay, delta=weight
            )
        power_1, power_2 = self._powers(weight.dtype)
        dtype = weight.dtype
        tf.raw_ops.ResourceApplyAdam(
            var=weight.handle,
            m=first.handle,
            v=second.handle,
            beta1_power=power_1,
            beta2_power=power_2,
            lr=rate,
            beta1=tf.cast(self.momentum, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=gradient,
        )

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        own = {"beta_2": self.beta_2, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


def _are_finite(grads: list[tf.Tensor]) -> tf.Tensor:
    # Squares overflow before numbers do; gradients that large are useless, too.
    return tf.math.is_finite(tf.linalg.global_norm(grads))


def _replica_context() -> tf.distribute.ReplicaContext:
    context = tf.distribute.get_replica_context()
    if context is None:
        raise UserError(
            "Under a strategy of several replicas, an optimizer takes its steps within "
            "strategy.run."
        )
    return context


def _layer_name(variable: keras.Variable) -> str:
    return variable.path.rpartition("/")[0].rpartition("/")[2]


def _check_multiplier(name: str, factor: float) -> float:
    if not 0 <= factor < float("inf"):
        raise UserError(
            f"A multiplier must be finite and not negative. Received: {name}: {factor}"
        )
    return float(factor)
