"""The network for programs that use Keras Tuner themselves.

`keras_alexnet.tuning.search` does not need it: its trials are whole runs.
"""

from __future__ import annotations

from typing import Any

import keras
import keras_tuner

from keras_alexnet.builder import build
from keras_alexnet.training.optimizer import DecayedMomentum
from keras_alexnet.tuning.parameters import RECIPE


class AlexNetHyperModel(keras_tuner.HyperModel):
    """An AlexNet whose learning rate, momentum, weight decay and dropout are searched.

    For any tuner of Keras Tuner; its `search` takes the arguments of `fit`. The ranges
    are those of the search space `recipe`; nothing follows a schedule.

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

        def value(name: str) -> float:
            return RECIPE[name].declare(hp, name)

        model = build(
            self.architecture, dropout=value("dropout.value"), **self.build_arguments
        )
        model.compile(
            optimizer=DecayedMomentum(
                value("learning_rate.value"),
                momentum=value("momentum"),
                weight_decay=value("weight_decay"),
            ),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model
