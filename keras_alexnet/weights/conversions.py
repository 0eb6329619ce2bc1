"""Weights trained under one convention, made to give the same numbers under another.

Pure functions. None is applied unless asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_alexnet.errors import UserError
from keras_alexnet.weights.weight_file import WeightFile


def to_inverted_dropout(weight_file: WeightFile, rate: float = 0.5) -> WeightFile:
    """Converts weights trained with the dropout of 2012 to Keras's.

    In 2012 activations were left as they are in training and multiplied by `1 - rate`
    at test time (paper, section 4.2); Keras divides by `1 - rate` in training. The
    factor goes into the kernels that read dropped activations, of fc7 and fc8; biases
    stay. What the network computes at test time is the same.

    Args:
        weight_file: The weights.
        rate: The share of activations that was dropped.
    """
    return _scaled(weight_file, dict.fromkeys(("fc7", "fc8"), _kept(rate)))


def to_classic_dropout(weight_file: WeightFile, rate: float = 0.5) -> WeightFile:
    """Undoes `to_inverted_dropout`."""
    return _scaled(weight_file, dict.fromkeys(("fc7", "fc8"), 1 / _kept(rate)))


def _kept(rate: float) -> float:
    if not 0 <= rate < 1:
        raise UserError(f"rate must be at least 0 and below 1. Received: rate={rate}")
    return 1 - rate


def convert_lrn(
    weight_file: WeightFile, from_k: float, to_k: float, beta: float = 0.75
) -> WeightFile:
    """Converts weights trained under one constant k of the normalisation to another.

    With y = x / (k + alpha * sum(x^2))^beta, k^-beta comes out of the fraction: a
    network trained at k 2 gives the same numbers at k 1 with alpha / 2 - see
    `lrn_alpha()`, which the network's layers must have - if what reads the normalised
    maps, conv2 and conv3, is multiplied by 2^-beta. Pooling and ReLU in between
    commute with the factor. A spatial normalisation in between, as in
    `alexnet_2012_source`, needs its own alpha multiplied by `(from_k / to_k)^(-2 *
    beta)`.

    Args:
        weight_file: The weights.
        from_k: The k they were trained under.
        to_k: The k they are to be used under.
        beta: The exponent.
    """
    if from_k <= 0 or to_k <= 0:
        raise UserError(f"k must be positive. Received: {from_k} and {to_k}")
    factor = (from_k / to_k) ** -beta
    return _scaled(weight_file, {"conv2": factor, "conv3": factor})


def lrn_alpha(alpha: float, from_k: float, to_k: float) -> float:
    """Returns the alpha that goes with `convert_lrn()`."""
    return alpha * to_k / from_k


def _scaled(weight_file: WeightFile, factors: Mapping[str, float]) -> WeightFile:
    layers = dict(weight_file.layers)
    for name, factor in factors.items():
        if name in layers:
            kernel = layers[name].kernel * np.float32(factor)
            layers[name] = layers[name]._replace(kernel=kernel)
    return dataclasses.replace(weight_file, layers=layers)
