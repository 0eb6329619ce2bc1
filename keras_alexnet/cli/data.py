"""`keras-alexnet data`: inspect, check and convert a dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from keras_alexnet.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from keras_alexnet.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Data:
    """Say which images a source holds; check, measure, draw or write them anew."""

    source: tyro.conf.Positional[str]
    """Images, as train takes them: digits, folder:PATH, csv:FILE, tfrecord:FILES,
    decoded:FOLDER, tfds:NAME."""
    check: bool = False
    """Decode every image, and name those that are damaged."""
    measure: str | None = None
    """Measure mean colour, mean image and colour axes of the training images, and write
    them as this JSON file."""
    contact_sheet: str | None = None
    """Draw some images of some classes, as this PNG file."""
    to_tfrecord: str | None = None
    """Write all images as TFRecord files into this directory; continues where it was
    stopped."""
    decoded: int | None = None
    """Write images decoded and resized to this height and width, as bytes that need no
    decoding in training: 256 for ImageNet, which takes 250 GB then."""
    shards: int | None = None
    """How many files of training images to write; by default 1,250 images in each."""
    test_fraction: float = 0.2
    """Share of each class that is kept for testing, where the data are not split."""
    validation_fraction: float = 0.0
    """The same for validation, of the training images that are left."""
    seed: int = 0
    """Seed of these splits."""

    def run(self) -> int:
        """Prints what a source of images holds, and does with it what is asked for."""
        from keras_alexnet.data import report
        from keras_alexnet.data.opening import open_dataset
        from keras_alexnet.data.shards import write_shards
        from keras_alexnet.inspect.figures import contact_sheet

        if not 0 <= self.test_fraction < 1:
            raise UserError(
                f"--test-fraction must be in [0, 1). Received: {self.test_fraction}"
            )
        for name in ("shards", "decoded"):
            if getattr(self, name) is not None and self.to_tfrecord is None:
                raise UserError(f"--{name} says how --to-tfrecord writes; give both.")
        if self.decoded is not None and self.decoded < 1:
            raise UserError(f"--decoded must be positive. Received: {self.decoded}")
        source = open_dataset(
            self.source,
            seed=self.seed,
            test_fraction=self.test_fraction,
            validation_fraction=self.validation_fraction,
        )
        labels = {k: report.read_labels(split) for k, split in source.splits.items()}
        self._print_summary(source, labels)
        if self.contact_sheet:
            rows = report.sample_images(
                source.train, labels["train"], source.class_names
            )
            contact_sheet(rows, report.IMAGES_SHOWN, Path(self.contact_sheet))
            print(f"Contact sheet: {self.contact_sheet}")
        if self.check:
            report.check_images(source)
            damaged = source.skipped.damaged
            print(f"{source.total:,} images checked, {damaged:,} damaged.")
        if self.measure:
            self._measure(source)
        if self.to_tfrecord:
            write_shards(source, Path(self.to_tfrecord), self.shards, self.decoded)
            kind = "tfrecord" if self.decoded is None else "decoded"
            print(f"Written. Use it as {kind}:{self.to_tfrecord}")
        source.skipped.print()
        return 0

    def _print_summary(self, source: Dataset, labels: dict[str, np.ndarray]) -> None:
        """Prints the images of each class, and how large they are."""
        import numpy as np

        from keras_alexnet.data.report import measure_sizes
        from keras_alexnet.inspect.tables import console, make_table

        names = source.class_names
        counts = [
            np.bincount(own[own >= 0], minlength=len(names)) for own in labels.values()
        ]
        headings = {"train": "training", "validation": "validation", "test": "test"}
        table = make_table(
            f"{self.source}: {len(names):,} classes",
            ("class", *(f">{headings[name]} images" for name in source.splits)),
            (
                (name, *(f"{number:,}" for number in numbers))
                for name, *numbers in zip(names, *counts, strict=True)
            ),
        )
        table.add_section()
        table.add_row("all", *(f"{count.sum():,}" for count in counts))
        console.print(table)
        if sizes := measure_sizes(source.train):
            print(
                "Width x height: {} x {} to {} x {}, in the middle {} x {} "
                "({:,} images measured).".format(
                    *sizes[0], *sizes[-1], *sizes[len(sizes) // 2], len(sizes)
                )
            )

    def _measure(self, source: Dataset) -> None:
        """Measures training images as the 2012 network sees them, before its crop."""
        from keras_alexnet.data.measure import measure
        from keras_alexnet.files import write_whole
        from keras_alexnet.images.preprocessing import MODES

        preprocessing = dataclasses.replace(
            MODES["none"], channels=source.channels, mean=(0.0,) * source.channels
        )
        statistics = measure(source.train, preprocessing, seed=self.seed)
        for line in statistics.lines():
            print(line)
        write_whole(Path(self.measure), statistics.to_json())
        print(f"Measured: {self.measure}")
