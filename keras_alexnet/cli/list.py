"""`keras-alexnet list`: list what there is to choose from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

import tyro


@dataclasses.dataclass(frozen=True)
class List:
    """List architectures, published weights, layers, recipes, and failed plugins."""

    kind: tyro.conf.Positional[
        Literal["all", "architectures", "weights", "layers", "recipes"]
    ] = "all"
    """What to list."""

    def run(self) -> int:
        """Prints what there is to choose from."""
        from keras_alexnet.inspect.tables import console, make_table
        from keras_alexnet.registry import plugin_errors

        kinds = (*TABLES,) if self.kind == "all" else (self.kind,)
        for kind in kinds:
            title, headings, rows = TABLES[kind]
            console.print(make_table(title, headings, rows()))
        if "layers" in kinds:
            for name, error in plugin_errors().items():
                message = f"{type(error).__name__}: {error}"
                message = f"The plugin {name} failed to load: {message}"
                console.print(message, style="red", markup=False)
        return 0


def _architectures() -> Iterator[tuple[str, ...]]:
    from keras_alexnet.architectures import get_architecture, list_architectures

    for one in map(get_architecture, list_architectures()):
        size = f"{one.input_size}x{one.input_size}x{one.channels}"
        yield one.name, size, one.summary


def _weights() -> Iterator[tuple[str, ...]]:
    from keras_alexnet.weights.catalog import get_published, list_weights

    for one in map(get_published, list_weights()):
        if one.architecture:
            error = f"{one.top1_error:.1%}" if one.top1_error else ""
            yield one.name, one.architecture, error, one.source


def _layers() -> Iterator[tuple[str, ...]]:
    from keras_alexnet.registry import get_layer, list_layers

    for name in list_layers():
        layer = get_layer(name)
        yield name, f"{layer.__module__}.{layer.__name__}"


def _recipes() -> Iterator[tuple[str, ...]]:
    from keras_alexnet.training.recipes import RECIPES

    for name, settings in RECIPES.items():
        yield name, ", ".join(f"{key} {value}" for key, value in settings.items())


# Title, headings and rows of what there is.
TABLES = {
    "architectures": ("architectures", ("name", "input", "what"), _architectures),
    "weights": (
        "published weights, fetched when they are first used",
        ("name", "architecture", ">top-1 error", "source"),
        _weights,
    ),
    "layers": (
        "layers (besides every class of keras.layers)",
        ("name", "class"),
        _layers,
    ),
    "recipes": ("recipes", ("name", "settings"), _recipes),
}
