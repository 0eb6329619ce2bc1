"""`keras-alexnet predict`: name what image files show."""

from __future__ import annotations

import dataclasses
import sys

import tyro

from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Predict:
    """Print the likeliest classes of image files."""

    run_dir: tyro.conf.Positional[str]
    """Directory of the run."""
    files: tyro.conf.Positional[tuple[str, ...]]
    """JPEG, PNG, GIF or BMP files."""
    top: int = 5
    """How many classes to print for each."""

    def run(self) -> int:
        """Prints the likeliest classes of image files."""
        import numpy as np
        import tensorflow as tf
        from rich.text import Text

        from keras_alexnet.data.skipped import reason
        from keras_alexnet.inspect.tables import console, make_table
        from keras_alexnet.networks import open_network
        from keras_alexnet.training.run_directory import RunDirectory

        run = RunDirectory.open(self.run_dir)
        if not self.files:
            raise UserError("No image files were given.")
        if self.top < 1:
            raise UserError(f"--top must be at least 1. Received: {self.top}")
        model, preprocessing = open_network(run.path), run.preprocessing()
        names = run.class_names()
        table = make_table(None, ("file", "class", ">probability"))
        failed = 0
        for file in self.files:
            try:
                image = preprocessing.decode(tf.io.read_file(file))
            except tf.errors.OpError as error:
                failed += 1
                print(f"{file} cannot be read: {reason(error)}", file=sys.stderr)
                continue
            image = preprocessing.prepare(image)
            row = model.predict_on_batch(preprocessing.normalize(image)[None])[0]
            for place, best in enumerate(np.argsort(row)[::-1][: self.top]):
                name = Text("" if place else file), Text(names[best])
                table.add_row(*name, f"{row[best]:.2%}")
            table.add_section()
        if failed < len(self.files):
            console.print(table)
        return 2 if failed else 0
