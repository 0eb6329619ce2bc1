"""`keras-alexnet list`: list what there is to choose from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import tyro

if TYPE_CHECKING:
    from rich.table import Table


@dataclasses.dataclass(frozen=True)
class List:
    """List architectures, published weights, layers, recipes, and failed plugins."""

    kind: tyro.conf.Positional[
        Literal["all", "architectures", "weights", "layers", "recipes"]
    ] = "all"
    """What to list."""

    def run(self) -> int:
        """Prints what there is to choose from."""
        from keras_alexnet.inspect.tables import console
        from keras_alexnet.registry import plugin_errors

        tables = {
            "architectures": _architectures,
            "weights": _weights,
            "layers": _layers,
            "recipes": _recipes,
        }
        kinds = list(tables) if self.kind == "all" else [self.kind]
        for kind in kinds:
            console.print(tables[kind]())
        if "layers" in kinds:
            for name, error in plugin_errors().items():
                message = f"{type(error).__name__}: {error}"
                message = f"The plugin {name} failed to load: {message}"
                console.print(message, style="red", markup=False)
        return 0


def _architectures() -> Table:
    from keras_alexnet.architectures import get_architecture, list_architectures
    from keras_alexnet.inspect.tables import make_table

    rows = (
        (one.name, f"{one.input_size}x{one.input_size}x{one.channels}", one.summary)
        for one in map(get_architecture, list_architectures())
    )
    return make_table("architectures", ("name", "input", "what"), rows)


def _weights() -> Table:
    from keras_alexnet.inspect.tables import make_table
    from keras_alexnet.weights.catalog import get_published, list_weights

    files = map(get_published, list_weights())
    rows = (
        (
            one.name,
            one.architecture,
            f"{one.top1_error:.1%}" if one.top1_error else "",
            one.source,
        )
        for one in files
        if one.architecture
    )
    title = "published weights, fetched when they are first used"
    headings = ("name", "architecture", ">top-1 error", "source")
    return make_table(title, headings, rows)


def _layers() -> Table:
    from keras_alexnet.inspect.tables import make_table
    from keras_alexnet.registry import get_layer, list_layers

    layers = {name: get_layer(name) for name in list_layers()}
    rows = (
        (name, f"{layer.__module__}.{layer.__name__}") for name, layer in layers.items()
    )
    title = "layers (besides every class of keras.layers)"
    return make_table(title, ("name", "class"), rows)


def _recipes() -> Table:
    from keras_alexnet.inspect.tables import make_table
    from keras_alexnet.training.recipes import RECIPES

    rows = (
        (name, ", ".join(f"{key} {value}" for key, value in settings.items()))
        for name, settings in RECIPES.items()
    )
    return make_table("recipes", ("name", "settings"), rows)
