"""`keras-alexnet predict`: classify images."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from keras_alexnet.cli.common import ImagesCommand
from keras_alexnet.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from keras_alexnet.model import AlexNet


@dataclasses.dataclass(frozen=True)
class Predict(ImagesCommand):
    """Print the likeliest classes of images."""

    top: int = 5
    """How many classes to print for each."""
    csv: bool = False
    """Print a line of comma-separated values for each image and class."""
    json: bool = False
    """Print a JSON list with an object for each image."""
    batch_size: int = 32
    """Images per pass."""

    def run(self) -> int:
        """Prints the likeliest classes of images."""
        for name in ("top", "batch_size"):
            if (value := getattr(self, name)) < 1:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} must be at least 1. Received: {value}")
        if self.csv and self.json:
            raise UserError("Give only one of --csv and --json.")
        files = self.files()
        model = self.open()
        failed = 0

        def found() -> Iterator[tuple[str, list[tuple[str, float]]]]:
            nonlocal failed
            names = model.metadata.class_names
            for file, result in self._results(model, files):
                if isinstance(result, str):
                    failed += 1
                    print(f"{file} cannot be read: {result}", file=sys.stderr)
                else:
                    best = result.argsort()[::-1][: self.top]
                    yield file, [(names[i], float(result[i])) for i in best]

        write = _write_csv if self.csv else _write_json if self.json else _write_table
        write(found())
        return 2 if failed else 0

    def _results(
        self, model: AlexNet, files: list[str]
    ) -> Iterator[tuple[str, np.ndarray | str]]:
        """Yields each file's probabilities, or the reason why there are none."""
        from keras_alexnet.features.extraction import image_batches

        remaining, size = iter(files), min(self.batch_size, len(files))
        for images, read in image_batches(
            files, model.metadata.preprocessing, size, "Predicting"
        ):
            # The last batch is filled up.
            for row, why in zip(model.predict_on_batch(images), read, strict=False):
                yield next(remaining), row if why is None else why


def _write_csv(results: Iterator[tuple[str, list[tuple[str, float]]]]) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(("file", "rank", "class", "probability"))
    for file, classes in results:
        for rank, (name, probability) in enumerate(classes, start=1):
            writer.writerow((file, rank, name, probability))


def _write_json(results: Iterator[tuple[str, list[tuple[str, float]]]]) -> None:
    before = "[\n"
    for file, classes in results:
        named = [{"class": name, "probability": value} for name, value in classes]
        print(before, json.dumps({"file": file, "classes": named}), sep="", end="")
        before = ",\n"
    print("[]" if before == "[\n" else "\n]")


def _write_table(results: Iterator[tuple[str, list[tuple[str, float]]]]) -> None:
    from rich.text import Text

    from keras_alexnet.inspect.tables import console, make_table

    table = make_table(None, ("file", "class", ">probability"))
    for file, classes in results:
        for rank, (name, probability) in enumerate(classes):
            # In a pipe each line is read alone.
            label = "" if rank and console.is_terminal else file
            # Text, because brackets in a string would be taken for markup.
            table.add_row(Text(label), Text(name), f"{probability:.2%}")
        table.add_section()
    if table.rows:
        console.print(table)
