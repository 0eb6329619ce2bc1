"""`keras-alexnet export`: write a model for programs without this package."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import tyro

from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the model of a run in a form that needs nothing of this package."""

    run_dir: tyro.conf.Positional[str]
    """Directory of the run."""
    out: str | None = None
    """Where to write; by default export/ in the run's directory."""

    def run(self) -> int:
        """Exports a run's model and compares the export with it."""
        import numpy as np
        import tensorflow as tf

        from keras_alexnet.cli.common import run_dataset
        from keras_alexnet.export.saved_model import (
            export_saved_model,
            largest_difference,
        )
        from keras_alexnet.images.limits import checked
        from keras_alexnet.networks import open_network
        from keras_alexnet.training.run_directory import RunDirectory

        run = RunDirectory.open(self.run_dir)
        model, preprocessing = open_network(run.path), run.preprocessing()
        path = self.out or str(run / "export")
        examples = run_dataset(run).test
        Path(path).mkdir(parents=True, exist_ok=True)
        export_saved_model(model, path, preprocessing, run.class_names())
        images = []
        for index in range(len(examples)):
            # Damaged ones are not what this is about.
            with contextlib.suppress(tf.errors.OpError):
                image = preprocessing.decode(checked(examples.file(index)))
                images.append(preprocessing.prepare(image))
            if len(images) == 16:
                break
        if not images:
            raise UserError(
                "None of the test images can be read, to compare the export."
            )
        difference = largest_difference(path, model, preprocessing, np.stack(images))
        print(
            f"Exported to {path}. On {len(images)} test images its probabilities "
            f"differ from the model's by at most {difference:.1e}."
        )
        return 0
