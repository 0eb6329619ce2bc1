"""Networks that benchmarks compare, read from the architecture for every peer.

Needs NumPy only, so that the process of a peer need not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_alexnet.architectures import get_architecture

# Large steps on images of noise would end in NaN, and a step without them is as long.
LEARNING_RATE = 1e-8
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4

# How many images outputs are compared on.
SAMPLE = 4

# Kernel and bias of each layer, in our layout: (height, width, in / groups, out) or
# (in, out).
Weights = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Network:
    """One of our architectures, in the terms that every system has.

    Attributes:
        architecture: Its name.
    """

    architecture: str

    @property
    def image_size(self) -> int:
        """Height and width of the images."""
        return get_architecture(self.architecture).input_size

    @property
    def classes(self) -> int:
        """Units of fc8."""
        return get_architecture(self.architecture).classes

    @property
    def layers(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Role, name and options of each layer.

        The `padding` of a convolution is how many zeros it sees on each side.
        """
        architecture = get_architecture(self.architecture)
        layers, zeros = [], 0
        for spec in architecture.features + architecture.top:
            options = dict(spec.options)
            if spec.role == "pad":
                zeros = options["padding"]
            elif spec.role == "conv":
                same = options["padding"] == "same"
                options["padding"] = options["kernel_size"] // 2 if same else zeros
                zeros = 0
            elif spec.role == "dense":
                options["units"] = options["units"] or self.classes
            # At the default size there is nothing to resize.
            if spec.layer and spec.role not in ("pad", "resize"):
                layers.append((spec.role, spec.name, options))
        return layers

    @property
    def kernel_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each kernel, in our layout."""
        return get_architecture(self.architecture).kernel_shapes()

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the forward pass of one image."""
        size, total = self.image_size, 0
        for role, name, options in self.layers:
            if role == "conv":
                size += 2 * options["padding"] - options["kernel_size"]
                size = size // options["strides"] + 1
                total += size**2 * math.prod(self.kernel_shapes[name])
            elif role == "pool":
                size = (size - options["pool_size"]) // options["strides"] + 1
            elif role == "dense":
                total += math.prod(self.kernel_shapes[name])
        return total


ALEXNET_2012 = Network("alexnet_2012")
ALEXNET_OWT = Network("alexnet_owt")
ALEXNET_MINI = Network("alexnet_mini")


def sample_images(network: Network, count: int = SAMPLE) -> np.ndarray:
    """Makes mean-free noise, float32 `(count, size, size, 3)`; always the same."""
    shape = (count, network.image_size, network.image_size, 3)
    return np.random.default_rng(0).standard_normal(shape, np.float32) * np.float32(60)


@functools.lru_cache(maxsize=1)
def weights_of(network: Network) -> Weights:
    """Makes weights that keep the size of signals; always the same."""
    random = np.random.default_rng(0)
    weights = {}
    for name, shape in network.kernel_shapes.items():
        deviation = np.sqrt(2 / np.prod(shape[:-1]), dtype="float32")
        # With larger logits one probability would be 1 and all others 0.
        deviation *= np.float32(0.02) if name == "fc8" else 1
        kernel = random.standard_normal(shape, np.float32) * deviation
        weights[name] = kernel, random.standard_normal(shape[-1], np.float32)
    return weights
