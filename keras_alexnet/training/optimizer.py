"""The 2012 network's optimizer."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("keras_alexnet")
class DecayedMomentum(keras.optimizers.Optimizer):
    """Stochastic gradient descent as in 2012: rate and decay inside the momentum.

    For each weight w with gradient g (paper section 5; Caffe's solver does the same)

        v <- momentum * v - rate * (g + weight_decay * w)
        w <- w + v

    where biases and other vectors are not decayed. A drop of the rate leaves the
    velocity that has built up as it is. (`keras.optimizers.SGD` applies its
    `weight_decay` outside the momentum, to biases too.)

    The update is one fused TensorFlow operation per variable.

    Args:
        learning_rate: A float, a `LearningRateSchedule`, or a callable. Defaults to
            0.01.
        momentum: In [0, 1). Defaults to 0.9.
        weight_decay: Defaults to 0.0005.
        name: Defaults to `"decayed_momentum"`.
        **kwargs: Other arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: `momentum` or `weight_decay` is out of range.
    """

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0005,
        name: str = "decayed_momentum",
        **kwargs,
    ):
        # Not handed to the parent, which would decay a second time.
        super().__init__(learning_rate, name=name, **kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(
                f"momentum must be in [0, 1). Received: momentum={momentum}"
            )
        if weight_decay < 0:
            raise ValueError(
                "weight_decay must not be negative. "
                f"Received: weight_decay={weight_decay}"
            )
        self.momentum = momentum
        self.decay = weight_decay

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates a velocity for each variable."""
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        # Biases, and the scales of other normalisations, are vectors.
        self._decays = [self.decay if len(v.shape) > 1 else 0.0 for v in variables]

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable."""
        index = self._get_variable_index(variable)
        gradient = tf.cast(gradient, variable.dtype)
        if self._decays[index]:
            gradient += self._decays[index] * variable
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self._velocities[index].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
        )

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.decay,
        }
