"""List what there is to choose from."""

from __future__ import annotations

from rich.table import Table

from keras_alexnet import cli
from keras_alexnet.architectures import get_architecture, list_architectures
from keras_alexnet.cli.common import console
from keras_alexnet.registry import get_layer, list_layers, plugin_errors
from keras_alexnet.training.recipes import RECIPES


def run(command: cli.List) -> int:
    """Prints what there is to choose from."""
    if command.kind in ("all", "architectures"):
        table = Table(title="architectures")
        for heading in ("name", "input", "what"):
            table.add_column(heading)
        for name in list_architectures():
            architecture = get_architecture(name)
            size = architecture.input_size
            table.add_row(
                name, f"{size}x{size}x{architecture.channels}", architecture.summary
            )
        console.print(table)
    if command.kind in ("all", "layers"):
        table = Table(title="layers (besides every class of keras.layers)")
        for heading in ("name", "class"):
            table.add_column(heading)
        for name in list_layers():
            layer = get_layer(name)
            table.add_row(name, f"{layer.__module__}.{layer.__name__}")
        console.print(table)
        for name, error in plugin_errors().items():
            message = (
                f"The plugin {name} failed to load: {type(error).__name__}: {error}"
            )
            console.print(message, style="red", markup=False)
    if command.kind in ("all", "recipes"):
        table = Table(title="recipes")
        for heading in ("name", "settings"):
            table.add_column(heading)
        for name, settings in RECIPES.items():
            text = ", ".join(f"{key} {value}" for key, value in settings.items())
            table.add_row(name, text)
        console.print(table)
    return 0
