"""Checkpoints of the original program of 2012, and of cuda-convnet after it.

A pickle of Python 2, perhaps compressed: a dict whose `model_state` has the `layers`, a
dict by name or a list. Each layer names its `inputs`; those with weights have a matrix
for each input. The network of 2012 is two towers, conv1a and conv1b and so on, which
are joined here: what stands at the same depth becomes one layer, with the towers' maps
side by side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from keras_alexnet.weights import pickles
from keras_alexnet.weights.arrays import by_position, contiguous, rows_by_pixel
from keras_alexnet.weights.pickle_values import Array
from keras_alexnet.weights.weight_file import LayerWeights, WeightFile, WeightFileError

# Small enough to make any walk over the network quick; #145 has about 50 layers.
_MAX_LAYERS = 1000


class _Unit(NamedTuple):
    """One tower's share of a layer."""

    name: str
    kind: str
    kernels: list[np.ndarray]
    sources: list[str]
    bias: np.ndarray


def read(buffer: memoryview) -> WeightFile:
    """Reads a checkpoint, after any compression has been undone."""
    value, _ = pickles.load(buffer)
    if isinstance(value, dict):
        value = value.get("model_state", value)
    layers = value.get("layers") if isinstance(value, dict) else None
    if isinstance(layers, dict):
        layers = list(layers.values())
    if not isinstance(layers, list) or not 0 < len(layers) <= _MAX_LAYERS:
        raise WeightFileError(
            "Expected a checkpoint of cuda-convnet: a dict with the layers under "
            "model_state. The pickle holds something else."
        )
    named = {}
    for layer in layers:
        if not isinstance(layer, dict) or not isinstance(layer.get("name"), str):
            raise WeightFileError("The checkpoint has a layer without a name.")
        named[layer["name"]] = layer
    depths = _depths(named)
    weighted = sorted(name for name in named if _has_weights(named[name]))
    units = [
        [_unit(named, name) for name in weighted if depths[name] == depth]
        for depth in range(1, max(depths.values()) + 1)
    ]
    convolutions = [level for level in units if level[0].kind == "conv"]
    dense = [level for level in units if level[0].kind == "fc"]
    joined: dict[str, LayerWeights] = {}
    before: list[_Unit] = []
    for name, level in by_position(convolutions, dense).items():
        joined[name] = _join(name, level, before)
        before = level
    return WeightFile(
        "cuda-convnet", joined, channel_order="RGB", towers=len(convolutions[0])
    )


def _inputs(named: dict[str, dict], name: str) -> list[str]:
    """Returns the layers that a layer reads."""
    inputs = named[name].get("inputs", [])
    if not isinstance(inputs, list):
        raise WeightFileError(f"The checkpoint's layer {name[:80]} has no inputs.")
    result = []
    for source in inputs:
        # A layer's ReLU is a layer of its own, which not all programs store.
        if isinstance(source, str) and source not in named:
            source = source.removesuffix("_neuron")
        if not isinstance(source, str) or source not in named:
            raise WeightFileError(
                f"The checkpoint's layer {name[:80]} reads a layer that is not there."
            )
        result.append(source)
    return result


def _has_weights(layer: dict) -> bool:
    return layer.get("type") in ("conv", "fc") and "weights" in layer


def _depths(named: dict[str, dict]) -> dict[str, int]:
    """Returns how many layers with weights there are up to each layer."""
    waiting = {name: _inputs(named, name) for name in named}
    depths: dict[str, int] = {}
    while waiting:
        ready = [n for n, inputs in waiting.items() if all(i in depths for i in inputs)]
        if not ready:
            raise WeightFileError("The checkpoint's layers read one another in a ring.")
        for name in ready:
            below = max((depths[source] for source in waiting.pop(name)), default=0)
            depths[name] = below + _has_weights(named[name])
    return depths


def _unit(named: dict[str, dict], name: str) -> _Unit:
    layer = named[name]
    inputs, weights = _inputs(named, name), layer["weights"]
    if not isinstance(weights, list) or len(weights) != len(inputs):
        raise WeightFileError(f"{name} should have one matrix for each of its inputs.")
    matrices = [_numbers(weight, name) for weight in weights]
    bias = _numbers(layer.get("biases"), name).reshape(-1)
    kernels = []
    for index, matrix in enumerate(matrices):
        if matrix.ndim != 2 or matrix.shape[1] != bias.size or not matrix.size:
            raise WeightFileError(
                f"{name} should have a matrix with {bias.size} columns, one for each "
                f"bias. Found: {matrix.shape}."
            )
        if layer["type"] == "conv":
            size = layer.get("filterSize")
            size = size[index] if isinstance(size, list) else size
            if type(size) is not int or size < 1 or matrix.shape[0] % size**2:
                raise WeightFileError(f"{name} has filters of an impossible size.")
            matrix = matrix.reshape(-1, size, size, bias.size).transpose(1, 2, 0, 3)
        kernels.append(matrix)
    sources = [_source(named, source) for source in inputs]
    return _Unit(name, str(layer["type"]), kernels, sources, bias)


def _numbers(value: Any, name: str) -> np.ndarray:
    if not isinstance(value, Array):
        raise WeightFileError(f"{name} should have weights and biases as arrays.")
    return value.numpy()


def _source(named: dict[str, dict], name: str) -> str:
    """Returns the layer with weights whose maps a layer passes on, or the data."""
    while not _has_weights(named[name]):
        inputs = _inputs(named, name)
        if not inputs:
            return name
        if len(inputs) > 1:
            raise WeightFileError(f"The checkpoint's layer {name} joins other layers.")
        name = inputs[0]
    return name


def _join(name: str, level: list[_Unit], before: list[_Unit]) -> LayerWeights:
    """Joins the towers of a layer."""
    order = {unit.name: place for place, unit in enumerate(before)}
    if before and any(set(unit.sources) - set(order) for unit in level):
        raise WeightFileError(f"{name} reads other layers than the one below it.")
    is_conv = level[0].kind == "conv"
    parts = []
    for unit in level:
        pairs = list(zip(unit.sources, unit.kernels, strict=True))
        if not is_conv and before[0].kind == "conv":
            sizes = {below.name: below.bias.size for below in before}
            pairs = [(s, rows_by_pixel(kernel, sizes[s])) for s, kernel in pairs]
        pairs.sort(key=lambda pair: order.get(pair[0], 0))
        parts.append((unit, [s for s, _ in pairs], [kernel for _, kernel in pairs]))
    complete = all(len(sources) == max(1, len(before)) for _, sources, _ in parts)
    if not complete:
        # Towers that read their own tower only: a grouped convolution.
        parts.sort(key=lambda part: order.get(part[1][0], 0) if part[1] else 0)
        if not is_conv or [part[1] for part in parts] != [
            [unit.name] for unit in before
        ]:
            raise WeightFileError(
                f"{name}'s towers read neither all maps nor their own."
            )
        if len({part[0].bias.size for part in parts}) != 1:
            raise WeightFileError(f"{name}'s towers differ in size.")
    # Every kernel ends in (in, out).
    try:
        kernel = np.concatenate([np.concatenate(part[2], -2) for part in parts], -1)
    except ValueError:
        raise WeightFileError(f"{name}'s towers do not fit together.") from None
    bias = np.concatenate([part[0].bias for part in parts])
    kernel = contiguous(kernel)
    if not is_conv:
        kernel = kernel.reshape(-1, kernel.shape[-1])
    return LayerWeights(kernel, contiguous(bias))
