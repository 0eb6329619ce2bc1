"""`keras-alexnet features`: write what layers make of images."""

from __future__ import annotations

import dataclasses
import sys

import tyro

from keras_alexnet.cli.common import NetworkCommand


@dataclasses.dataclass(frozen=True)
class Features(NetworkCommand):
    """Write what layers make of each image in a folder, as NumPy arrays."""

    folder: tyro.conf.Positional[str]
    """Images, in sub-folders too."""
    layers: tuple[str, ...] = ("fc7",)
    """Names of layers, such as relu5 or fc7; torchvision's where they fit."""
    out: str = "features.npz"
    """The file to write."""
    batch_size: int = 32
    """Images per pass."""

    def run(self) -> int:
        """Writes the features of a folder of images."""
        from keras_alexnet.features import extract_features
        from keras_alexnet.inspect.tables import console, make_table

        model = self.open()
        extraction = extract_features(
            model,
            model.metadata.preprocessing,
            self.folder,
            self.layers,
            self.out,
            batch_size=self.batch_size,
        )
        for file, why in extraction.skipped:
            print(f"{file} cannot be read and is left out: {why}", file=sys.stderr)
        rows = (
            (layer, " x ".join(map(str, shape)))
            for layer, shape in extraction.shapes.items()
        )
        title = f"{self.out}: {len(extraction.files):,} images"
        console.print(make_table(title, ("layer", "features of an image"), rows))
        return 0
