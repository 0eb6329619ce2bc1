"""Judge a network by labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from keras_alexnet import cli
from keras_alexnet.cli.common import console, run_source
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.data.sources import Examples, open_source
from keras_alexnet.errors import UserError
from keras_alexnet.evaluation import Evaluation, Evaluator, match_classes
from keras_alexnet.features import load_network
from keras_alexnet.images.decoding import decode
from keras_alexnet.inspect import figures
from keras_alexnet.model import Metadata
from keras_alexnet.training.run_directory import RunDirectory


def run(command: cli.Evaluate) -> int:
    """Prints and draws what a network makes of labelled images."""
    if command.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1. Got {command.batch_size}.")
    run = RunDirectory.open(command.model) if Path(command.model).is_dir() else None
    if run is None and Path(command.model).is_file() and command.data is None:
        raise UserError(
            f"{command.model} has no test images of its own: name some with --data."
        )
    if run is None and not Path(command.model).is_file():
        raise UserError(f"{command.model} is not a run directory and not a model file.")
    model, preprocessing = load_network(command.model)
    preprocessing = preprocessing.with_image_size(model.inputs[0].shape[1])
    if run is not None:
        metadata = Metadata(class_names=tuple(run.class_names()))
        others = command.data if command.data != run.config().data else None
        source = run_source(run, others)
    else:
        metadata, others = getattr(model, "metadata", Metadata()), command.data
        source = open_source(others, seed=0, channels=preprocessing.channels)
    outputs = match_classes(source.class_names, metadata)
    evaluator = Evaluator(model, views=command.views, preprocessing=preprocessing)
    # Other images were not trained on, so all of them count.
    parts = [source.train, source.test] if others else [source.test]
    evaluations = [
        evaluator(
            evaluation_batches(
                part, preprocessing, command.batch_size, whole=command.views == 10
            )
        )
        for part in parts
    ]
    source.skipped.print()
    evaluation = Evaluation(
        np.concatenate([one.probabilities for one in evaluations]),
        outputs[np.concatenate([one.labels for one in evaluations])],
    )
    counts, metrics = evaluation.confusion(), evaluation.metrics()

    views = "1 view" if command.views == 1 else f"{command.views} views"
    table = Table(title=f"{len(evaluation.labels):,} images, {views} of each")
    for heading in ("class", "images", "right", "error"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name, output in zip(source.class_names, outputs, strict=True):
        images, right = counts[output].sum(), counts[output, output]
        error = f"{1 - right / images:.2%}" if images else "-"
        table.add_row(Text(name), f"{images:,}", f"{right:,}", error)
    console.print(table)
    print(
        f"top-1 error {metrics['top1_error']:.2%}, "
        f"top-5 error {metrics['top5_error']:.2%}, loss {metrics['loss']:.4f}"
    )
    out = command.out or (run.path if run is not None else None)
    if out is not None:
        readers = [
            (part, position)
            for part, one in zip(parts, evaluations, strict=True)
            for position in one.positions
        ]
        values = {**metrics, "views": command.views, "data": command.data}
        _write_evaluation(Path(out), evaluation, metadata.class_names, readers, values)
    return 0


def _write_evaluation(
    out: Path,
    evaluation: Evaluation,
    class_names: Sequence[str],
    readers: Sequence[tuple[Examples, int]],
    values: dict[str, Any],
) -> None:
    """Writes evaluation.json, the confusion matrix and the surest mistakes."""
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
    RunDirectory(out).write_json(
        "evaluation.json", {**values, "confusion": counts.tolist()}
    )
