"""The rates of single layers, from a configuration and the model that it builds."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import keras

from keras_alexnet.errors import UserError, unknown
from keras_alexnet.layers import ScheduledDropout
from keras_alexnet.schedules import Constant, Schedule, parse_schedule
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.optimizer import BIASES


def multipliers(config: TrainConfig, model: keras.Model) -> dict[str, Schedule]:
    """Returns the schedules of the learning rate's multipliers, by layer name.

    A kernel's rate is the learning rate times the multiplier of its layer; a bias's is
    that times the multiplier of biases, which stands under `BIASES`. Of several
    patterns that fit a layer the last one counts. Those that are 1 throughout, and
    those of layers that are not trainable, are left out.

    Raises:
        ValueError: A pattern fits no layer that has weights.
    """
    names = _layers_with_weights(model)
    schedules: dict[str, Schedule] = {}
    for pattern, schedule in config.by_layer("rate_multipliers").items():
        for name in _matching(pattern, names):
            if model.get_layer(name).trainable:
                schedules[name] = schedule
    schedules[BIASES] = parse_schedule(config.bias_multiplier)
    return {name: one for name, one in schedules.items() if one != Constant(1.0)}


def decays(config: TrainConfig, model: keras.Model) -> dict[str, float]:
    """Returns what the weight decay is multiplied by, by layer name.

    Raises:
        ValueError: A pattern fits no layer that has weights.
    """
    names = _layers_with_weights(model)
    return {
        name: factor(0.0)
        for pattern, factor in config.by_layer("decay_multipliers").items()
        for name in _matching(pattern, names)
    }


def dropouts(config: TrainConfig, model: keras.Model) -> dict[str, Schedule]:
    """Returns the schedules of the dropout rates, by layer name.

    Raises:
        ValueError: `dropout_by_layer` names what is no dropout layer of the model.
    """
    layers = [one.name for one in model.layers if isinstance(one, ScheduledDropout)]
    schedules = dict.fromkeys(layers, parse_schedule(config.dropout))
    for name, schedule in config.by_layer("dropout_by_layer").items():
        if name not in schedules:
            raise UserError(unknown(name, "dropout layer", layers))
        schedules[name] = schedule
    return schedules


def frozen_layers(config: TrainConfig, model: keras.Model) -> tuple[str, ...]:
    """Returns the names of the layers that `config.freeze` keeps from training.

    Raises:
        ValueError: A pattern fits no layer that has weights, or nothing is left to
            train.
    """
    names = _layers_with_weights(model)
    frozen = {name for pattern in config.freeze for name in _matching(pattern, names)}
    if frozen and len(frozen) == len(names):
        raise UserError(
            f"All layers are frozen by {', '.join(config.freeze)}: leave one to train."
        )
    return tuple(name for name in names if name in frozen)


def _layers_with_weights(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if layer.weights]


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    matching = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not matching:
        raise UserError(unknown(pattern, "layer with weights", names))
    return matching
