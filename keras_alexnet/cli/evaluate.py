"""`keras-alexnet evaluate`: judge a network by labelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from keras_alexnet.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from keras_alexnet.data.dataset import Split
    from keras_alexnet.evaluation import Evaluation


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Print the errors of a network on labelled images, class by class."""

    model: tyro.conf.Positional[str]
    """Directory of the run, or a .keras file."""
    data: str | None = None
    """Images to judge by; by default the run's own test images."""
    split: Literal["train", "val", "test", "all"] | None = None
    """Which of the images, where they come in splits: by default the test split, or the
    validation split where there is no other; all images where they are not split."""
    views: Literal[1, 10] = 1
    """Views of each image: its centre; or corners and centre, and these mirrored."""
    batch_size: int = 128
    """Images per pass."""
    out: str | None = None
    """Where to write evaluation.json and figures/; by default the run's directory, and
    nowhere for a .keras file."""

    def run(self) -> int:
        """Prints and draws what a network makes of labelled images."""
        import numpy as np

        from keras_alexnet.cli.common import run_dataset
        from keras_alexnet.data.opening import open_for_evaluation
        from keras_alexnet.data.pipeline import evaluation_batches
        from keras_alexnet.evaluation import Evaluation, Evaluator, match_classes
        from keras_alexnet.features import load_network
        from keras_alexnet.model import Metadata
        from keras_alexnet.training.run_directory import RunDirectory

        if self.batch_size < 1:
            raise UserError(f"--batch-size must be at least 1. Got {self.batch_size}.")
        run = RunDirectory.open(self.model) if Path(self.model).is_dir() else None
        if run is None and Path(self.model).is_file() and self.data is None:
            raise UserError(
                f"{self.model} has no test images of its own: name some with --data."
            )
        if run is None and not Path(self.model).is_file():
            raise UserError(
                f"{self.model} is not a run directory and not a model file."
            )
        model, preprocessing = load_network(self.model)
        preprocessing = preprocessing.with_image_size(model.inputs[0].shape[1])
        if run is not None:
            metadata = Metadata(class_names=tuple(run.class_names()))
        else:
            metadata = getattr(model, "metadata", Metadata())
        if run is not None and self.data in (None, run.config().data):
            dataset = run_dataset(run).choose(self.split)
        else:
            dataset = open_for_evaluation(
                self.data, split=self.split, channels=preprocessing.channels
            )
        outputs = match_classes(dataset.class_names, metadata)
        evaluator = Evaluator(model, views=self.views, preprocessing=preprocessing)
        parts = list(dataset.splits.values())
        evaluations = [
            evaluator(
                evaluation_batches(
                    part, preprocessing, self.batch_size, whole=self.views == 10
                )
            )
            for part in parts
        ]
        dataset.skipped.print()
        evaluation = Evaluation(
            np.concatenate([one.probabilities for one in evaluations]),
            outputs[np.concatenate([one.labels for one in evaluations])],
        )
        self._print(evaluation, dataset.class_names, outputs)
        if out := self.out or (run and run.path):
            readers = [
                (part, position)
                for part, one in zip(parts, evaluations, strict=True)
                for position in one.positions
            ]
            self._write(Path(out), evaluation, metadata.class_names, readers)
        return 0

    def _print(
        self, evaluation: Evaluation, class_names: Sequence[str], outputs: np.ndarray
    ) -> None:
        """Prints the errors, class by class."""
        from keras_alexnet.inspect.tables import console, make_table

        counts, metrics = evaluation.confusion(), evaluation.metrics()
        rows = []
        for name, output in zip(class_names, outputs, strict=True):
            images, right = counts[output].sum(), counts[output, output]
            error = f"{1 - right / images:.2%}" if images else "-"
            rows.append((name, f"{images:,}", f"{right:,}", error))
        views = "1 view" if self.views == 1 else f"{self.views} views"
        title = f"{len(evaluation.labels):,} images, {views} of each"
        headings = ("class", ">images", ">right", ">error")
        console.print(make_table(title, headings, rows))
        print(
            f"top-1 error {metrics['top1_error']:.2%}, "
            f"top-5 error {metrics['top5_error']:.2%}, loss {metrics['loss']:.4f}"
        )

    def _write(
        self,
        out: Path,
        evaluation: Evaluation,
        class_names: Sequence[str],
        readers: Sequence[tuple[Split, int]],
    ) -> None:
        """Writes evaluation.json, the confusion matrix and the surest mistakes."""
        from keras_alexnet.images.decoding import decode
        from keras_alexnet.inspect import figures
        from keras_alexnet.training.run_directory import RunDirectory

        directory = out / "figures"
        directory.mkdir(parents=True, exist_ok=True)
        counts = evaluation.confusion()
        figures.confusion(counts, class_names, directory / "confusion.png")
        print(f"Confusion matrix: {directory / 'confusion.png'}")
        if len(mistakes := evaluation.mistakes(18)):
            pictures = [readers[index] for index in mistakes]
            figures.predictions(
                [
                    decode(part.file(int(position)), channels=3).numpy()
                    for part, position in pictures
                ],
                evaluation.probabilities[mistakes],
                evaluation.labels[mistakes],
                class_names,
                directory / "mistakes.png",
            )
            print(f"Most confident mistakes: {directory / 'mistakes.png'}")
        values = {**evaluation.metrics(), "views": self.views, "data": self.data}
        RunDirectory(out).write_json(
            "evaluation.json", {**values, "confusion": counts.tolist()}
        )
