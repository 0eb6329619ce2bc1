"""Which architecture a file's weights belong to."""

from __future__ import annotations

import dataclasses
import math

from keras_alexnet.architectures import (
    Architecture,
    get_architecture,
    list_architectures,
)
from keras_alexnet.weights.weight_file import (
    CONVOLUTIONS,
    LAYER_NAMES,
    WeightFile,
    WeightFileError,
)


@dataclasses.dataclass(frozen=True)
class Network:
    """The network that a file's weights belong to.

    Attributes:
        architecture: Its name.
        input_size: Height and width of the images that it takes.
        channels: Their channels.
        classes: How many it tells apart; None without its last layer.
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
            shapes = [
                f"{layer} {'x'.join(map(str, weights.kernel.shape))}"
                for layer, weights in weight_file.layers.items()
            ]
            raise WeightFileError(
                f"{weight_file.path}: no architecture has these layers "
                f"({', '.join(shapes)}). Name the one that they are meant for, to see "
                "what differs."
            )
        name = candidates[0]
    layers, architecture = weight_file.layers, get_architecture(name)
    output = [one.name for one in architecture.top if one.role in ("conv", "dense")][-1]
    arrays = weight_file.arrays().get(output)
    return Network(
        name,
        weight_file.input_size or architecture.input_size,
        # A network without conv1 has lost it.
        layers["conv1"].kernel.shape[2] if "conv1" in layers else 3,
        arrays[0].shape[-1] if arrays else None,
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
    candidates = [
        name
        for name in list_architectures()
        if _fits(get_architecture(name), weight_file)
    ]
    if weight_file.name in candidates:
        return (weight_file.name,)
    if weight_file.norm_first is not None and "caffenet" in candidates:
        return ("bvlc_alexnet" if weight_file.norm_first else "caffenet",)
    by_caffe = weight_file.format in ("caffe", "npy", "onnx")
    likeliest = ("bvlc_alexnet", "caffenet") if by_caffe else ()
    return tuple(sorted(candidates, key=lambda name: name not in likeliest))


def _fits(architecture: Architecture, weight_file: WeightFile) -> bool:
    """Says whether convolutions and the inputs of fc6 are those of a network."""
    shapes, layers = architecture.kernel_shapes(), weight_file.layers
    # Dense layers that only networks of the 2012 program's for CIFAR-10 have.
    own = {name for name in weight_file.others if name.startswith("fc")}
    if own != {name for name in shapes if name not in LAYER_NAMES}:
        return False
    convolutions = {
        spec.name: (shapes[spec.name], spec.options.get("use_bias", True))
        for spec in architecture.features
        if spec.role == "conv"
    }
    if convolutions != {
        name: (layers[name].kernel.shape, layers[name].bias is not None)
        for name in CONVOLUTIONS
        if name in layers
    }:
        return False
    inputs = math.prod(shapes.get("fc6", (0, 0))[:-1])
    return "fc6" not in layers or layers["fc6"].kernel.shape[0] == inputs
