"""Name what image files show."""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf
from rich.table import Table
from rich.text import Text

from keras_alexnet import cli
from keras_alexnet.cli.common import console
from keras_alexnet.data.skipped import reason
from keras_alexnet.errors import UserError
from keras_alexnet.training.run_directory import RunDirectory


def run(command: cli.Predict) -> int:
    """Prints the likeliest classes of image files."""
    run = RunDirectory.open(command.run)
    if not command.files:
        raise UserError("No image files were given.")
    if command.top < 1:
        raise UserError(f"--top must be at least 1. Received: {command.top}")
    model, preprocessing, names = run.model(), run.preprocessing(), run.class_names()
    table = Table()
    for heading in ("file", "class", "probability"):
        table.add_column(heading, justify="right" if heading == "probability" else None)
    failed = 0
    for file in command.files:
        try:
            image = preprocessing.decode(tf.io.read_file(file))
        except tf.errors.OpError as error:
            failed += 1
            print(f"{file} cannot be read: {reason(error)}", file=sys.stderr)
            continue
        image = preprocessing.prepare(image)
        row = model.predict_on_batch(preprocessing.normalize(image)[None])[0]
        for place, best in enumerate(np.argsort(row)[::-1][: command.top]):
            # Text, because brackets in a string would be taken for markup.
            name = Text("" if place else file), Text(names[best])
            table.add_row(*name, f"{row[best]:.2%}")
        table.add_section()
    if failed < len(command.files):
        console.print(table)
    return 2 if failed else 0
