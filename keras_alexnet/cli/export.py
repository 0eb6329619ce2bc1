"""`keras-alexnet export`: write a model for programs without this package."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from keras_alexnet.cli.common import ClassifierCommand, run_dataset
from keras_alexnet.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from keras_alexnet.images.preprocessing import Preprocessing

# By how many images the export and the network are compared.
COMPARED = 16


@dataclasses.dataclass(frozen=True)
class Export(ClassifierCommand):
    """Write a network as a SavedModel, which needs nothing of this package."""

    out: str | None = None
    """Directory to write; by default export/ in the run's directory."""
    overwrite: bool = False
    """Replace an earlier export."""
    data: str | None = None
    """Images to compare the export with the network by; by default the run's test
    images, or noise where there are none."""

    def run(self) -> int:
        """Exports the network, and compares the export with it."""
        if self.out is None and not Path(self.network).is_dir():
            raise UserError(f"{self.network} is not a run's directory: give --out.")
        path = Path(self.out) if self.out else Path(self.network, "export")

        from keras_alexnet.export.saved_model import (
            check_target,
            export_saved_model,
            largest_difference,
        )
        from keras_alexnet.files import replacing_directory

        check_target(path, overwrite=self.overwrite)
        model = self.open()
        preprocessing = model.metadata.preprocessing
        images, what = self._images(preprocessing)
        with replacing_directory(path) as partial:
            names = model.metadata.class_names
            export_saved_model(model, partial, preprocessing, names)
            difference = largest_difference(partial, model, preprocessing, images)
        print(
            f"Exported to {path}. On {len(images)} {what} its probabilities differ "
            f"from the model's by at most {difference:.1e}."
        )
        return 0

    def _images(self, preprocessing: Preprocessing) -> tuple[np.ndarray, str]:
        """Returns pixels as large as the network's input, and what they show."""
        import numpy as np
        import tensorflow as tf

        from keras_alexnet.data.opening import open_for_evaluation
        from keras_alexnet.training.run_directory import RunDirectory

        splits, images = (), []
        channels = preprocessing.channels
        if self.data:
            splits = open_for_evaluation(self.data, channels=channels).splits.values()
        elif Path(self.network).is_dir():
            # Its images may be elsewhere by now: that is no reason not to export.
            with contextlib.suppress(UserError, OSError):
                splits = (run_dataset(RunDirectory.open(self.network)).test,)
        for split in splits:
            for index in range(len(split)):
                if len(images) == COMPARED:
                    return np.stack(images), "images"
                # Damaged ones are not what this is about.
                with contextlib.suppress(tf.errors.OpError):
                    image = preprocessing.decode(split.file(index))
                    images.append(preprocessing.prepare(image))
        if images:
            return np.stack(images), "images"
        side = preprocessing.image_size
        noise = np.random.default_rng(0)
        shape = (COMPARED, side, side, channels)
        return noise.integers(0, 256, shape, "uint8"), "images of noise"
