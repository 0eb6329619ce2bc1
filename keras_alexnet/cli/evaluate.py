"""`keras-alexnet evaluate`: measure a network's errors on labelled images."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from keras_alexnet.cli.common import ClassifierCommand, evaluation_dataset
from keras_alexnet.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from keras_alexnet.data.dataset import Split
    from keras_alexnet.evaluation import Evaluation


@dataclasses.dataclass(frozen=True)
class Evaluate(ClassifierCommand):
    """Print the errors of a network on labelled images, class by class."""

    data: str | None = None
    """Images to evaluate on, as train takes them; by default the run's test images."""
    split: Literal["train", "val", "test", "all"] | None = None
    """Which of the images, where they come in splits: by default the test split, or the
    validation split where there is no other; all images where they are not split."""
    views: Literal[1, 10] = 1
    """Views of each image: its centre; or corners and centre, and these mirrored."""
    batch_size: int = 128
    """Images per pass."""
    csv: bool = False
    """Print a line of comma-separated values for each image; everything else goes to
    standard error."""
    out: str | None = None
    """Where to write evaluation.json, predictions.csv and figures/; by default the
    run's directory, and nowhere for a network that is no run."""

    def run(self) -> int:
        """Prints and draws what a network makes of labelled images."""
        if self.batch_size < 1:
            raise UserError(
                f"--batch-size must be at least 1. Received: {self.batch_size}"
            )
        in_run = Path(self.network).is_dir()
        if not in_run and self.data is None:
            raise UserError(
                f"{self.network} has no test images of its own: name some with --data."
            )
        import numpy as np

        from keras_alexnet.data.pipeline import evaluation_batches
        from keras_alexnet.evaluation import Evaluation, Evaluator, match_classes

        model = self.open()
        preprocessing = model.metadata.preprocessing
        dataset = evaluation_dataset(self.network, self.data, preprocessing.channels)
        dataset = dataset.choose(self.split)
        outputs = match_classes(dataset.class_names, model.metadata)
        evaluator = Evaluator(model, views=self.views, preprocessing=preprocessing)
        splits = list(dataset.splits.values())
        whole = self.views == 10
        evaluations = [
            evaluator(
                evaluation_batches(split, preprocessing, self.batch_size, whole=whole)
            )
            for split in splits
        ]
        evaluation = Evaluation(
            np.concatenate([one.probabilities for one in evaluations]),
            outputs[np.concatenate([one.labels for one in evaluations])],
        )
        images = [
            (split, int(index))
            for split, one in zip(splits, evaluations, strict=True)
            for index in one.positions
        ]
        names = model.metadata.class_names
        if self.csv:
            print(_lines(evaluation, names, images), end="")
        with contextlib.redirect_stdout(sys.stderr if self.csv else sys.stdout):
            dataset.skipped.print()
            self._print(evaluation, dataset.class_names, outputs)
            self._write(evaluation, names, images)
        return 0

    def _print(
        self, evaluation: Evaluation, class_names: Sequence[str], outputs: np.ndarray
    ) -> None:
        """Prints recall, precision and F1 of each class, and the errors of all."""
        from keras_alexnet.inspect.tables import console, make_table

        scores = evaluation.by_class()
        metrics = {**evaluation.metrics(), **evaluation.balanced_metrics()}
        rows = []
        for name, output in zip(class_names, outputs, strict=True):
            values = [scores[one][output] for one in ("recall", "precision", "f1")]
            cells = ["-" if value != value else f"{value:.2%}" for value in values]
            rows.append((name, f"{scores['images'][output]:,}", *cells))
        views = "1 view" if self.views == 1 else f"{self.views} views"
        title = f"{len(evaluation.labels):,} images, {views} of each"
        headings = ("class", ">images", ">recall", ">precision", ">F1")
        console.print(make_table(title, headings, rows))
        print(
            f"top-1 error {metrics['top1_error']:.2%}, "
            f"top-5 error {metrics['top5_error']:.2%}, loss {metrics['loss']:.4f}\n"
            f"balanced accuracy {metrics['balanced_accuracy']:.2%}, "
            f"macro F1 {metrics['macro_f1']:.2%}"
        )
        never = set(evaluation.never_predicted().tolist())
        named = [
            name
            for name, output in zip(class_names, outputs, strict=True)
            if int(output) in never
        ]
        if named:
            more = f" and {len(named) - 10} others" if len(named) > 10 else ""
            print(f"Warning: never predicted: {', '.join(named[:10])}{more}")

    def _write(
        self,
        evaluation: Evaluation,
        class_names: Sequence[str],
        images: Sequence[tuple[Split, int]],
    ) -> None:
        """Writes the results, a line per image, and pictures of the mistakes."""
        from keras_alexnet.files import write_whole
        from keras_alexnet.images.decoding import decode
        from keras_alexnet.inspect import figures
        from keras_alexnet.training.run_directory import RunDirectory

        if self.out is None and not Path(self.network).is_dir():
            return
        out = Path(self.out or self.network)
        counts, directory = evaluation.confusion(), out / "figures"
        figures.confusion(counts, class_names, directory / "confusion.png")
        print(f"Confusion matrix: {directory / 'confusion.png'}")
        if len(mistakes := evaluation.mistakes(18)):
            figures.predictions(
                [
                    decode(split.file(index), channels=3).numpy()
                    for split, index in (images[mistake] for mistake in mistakes)
                ],
                evaluation.probabilities[mistakes],
                evaluation.labels[mistakes],
                class_names,
                directory / "mistakes.png",
            )
            print(f"Most confident mistakes: {directory / 'mistakes.png'}")
        # As file names are, which need not be UTF-8.
        lines = os.fsencode(_lines(evaluation, class_names, images))
        write_whole(out / "predictions.csv", lines)
        scores = {
            name: values.tolist() for name, values in evaluation.by_class().items()
        }
        classes = [
            # JSON has no NaN.
            {
                "class": name,
                **{k: v[n] if v[n] == v[n] else None for k, v in scores.items()},
            }
            for n, name in enumerate(class_names)
        ]
        values = {
            **evaluation.metrics(),
            **evaluation.balanced_metrics(),
            "views": self.views,
            "data": self.data,
            "classes": classes,
            "confusion": counts.tolist(),
        }
        RunDirectory(out).write_json("evaluation.json", values)


def _lines(
    evaluation: Evaluation,
    class_names: Sequence[str],
    images: Sequence[tuple[Split, int]],
) -> str:
    """Returns comma-separated values of each image: its class, and the likeliest."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("image", "class", "predicted", "probability"))
    best, rows = evaluation.predictions, evaluation.probabilities
    for number, (split, index) in enumerate(images):
        label, found = evaluation.labels[number], best[number]
        names = (split.name(index), class_names[label], class_names[found])
        lines.writerow((*names, f"{rows[number, found]:.6f}"))
    return text.getvalue()
