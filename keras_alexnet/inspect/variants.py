"""The named networks side by side, as a page drawn from their data.

python -m keras_alexnet.inspect.variants > docs/variants.md
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterable

import keras

from keras_alexnet.architectures import (
    Architecture,
    LayerSpec,
    get_architecture,
    list_architectures,
)
from keras_alexnet.builder import build

_BLOCKS = {
    "1": "block 1",
    "2": "block 2",
    "3": "conv3",
    "4": "conv4",
    "5": "block 5",
    "6": "fc6",
    "7": "fc7",
    "8": "fc8",
}


def page() -> str:
    """Returns docs/variants.md. Builds every network once, which takes seconds."""
    names = sorted(list_architectures(), key=lambda name: (name[-4:] == "mini", name))
    networks = [get_architecture(name) for name in names]
    blocks = [_blocks(network) for network in networks]
    sizes, parameters = zip(*map(_measure, networks), strict=True)
    initial = [_initial(network) for network in networks]
    sections = [
        "# The networks side by side",
        "Drawn from `keras_alexnet/architectures.py` by "
        "`python -m keras_alexnet.inspect.variants > docs/variants.md`.",
        _table(
            ["name", "what", "input", "parameters"],
            [
                [
                    f"`{network.name}`",
                    network.summary,
                    f"{network.input_size}x{network.input_size}x{network.channels}",
                    f"{sum(counts.values()):,}",
                ]
                for network, counts in zip(networks, parameters, strict=True)
            ],
        ),
        "## Order of operations",
        "`k` and `A` of LRN are those of y = x / (k + A * sum of squares)^0.75 over 5 "
        "channels, and of the spatial norm over 5x5 pixels. Convolutions without "
        '"valid" are padded to keep the size.',
        _compare(names, blocks, _BLOCKS, lambda key: _BLOCKS[key]),
        "## Sizes",
        "Height x width x channels behind each layer.",
        _compare(names, sizes, _in_order(sizes)),
        "## Parameters",
        _compare(names, parameters, _in_order(parameters)),
        "## Initial weights; biases",
        "One number is the standard deviation of normally distributed weights; all "
        "biases of a layer start at one number.",
        _compare(names, initial, _in_order(initial)),
        "## Where sources disagree",
    ]
    for network in networks:
        sections += [f"### {network.name}", _wrap(network.notes)]
    return "\n\n".join(sections) + "\n"


def _blocks(network: Architecture) -> dict[str, str]:
    """The operations of each block, one below the other."""
    blocks: dict[str, list[str]] = {}
    block = "1"
    for spec in network.features + network.top:
        # pool5 belongs to block 5, and so do the flatten and the resize behind it.
        block = spec.name[-1] if spec.name[-1].isdigit() else block
        if spec.layer is not None:
            blocks.setdefault(block, []).append(_describe(spec))
    return {block: "<br>".join(lines) for block, lines in blocks.items()}


def _describe(spec: LayerSpec) -> str:
    options = spec.options
    match spec.layer:
        case "grouped_conv":
            kernel, filters = options["kernel_size"], options["filters"]
            step = f"/{options['strides']}" if options["strides"] > 1 else ""
            valid = " valid" if options["padding"] == "valid" else ""
            groups = f", {options['groups']} groups" if options["groups"] > 1 else ""
            return (
                f"conv {kernel}x{kernel}{step}{valid}, {filters or 'classes'}{groups}"
            )
        case "lrn":
            over_size = options.get("alpha_over_size", False)
            factor = options["alpha"] / (options["size"] if over_size else 1)
            towers = ", per tower" if options.get("groups", 1) > 1 else ""
            return f"LRN k={options['k']:g}, A={factor:g}{towers}"
        case "spatial_response_norm":
            factor = options["alpha"] / options["size"] ** 2
            return f"spatial norm k={options['k']:g}, A={factor:g}"
        case "overlapping_max_pooling":
            up = ", rounding up" if options["rounding"] == "ceil" else ""
            size = options["pool_size"]
            return f"max pool {size}x{size}/{options['strides']}{up}"
        case "zero_padding2d":
            padding = options["padding"]
            if isinstance(padding, int):
                return f"{padding} zeros on each side"
            return f"{padding[0][1]} zeros at bottom and right"
        case "dense":
            return f"dense, {options['units'] or 'classes'}"
        case "relu":
            return "ReLU"
        case "scheduled_dropout":
            return f"dropout {options['rate']}"
        case "classic_dropout":
            return f"dropout {options['rate']}, scaling at test time"
        case "adaptive_average_pooling":
            return "average to {0}x{0}".format(options["output_size"])
        case "global_average_pooling2d":
            return "mean over places"
        case other:
            return other


def _measure(network: Architecture) -> tuple[dict[str, str], dict[str, int]]:
    """Output size and parameters of the layers that have any of their own."""
    model = build(
        dataclasses.replace(
            network,
            features=tuple(map(_start_at_zero, network.features)),
            top=tuple(map(_start_at_zero, network.top)),
        )
    )
    sizes, parameters = {}, {}
    for layer in model.layers:
        if layer.count_params():
            parameters[layer.name] = layer.count_params()
        if layer.count_params() or layer.name.startswith("pool"):
            sizes[layer.name] = "x".join(map(str, layer.output.shape[1:]))
    del model
    keras.backend.clear_session()
    return sizes, parameters


def _start_at_zero(spec: LayerSpec) -> LayerSpec:
    # 60 million random numbers a network would take most of the time.
    if "kernel_initializer" not in spec.options:
        return spec
    options = {**spec.options, "kernel_initializer": "zeros"}
    return dataclasses.replace(spec, options=options)


def _initial(network: Architecture) -> dict[str, str]:
    return {
        spec.name: "; ".join(
            _describe_initial(spec.options[key])
            for key in ("kernel_initializer", "bias_initializer")
        )
        for spec in network.features + network.top
        if "kernel_initializer" in spec.options
    }


def _describe_initial(initial: float | str | tuple) -> str:
    if isinstance(initial, tuple):
        name, *arguments = initial
        return f"{name}({', '.join(map(_describe_initial, arguments))})"
    return initial if isinstance(initial, str) else f"{initial:.3g}"


def _in_order(columns: Iterable[dict[str, object]]) -> list[str]:
    return list(dict.fromkeys(key for column in columns for key in column))


def _compare(
    names: list[str],
    columns: Iterable[dict[str, object]],
    keys: Iterable[str],
    label: Callable[[str], str] = str,
) -> str:
    """A table with a column for each network and a row for each key."""
    columns = list(columns)
    rows = [
        [label(key), *(_cell(column.get(key)) for column in columns)] for key in keys
    ]
    return _table(["", *(f"`{name}`" for name in names)], rows)


def _wrap(text: str) -> str:
    return textwrap.fill(text, 88, break_on_hyphens=False)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value or "")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
