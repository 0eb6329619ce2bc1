"""Which architecture a file's weights belong to."""

from __future__ import annotations

import dataclasses

from keras_alexnet.architectures import get_architecture, list_architectures
from keras_alexnet.weights.weight_file import (
    CONVOLUTIONS,
    LAYER_NAMES,
    WeightFile,
    WeightFileError,
)

# The kernels of conv1 to conv5, and how many inputs fc6 has.
_TWO_TOWERS = (
    (11, 11, 3, 96),
    (5, 5, 48, 256),
    (3, 3, 256, 384),
    (3, 3, 192, 384),
    (3, 3, 192, 256),
    9216,
)
_SHAPES = {
    "alexnet_2012": _TWO_TOWERS,
    "alexnet_2012_source": _TWO_TOWERS,
    "bvlc_alexnet": _TWO_TOWERS,
    "caffenet": _TWO_TOWERS,
    "alexnet_owt": (
        (11, 11, 3, 64),
        (5, 5, 64, 192),
        (3, 3, 192, 384),
        (3, 3, 384, 256),
        (3, 3, 256, 256),
        9216,
    ),
    "alexnet_slim_v2": (
        (11, 11, 3, 64),
        (5, 5, 64, 192),
        (3, 3, 192, 384),
        (3, 3, 384, 384),
        (3, 3, 384, 256),
        6400,
    ),
    "alexnet_2012_half": (
        (11, 11, 3, 48),
        (5, 5, 48, 128),
        (3, 3, 128, 192),
        (3, 3, 192, 192),
        (3, 3, 192, 256),
        9216,
    ),
    "alexnet_mini": (
        (5, 5, 3, 32),
        (5, 5, 16, 64),
        (3, 3, 64, 96),
        (3, 3, 48, 96),
        (3, 3, 48, 64),
        256,
    ),
}


@dataclasses.dataclass(frozen=True)
class Network:
    """The network that a file's weights belong to.

    Attributes:
        architecture: Its name.
        input_size: Height and width of the images that it takes.
        channels: Their channels.
        classes: How many it tells apart; None without fc8.
    """

    architecture: str
    input_size: int
    channels: int
    classes: int | None


def network_of(weight_file: WeightFile) -> Network:
    """Returns the network that a file's weights belong to.

    Raises:
        WeightFileError: They fit no architecture.
    """
    name = weight_file.metadata.get("architecture") or weight_file.name
    if weight_file.format != "keras" or name not in list_architectures():
        candidates = recognise(weight_file)
        if not candidates:
            raise WeightFileError(
                f"{weight_file.path}: no architecture has these layers "
                f"({describe(weight_file)}). Name the one that they are meant for, to "
                "see what differs."
            )
        name = candidates[0]
    layers = weight_file.layers
    return Network(
        name,
        weight_file.input_size or get_architecture(name).input_size,
        # A network without conv1 has lost it.
        layers["conv1"].kernel.shape[2] if "conv1" in layers else 3,
        layers["fc8"].bias.size if "fc8" in layers else None,
    )


def recognise(weight_file: WeightFile) -> tuple[str, ...]:
    """Returns the architectures whose weights these can be, the likeliest first.

    Shapes decide which are possible: the two-tower networks share theirs. The likeliest
    of those is told by what the file calls its network, by its order of normalisation
    and pooling, or by the program that wrote the format.

    Args:
        weight_file: The weights.

    Returns:
        Names of architectures; none if no published network has these shapes.
    """
    shapes = {name: layer.kernel.shape for name, layer in weight_file.layers.items()}
    candidates = [
        name
        for name, (*convolutions, inputs) in _SHAPES.items()
        if all(
            shapes.get(layer) == shape
            for layer, shape in zip(CONVOLUTIONS, convolutions, strict=True)
        )
        and shapes.get("fc6", (inputs,))[0] == inputs
    ]
    if weight_file.name in candidates:
        return (weight_file.name,)
    if weight_file.norm_first is not None and "caffenet" in candidates:
        return ("bvlc_alexnet" if weight_file.norm_first else "caffenet",)
    likeliest = {
        "caffe": ("bvlc_alexnet", "caffenet"),
        "npy": ("bvlc_alexnet", "caffenet"),
        "onnx": ("bvlc_alexnet", "caffenet"),
    }.get(weight_file.format, ())
    return tuple(sorted(candidates, key=lambda name: name not in likeliest))


def describe(weight_file: WeightFile) -> str:
    """Says what a file holds, in one line."""
    shapes = [
        f"{name} {'x'.join(map(str, weight_file.layers[name].kernel.shape))}"
        for name in LAYER_NAMES
        if name in weight_file.layers
    ]
    return f"{weight_file.format}: {', '.join(shapes)}"
