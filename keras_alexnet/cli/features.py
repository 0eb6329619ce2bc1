"""`keras-alexnet features`: write what layers make of images."""

from __future__ import annotations

import dataclasses
import sys

import tyro

from keras_alexnet.cli.common import NetworkCommand


@dataclasses.dataclass(frozen=True)
class Features(NetworkCommand):
    """Write what layers make of each image, as NumPy arrays or HDF5."""

    images: tyro.conf.Positional[str]
    """A folder of images, in sub-folders too; or a CSV file that lists some in its
    column path, relative to the file: their order and all columns are kept."""
    layers: tuple[str, ...] = ("fc7",)
    """Names of layers, such as relu5 or fc7; torchvision's where they fit."""
    out: str = "features.npz"
    """The file to write: .npz, .h5, or .npy for a single layer. Beside it, OUT.csv
    lists the images and OUT.json what was used."""
    reduce: str | None = None
    """To fewer numbers for each image and layer: pca(100), the first principal
    components; projection(1000), a sparse random projection."""
    seed: int = 0
    """Decides the random projection."""
    batch_size: int = 64
    """Images per pass."""

    def run(self) -> int:
        """Writes the features of images."""
        from keras_alexnet.features.extraction import extract_features, parse_reduction
        from keras_alexnet.inspect.tables import console, make_table

        if self.reduce:
            # A mistake is said before the network is read.
            parse_reduction(self.reduce)
        model = self.open()
        extraction = extract_features(
            model,
            model.metadata.preprocessing,
            self.images,
            self.layers,
            self.out,
            batch_size=self.batch_size,
            reduce=self.reduce,
            seed=self.seed,
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
