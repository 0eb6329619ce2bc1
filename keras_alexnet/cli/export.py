"""`keras-alexnet export`: write a model for programs without this package."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from keras_alexnet.cli.common import ClassifierCommand, run_dataset
from keras_alexnet.errors import UserError

if TYPE_CHECKING:
    from keras_alexnet.export.artefact import Format
    from keras_alexnet.export.comparison import Example
    from keras_alexnet.model import AlexNet

# By how many images int8 is calibrated, at most.
CALIBRATED = 200


@dataclasses.dataclass(frozen=True)
class Export(ClassifierCommand):
    """Write a network with its preprocessing for programs without this package."""

    format: Literal["savedmodel", "keras", "onnx", "litert", "openvino"] = "savedmodel"
    """What to write. onnx and openvino need extras of this package's."""
    precision: Literal["float32", "float16", "bfloat16", "int8"] | None = None
    """What weights are kept and numbers computed in, where the format can; by default
    as the network does for savedmodel and keras, and float32 for others."""
    calibration_data: str | None = None
    """Images from which int8 learns the range of activations; by default the run's
    training images."""
    max_loss: float = 1.0
    """How much top-1 accuracy may be lost on the images that exports are compared by,
    in percentage points; more is an error, and nothing is written."""
    out: str | None = None
    """Directory to write; by default export/ in the run's directory, or export-FORMAT/
    for formats other than savedmodel."""
    overwrite: bool = False
    """Replace an earlier export."""
    data: str | None = None
    """Images to compare the export with the network by; by default the run's test
    images, or noise where there are none."""
    images: int = 500
    """How many images to compare them by, at most."""

    def run(self) -> int:
        """Exports the network, and compares the export with it."""
        if self.out is None and not Path(self.network).is_dir():
            raise UserError(f"{self.network} is not a run's directory: give --out.")
        if self.images < 1:
            raise UserError(f"--images must be at least 1. Received: {self.images}")
        suffix = "" if self.format == "savedmodel" else f"-{self.format}"
        path = Path(self.out or Path(self.network, f"export{suffix}"))

        from keras_alexnet.export.artefact import check_target, in_precision
        from keras_alexnet.export.formats import get_format

        check_target(path, overwrite=self.overwrite)
        kind = get_format(self.format, self.precision)
        precision = self.precision or kind.precisions[0]
        if precision not in kind.precisions:
            known = ", ".join(filter(None, kind.precisions))
            raise UserError(
                f"{self.format} can be written in {known}. Received: "
                f"--precision {precision}"
            )
        if precision == "int8" and not self.calibration_data:
            if not Path(self.network).is_dir():
                raise UserError(
                    f"{self.network} has no training images to calibrate int8 by: name "
                    "some with --calibration-data."
                )
        model = self.open()
        if precision is not None:
            model = in_precision(model, "float32")
        self._export(kind, precision, model, path)
        return 0

    def _export(
        self, kind: Format, precision: str | None, model: AlexNet, path: Path
    ) -> None:
        """Writes, compares and describes an export, all or nothing."""
        from keras_alexnet.export.artefact import size_of, write_companions
        from keras_alexnet.export.comparison import compare, make_comparison_table
        from keras_alexnet.files import replacing_directory
        from keras_alexnet.inspect.tables import console

        examples, what = self._test_images(model)
        calibration = self._calibration(model) if precision == "int8" else ()
        with replacing_directory(path) as partial:
            partial.mkdir()
            kind.write(model, partial, precision, calibration)
            size = size_of(partial)
            run = kind.open(partial)
            found = compare(run, model, examples, any_size=kind.any_size)
            if found.lost is not None and 100 * found.lost > self.max_loss:
                raise UserError(
                    f"The export loses {100 * found.lost:.2f} points of top-1 accuracy "
                    f"on {found.images} images, more than --max-loss "
                    f"{self.max_loss:g}. Nothing was written."
                )
            name = f"{self.format}, {precision or 'own precision'}"
            measured = (
                f"Precision: {precision or model.compute_dtype}. On {found.images} "
                f"{what} the largest difference from the model's probabilities is "
                f"{found.difference:.1e}, and {found.agreement:.2%} of the likeliest "
                "classes are the same."
            )
            write_companions(partial, model, f"{kind.about}\n\n{measured}")
        console.print(make_comparison_table(name, size, found))
        print(f"Exported to {path}, compared with the model on {found.images} {what}.")

    def _calibration(self, model: AlexNet) -> list[Example]:
        """Returns images to calibrate by."""
        spec = self.calibration_data
        if examples := list(self._read(spec, "train", model, CALIBRATED)):
            return examples
        raise UserError(f"{spec or self.network} holds no images to calibrate int8 by.")

    def _test_images(self, model: AlexNet) -> tuple[Iterator[Example], str]:
        """Returns what to compare by, and what it shows."""
        from keras_alexnet.export.comparison import noise

        if self.data or Path(self.network).is_dir():
            # A run's images may be elsewhere by now: no reason not to export.
            elsewhere = () if self.data else (UserError, OSError)
            with contextlib.suppress(*elsewhere):
                examples = self._read(self.data, "test", model, self.images)
                # Damaged ones are not what this is about.
                if first := list(itertools.islice(examples, 1)):
                    return itertools.chain(first, examples), "images"
        return noise(model.metadata.preprocessing), "images of noise"

    def _read(
        self, spec: str | None, split: str, model: AlexNet, count: int
    ) -> Iterator[Example]:
        """Reads images of a dataset or of the run, with classes if they are known."""
        from keras_alexnet.data.opening import open_for_evaluation
        from keras_alexnet.evaluation import match_classes
        from keras_alexnet.export.comparison import read_examples
        from keras_alexnet.training.run_directory import RunDirectory

        preprocessing = model.metadata.preprocessing
        if spec:
            which = "all" if split == "train" else None
            channels = preprocessing.channels
            dataset = open_for_evaluation(spec, split=which, channels=channels)
        else:
            dataset = run_dataset(RunDirectory.open(self.network)).choose(split)
        outputs: Sequence[int] | None = None
        with contextlib.suppress(UserError):
            outputs = match_classes(dataset.class_names, model.metadata)
        parts = (
            read_examples(split, preprocessing, count, outputs)
            for split in dataset.splits.values()
        )
        return itertools.islice(itertools.chain.from_iterable(parts), count)
