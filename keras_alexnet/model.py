"""The model class: a functional Keras model whose XLA compilation stays in the replica.

Keras compiles the whole distributed step when asked for `jit_compile=True`, which fails
with more than one replica, because XLA cannot compile what happens between devices.
`AlexNet` compiles what happens on one device - forward pass, loss, gradients - and
leaves the exchange between replicas, the update and the metrics outside.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_alexnet.registry import list_layers


@keras.saving.register_keras_serializable("keras_alexnet")
class AlexNet(keras.Model):
    """An AlexNet, as `keras_alexnet.build()` makes it.

    Use it as any functional Keras model: `compile`, `fit`, `evaluate`, `predict`,
    `save`, `export`, under any `tf.distribute` strategy that Keras supports. With
    `compile(jit_compile=True)`, `fit` works under several replicas too.
    """

    def make_train_function(self, force: bool = False) -> None:
        """Creates the function that `fit` calls for each step."""
        with self._without_outer_jit():
            super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> None:
        """Creates the function that `evaluate` calls for each step."""
        with self._without_outer_jit():
            super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> None:
        """Creates the function that `predict` calls for each step."""
        with self._without_outer_jit():
            super().make_predict_function(force)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Updates the weights once, from one batch.

        Runs on each replica, with that replica's share of the batch.

        Args:
            data: `(images, labels)` or `(images, labels, sample_weight)`.

        Returns:
            The compiled metrics and the loss, which is the mean over all replicas.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        variables = self.trainable_variables

        def forward_backward(x, y, sample_weight):
            with tf.GradientTape() as tape:
                predictions = self(x, training=True)
                loss = self.compute_loss(x, y, predictions, sample_weight)
                scaled = self.optimizer.scale_loss(loss)
            return loss, predictions, tape.gradient(scaled, variables)

        loss, predictions, gradients = self._on_replica(forward_backward)(
            x, y, sample_weight
        )
        if variables:  # None where every layer is frozen.
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._update_metrics(x, y, predictions, sample_weight, loss)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Returns loss and metrics of one batch, in inference mode."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)

        def forward(x, y, sample_weight):
            predictions = self(x, training=False)
            loss = self.compute_loss(x, y, predictions, sample_weight, training=False)
            return loss, predictions

        loss, predictions = self._on_replica(forward)(x, y, sample_weight)
        return self._update_metrics(x, y, predictions, sample_weight, loss)

    def predict_step(self, data: Any) -> tf.Tensor:
        """Returns the outputs for one batch, in inference mode."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self._on_replica(lambda x: self(x, training=False))(x)

    def _on_replica(self, function):
        """Compiles a function of tensors for the device that it is traced on.

        A new tf.function for each call: a step is traced once for every replica, and
        each needs its own, because a traced function holds one replica's variables.
        """
        if not self.jit_compile:
            return function
        return tf.function(function, jit_compile=True, autograph=False)

    @contextlib.contextmanager
    def _without_outer_jit(self) -> Iterator[None]:
        """Hides `jit_compile` from Keras while it wraps a step."""
        jit_compile, self.jit_compile = self.jit_compile, False
        try:
            yield
        finally:
            self.jit_compile = jit_compile

    def _update_metrics(self, x, y, predictions, sample_weight, loss):
        # Under a strategy Keras divides a loss by the number of replicas, so that
        # gradients sum up to those of the global mean. What is reported is that mean.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        for metric in self.metrics:
            if metric.name == "loss":
                batch_size = tf.shape(tf.nest.flatten(x)[0])[0]
                metric.update_state(loss * replicas, sample_weight=batch_size)
        return self.compute_metrics(x, y, predictions, sample_weight)


def load_model(path: str | Path, **kwargs: Any) -> keras.Model:
    """Loads a `.keras` file, with this package's and all plugins' layers known.

    Args:
        path: The file.
        **kwargs: Arguments of `keras.models.load_model`.

    Returns:
        The model, an `AlexNet` where one was saved.

    Raises:
        ValueError: There is no such file, or it is of no known format.
    """
    # Keras finds classes that have been imported; it imports none by itself.
    importlib.import_module("keras_alexnet.training.optimizer")
    list_layers()
    return keras.models.load_model(path, **kwargs)
