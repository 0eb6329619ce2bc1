"""Networks that benchmarks compare, as data: ours and every peer build the same.

Needs NumPy only, so that the process of a peer need not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

# Large steps on images of noise would end in NaN, and a step without them is as long.
LEARNING_RATE = 1e-8
MOMENTUM, WEIGHT_DECAY, DROPOUT = 0.9, 5e-4, 0.5
LRN = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}

# How many images outputs are compared on.
SAMPLE = 4

# Kernel and bias of each layer, in our layout: (height, width, in / groups, out) or
# (in, out).
Weights = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution with ReLU.

    Attributes:
        filters: Output channels.
        kernel: Height and width of the window.
        stride: Of the window.
        padding: Zeros on each side.
        groups: Towers.
    """

    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class Network:
    """Convolutions with LRN and max pooling, then three dense layers.

    Attributes:
        architecture: Ours of the same form.
        convolutions: conv1 to conv5.
        hidden: Units of fc6 and fc7.
        image_size: Height and width of the images.
        classes: Units of fc8.
        normalised: Numbers of the convolutions that LRN follows.
        pooled: Numbers of the convolutions that overlapping pooling follows.
        dropped: The dense layers whose input passes through dropout.
    """

    architecture: str
    convolutions: tuple[Convolution, ...]
    hidden: int = 4096
    image_size: int = 227
    classes: int = 1000
    normalised: tuple[int, ...] = (1, 2)
    pooled: tuple[int, ...] = (1, 2, 5)
    dropped: tuple[str, ...] = ("fc7", "fc8")

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """Shape of each kernel, and in how many positions it is applied."""
        shapes, channels, size = {}, 3, self.image_size
        for number, conv in enumerate(self.convolutions, 1):
            size = (size + 2 * conv.padding - conv.kernel) // conv.stride + 1
            kernel = (conv.kernel, conv.kernel, channels // conv.groups, conv.filters)
            shapes[f"conv{number}"] = kernel, size * size
            channels = conv.filters
            if number in self.pooled:
                size = (size - 3) // 2 + 1
        shapes["fc6"] = (size * size * channels, self.hidden), 1
        shapes["fc7"] = (self.hidden, self.hidden), 1
        shapes["fc8"] = (self.hidden, self.classes), 1
        return shapes

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the forward pass of one image."""
        return sum(int(np.prod(kernel)) * n for kernel, n in self.shapes.values())


ALEXNET_2012 = Network(
    "alexnet_2012",
    (
        Convolution(96, 11, stride=4),
        Convolution(256, 5, padding=2, groups=2),
        Convolution(384, 3, padding=1),
        Convolution(384, 3, padding=1, groups=2),
        Convolution(256, 3, padding=1, groups=2),
    ),
)
ALEXNET_OWT = Network(
    "alexnet_owt",
    (
        Convolution(64, 11, stride=4, padding=2),
        Convolution(192, 5, padding=2),
        Convolution(384, 3, padding=1),
        Convolution(256, 3, padding=1),
        Convolution(256, 3, padding=1),
    ),
    image_size=224,
    normalised=(),
    dropped=("fc6", "fc7"),
)
ALEXNET_MINI = Network(
    "alexnet_mini",
    (
        Convolution(32, 5, padding=2),
        Convolution(64, 5, padding=2, groups=2),
        Convolution(96, 3, padding=1),
        Convolution(96, 3, padding=1, groups=2),
        Convolution(64, 3, padding=1, groups=2),
    ),
    hidden=256,
    image_size=28,
    classes=10,
)


def network_for(quick: bool) -> Network:
    """Returns the network of the paper, or a tiny one of the same form."""
    return ALEXNET_MINI if quick else ALEXNET_2012


def sample_images(network: Network, count: int = SAMPLE) -> np.ndarray:
    """Makes mean-free noise, float32 `(count, size, size, 3)`; always the same."""
    shape = (count, network.image_size, network.image_size, 3)
    return np.random.default_rng(0).standard_normal(shape, np.float32) * np.float32(60)


@functools.lru_cache(maxsize=1)
def weights_of(network: Network) -> Weights:
    """Makes weights that keep the size of signals; always the same."""
    random = np.random.default_rng(0)
    weights = {}
    for name, (shape, _) in network.shapes.items():
        deviation = np.sqrt(2 / np.prod(shape[:-1]), dtype="float32")
        # With larger logits one probability would be 1 and all others 0.
        deviation *= np.float32(0.02) if name == "fc8" else 1
        kernel = random.standard_normal(shape, np.float32) * deviation
        weights[name] = kernel, random.standard_normal(shape[-1], np.float32)
    return weights
