"""Write what layers make of images."""

from __future__ import annotations

import sys

from rich.table import Table

from keras_alexnet import cli
from keras_alexnet.cli.common import console
from keras_alexnet.features import extract_features, load_network


def run(command: cli.Features) -> int:
    """Writes the features of a folder of images."""
    model, preprocessing = load_network(command.model, command.preprocessing)
    extraction = extract_features(
        model,
        preprocessing,
        command.folder,
        command.layers,
        command.out,
        batch_size=command.batch_size,
    )
    for file, why in extraction.skipped:
        print(f"{file} cannot be read and is left out: {why}", file=sys.stderr)
    table = Table(title=f"{command.out}: {len(extraction.files):,} images")
    table.add_column("layer")
    table.add_column("features of an image")
    for layer, shape in extraction.shapes.items():
        table.add_row(layer, " x ".join(map(str, shape)))
    console.print(table)
    return 0
