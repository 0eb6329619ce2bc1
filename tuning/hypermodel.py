"""The network as Keras Tuner sees it."""

from __future__ import annotations

from typing import Any

import keras
import keras_tuner

from keras_alexnet.builder import build
from keras_alexnet.training.optimizer import DecayedMomentum


class AlexNetHyperModel(keras_tuner.HyperModel):
    """An AlexNet whose learning rate, momentum, weight decay and dropout are searched.

    For any tuner of Keras Tuner; its `search` takes the arguments of `fit`. The 2012
    values lie in the middle of the ranges.

    Args:
        architecture: A name or an `Architecture`.
        **build_arguments: Other arguments of `keras_alexnet.build`.

    Example:
    >>> hypermodel = AlexNetHyperModel("alexnet_mini", input_shape=(28, 28, 1))
    >>> tuner = keras_tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=10)
    >>> tuner.search(images, labels, validation_split=0.2, epochs=5)
    """

    def __init__(self, architecture: str = "alexnet_2012", **build_arguments: Any):
        super().__init__()
        self.architecture = architecture
        self.build_arguments = build_arguments

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Builds and compiles the network of one trial."""
        model = build(
            self.architecture,
            dropout=hp.Float("dropout", 0.0, 0.8, default=0.5),
            **self.build_arguments,
        )
        model.compile(
            optimizer=DecayedMomentum(
                hp.Float("learning_rate", 1e-3, 1e-1, sampling="log", default=1e-2),
                momentum=hp.Float("momentum", 0.8, 0.99, default=0.9),
                weight_decay=hp.Float(
                    "weight_decay", 5e-5, 5e-3, sampling="log", default=5e-4
                ),
            ),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model
