"""Weights, images and optimizer settings that all systems get.

Needs NumPy only, so that the process of a peer need not import TensorFlow.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from keras_alexnet.architectures import get_architecture

# Large steps on images of noise would end in NaN, and a step without them is as long.
LEARNING_RATE = 1e-8
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
# How many images outputs are compared on.
SAMPLE = 4
# Pixels are whole numbers with this mean, for systems that take bytes.
MEAN = 128

# Kernel and bias of each layer, in our layout: (height, width, in / groups, out) or
# (in, out).
Weights = Mapping[str, tuple[np.ndarray, np.ndarray]]


def sample_images(network: str, count: int = SAMPLE) -> np.ndarray:
    """Makes mean-free noise, float32 `(count, size, size, 3)`; always the same.

    Args:
        network: The name of an architecture.
        count: How many.
    """
    size = get_architecture(network).input_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3))
    return (pixels - MEAN).astype("float32")


@functools.lru_cache(maxsize=1)
def weights_of(network: str) -> Weights:
    """Makes weights that keep the size of signals; always the same."""
    random = np.random.default_rng(0)
    weights = {}
    for name, shape in get_architecture(network).kernel_shapes().items():
        deviation = np.sqrt(2 / np.prod(shape[:-1]), dtype="float32")
        # With larger logits one probability would be 1 and all others 0.
        deviation *= np.float32(0.02) if name == "fc8" else 1
        kernel = random.standard_normal(shape, np.float32) * deviation
        weights[name] = kernel, random.standard_normal(shape[-1], np.float32)
    return weights
