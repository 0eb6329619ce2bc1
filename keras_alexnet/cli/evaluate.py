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

from keras_alexnet.cli.common import ClassifierCommand
from keras_alexnet.errors import UserError

if TYPE_CHECKING:
    from keras_alexnet.data.dataset import Dataset, Split
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
        if self.data is None and not Path(self.network).is_dir():
            raise UserError(
                f"{self.network} has no test images of its own: name some with --data."
            )
        from keras_alexnet.evaluation import evaluate_dataset, match_classes
        from keras_alexnet.files import write_whole

        model = self.open()
        dataset = self._dataset(model.metadata.preprocessing.channels)
        evaluation, images = evaluate_dataset(
            model, dataset, views=self.views, batch_size=self.batch_size
        )
        names = model.metadata.class_names
        lines = _lines(evaluation, names, images)
        if self.csv:
            print(lines, end="")
        with contextlib.redirect_stdout(sys.stderr if self.csv else sys.stdout):
            dataset.skipped.print()
            outputs = match_classes(dataset.class_names, model.metadata)
            classes = zip(dataset.class_names, outputs.tolist(), strict=True)
            self._print(evaluation, dict(classes))
            if self.out is not None or Path(self.network).is_dir():
                out = Path(self.out or self.network)
                self._write(out, evaluation, names, images)
                # As file names are, which need not be UTF-8.
                write_whole(out / "predictions.csv", os.fsencode(lines))
        return 0

    def _dataset(self, channels: int) -> Dataset:
        """Opens the images that are asked for."""
        from keras_alexnet.cli.common import run_dataset
        from keras_alexnet.data.opening import open_for_evaluation
        from keras_alexnet.training.run_directory import RunDirectory

        if Path(self.network).is_dir():
            run = RunDirectory.open(self.network)
            if self.data in (None, run.config().data):
                return run_dataset(run).choose(self.split)
        return open_for_evaluation(self.data, split=self.split, channels=channels)

    def _print(self, evaluation: Evaluation, classes: dict[str, int]) -> None:
        """Prints recall, precision and F1 of each class, and the errors of all."""
        from keras_alexnet.inspect.tables import console, make_table

        scores = evaluation.by_class()
        metrics = {**evaluation.metrics(), **evaluation.balanced_metrics()}
        rows = []
        for name, output in classes.items():
            values = [scores[one][output] for one in ("recall", "precision", "f1")]
            cells = ["-" if value != value else f"{value:.2%}" for value in values]
            rows.append((name, f"{scores['images'][output]:,}", *cells))
        views = "1 view" if self.views == 1 else f"{self.views} views"
        title = f"{len(evaluation.labels):,} images, {views} of each"
        headings = ("class", ">images", ">recall", ">precision", ">F1")
        console.print(make_table(title, headings, rows))
        print(
            "top-1 error {top1_error:.2%}, top-5 error {top5_error:.2%}, "
            "loss {loss:.4f}\nbalanced accuracy {balanced_accuracy:.2%}, "
            "macro F1 {macro_f1:.2%}".format(**metrics)
        )
        never = evaluation.never_predicted()
        if named := [name for name, output in classes.items() if output in never]:
            more = f" and {len(named) - 10} others" if len(named) > 10 else ""
            print(f"Warning: never predicted: {', '.join(named[:10])}{more}")

    def _write(
        self,
        out: Path,
        evaluation: Evaluation,
        class_names: Sequence[str],
        images: Sequence[tuple[Split, int]],
    ) -> None:
        """Writes the results, and pictures of the mistakes."""
        from keras_alexnet.images.decoding import decode
        from keras_alexnet.inspect import figures
        from keras_alexnet.training.run_directory import RunDirectory

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
        scores = evaluation.by_class()
        columns = [values.tolist() for values in scores.values()]
        classes = [
            # JSON has no NaN.
            {key: None if value != value else value for key, value in row}
            for row in (
                zip(("class", *scores), values, strict=True)
                for values in zip(class_names, *columns, strict=True)
            )
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
