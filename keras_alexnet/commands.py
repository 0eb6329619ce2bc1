"""What the commands do, once the command line has been understood."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_alexnet import cli
from keras_alexnet.architectures import get_architecture, list_architectures
from keras_alexnet.config import TrainConfig
from keras_alexnet.data.limits import checked
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.data.skipped import reason
from keras_alexnet.data.sources import Source, open_source
from keras_alexnet.recipes import RECIPES
from keras_alexnet.registry import get_layer, list_layers, plugin_errors
from keras_alexnet.run_directory import RunDirectory

# In a file or a pipe there is no width to fit.
console = Console(width=None if sys.stdout.isatty() else 160)


def run(command) -> int:
    """Runs a parsed command and returns the exit code."""
    return _COMMANDS[type(command)](command)


def _train(config: TrainConfig) -> int:
    """Trains, and prints the result."""
    from keras_alexnet.training.loop import Interrupted
    from keras_alexnet.training.train import train

    try:
        result = train(config)
    except Interrupted as stop:
        print(
            f"\nStopped by {stop}; everything is saved. Continue with: "
            f"keras-alexnet train --run-dir {config.run_dir} --resume"
        )
        return 128 + stop.signal_number
    if result.finished_before:
        print(f"{result.run_dir} has finished already; nothing to do.")
    top1, top5 = result.metrics["top1_error"], result.metrics["top5_error"]
    print(
        f"Test images: top-1 error {top1:.2%}, top-5 error {top5:.2%} "
        f"(accuracy {1 - top1:.2%}). Everything is in {result.run_dir}."
    )
    return 0


def _evaluate(command: cli.Evaluate) -> int:
    """Prints and draws what a run's model makes of its test images."""
    from keras_alexnet.evaluation import Evaluation
    from keras_alexnet.inspect import figures
    from keras_alexnet.training.train import judge

    run = RunDirectory.open(command.run)
    model, preprocessing, names = run.model(), run.preprocessing(), run.class_names()
    others = command.data if command.data != run.config().data else None
    source = _source(run, others)
    if list(source.class_names) != names:
        raise ValueError(
            f"{command.data} has other classes than the run: "
            f"{', '.join(source.class_names)} instead of {', '.join(names)}."
        )
    # Other images were not trained on, so all of them count.
    parts = [source.train, source.test] if others else [source.test]
    evaluations = [
        judge(model, evaluation_batches(part, preprocessing, 128))[0] for part in parts
    ]
    source.skipped.print()
    evaluation = Evaluation(
        np.concatenate([one.probabilities for one in evaluations]),
        np.concatenate([one.labels for one in evaluations]),
    )
    counts = evaluation.confusion()
    metrics = evaluation.metrics()

    table = Table(title=f"{len(evaluation.labels):,} images")
    for heading in ("class", "images", "right", "error"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name, row, right in zip(names, counts, counts.diagonal(), strict=True):
        error = f"{1 - right / row.sum():.2%}" if row.sum() else "-"
        table.add_row(Text(name), f"{row.sum():,}", f"{right:,}", error)
    console.print(table)
    print(
        f"top-1 error {metrics['top1_error']:.2%}, "
        f"top-5 error {metrics['top5_error']:.2%}, loss {metrics['loss']:.4f}"
    )
    (run / "figures").mkdir(exist_ok=True)
    figures.confusion(counts, names, run / "figures" / "confusion.png")
    print(f"Confusion matrix: {run / 'figures' / 'confusion.png'}")
    run.write_json("evaluation.json", {**metrics, "confusion": counts.tolist()})
    return 0


def _export(command: cli.Export) -> int:
    """Exports a run's model and compares the export with it."""
    from keras_alexnet.export.saved_model import export_saved_model, largest_difference

    run = RunDirectory.open(command.run)
    model, preprocessing = run.model(), run.preprocessing()
    path = command.out or str(run / "export")
    examples = _source(run).test
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
        raise ValueError("None of the test images can be read to compare the export.")
    difference = largest_difference(path, model, preprocessing, np.stack(images))
    print(
        f"Exported to {path}. On {len(images)} test images its probabilities differ "
        f"from the model's by at most {difference:.1e}."
    )
    return 0


def _predict(command: cli.Predict) -> int:
    """Prints the likeliest classes of image files."""
    run = RunDirectory.open(command.run)
    if not command.files:
        raise ValueError("No image files were given.")
    if command.top < 1:
        raise ValueError(f"--top must be at least 1. Received: {command.top}")
    model, preprocessing, names = run.model(), run.preprocessing(), run.class_names()
    table = Table()
    for heading in ("file", "class", "probability"):
        table.add_column(heading, justify="right" if heading == "probability" else None)
    failed = 0
    for file in command.files:
        try:
            image = preprocessing.decode(tf.io.read_file(file))
        except tf.errors.OpError as error:
            failed += 1
            print(f"{file} cannot be read: {reason(error)}", file=sys.stderr)
            continue
        image = preprocessing.prepare(image)
        row = model.predict_on_batch(preprocessing.normalize(image)[None])[0]
        for place, best in enumerate(np.argsort(row)[::-1][: command.top]):
            # Text, because brackets in a string would be taken for markup.
            name = Text("" if place else file), Text(names[best])
            table.add_row(*name, f"{row[best]:.2%}")
        table.add_section()
    if failed < len(command.files):
        console.print(table)
    return 2 if failed else 0


def _features(command: cli.Features) -> int:
    """Writes the features of a folder of images."""
    from keras_alexnet.features import extract_features, load_network

    model, preprocessing = load_network(command.model, command.preprocessing)
    extraction = extract_features(
        model,
        preprocessing,
        command.folder,
        command.layers,
        command.out,
        batch_size=command.batch_size,
    )
    for file, why in extraction.skipped:
        print(f"{file} cannot be read and is left out: {why}", file=sys.stderr)
    table = Table(title=f"{command.out}: {len(extraction.files):,} images")
    table.add_column("layer")
    table.add_column("features of an image")
    for layer, shape in extraction.shapes.items():
        table.add_row(layer, " x ".join(map(str, shape)))
    console.print(table)
    return 0


def _import_weights(command: cli.ImportWeights) -> int:
    """Saves published weights as a model."""
    from keras_alexnet.weights.importing import import_weights

    options = {"mean": command.mean, "convert": command.convert}
    print(
        import_weights(
            command.file, command.out, architecture=command.architecture, **options
        )
    )
    return 0


def _data(command: cli.Data) -> int:
    """Prints what a source of images holds, and does with it what is asked for."""
    from keras_alexnet.data import report
    from keras_alexnet.data.shards import write_shards

    if not 0 <= command.test_fraction < 1:
        raise ValueError(
            f"--test-fraction must be in [0, 1). Received: {command.test_fraction}"
        )
    if command.shards is not None and command.to_tfrecord is None:
        raise ValueError("--shards says how --to-tfrecord writes; give both.")
    source = open_source(
        command.source, seed=command.seed, test_fraction=command.test_fraction
    )
    names = source.class_names
    counts = [
        report.count_labels(part, len(names)) for part in (source.train, source.test)
    ]
    table = Table(title=f"{command.source}: {len(names):,} classes")
    for heading in ("class", "training images", "test images"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name, train, test in zip(names, *counts, strict=True):
        table.add_row(Text(name), f"{train:,}", f"{test:,}")
    table.add_section()
    table.add_row("all", *(f"{count.sum():,}" for count in counts))
    console.print(table)
    if sizes := report.measure_sizes(source.train):
        print(
            "Width x height: {} x {} to {} x {}, in the middle {} x {} "
            "({:,} images measured).".format(
                *sizes.smallest, *sizes.largest, *sizes.median, sizes.measured
            )
        )
    if command.contact_sheet:
        report.draw_contact_sheet(source, Path(command.contact_sheet))
        print(f"Contact sheet: {command.contact_sheet}")
    if command.check:
        report.check_images(source)
        print(f"{source.total:,} images checked, {source.skipped.damaged:,} damaged.")
    if command.to_tfrecord:
        write_shards(source, Path(command.to_tfrecord), command.shards)
        print(f"Written. Use it as tfrecord:{command.to_tfrecord}")
    source.skipped.print()
    return 0


def _list(command: cli.List) -> int:
    """Prints what there is to choose from."""
    if command.kind in ("all", "architectures"):
        table = Table(title="architectures")
        for heading in ("name", "input", "what"):
            table.add_column(heading)
        for name in list_architectures():
            architecture = get_architecture(name)
            size = architecture.input_size
            table.add_row(
                name, f"{size}x{size}x{architecture.channels}", architecture.summary
            )
        console.print(table)
    if command.kind in ("all", "layers"):
        table = Table(title="layers (besides every class of keras.layers)")
        for heading in ("name", "class"):
            table.add_column(heading)
        for name in list_layers():
            layer = get_layer(name)
            table.add_row(name, f"{layer.__module__}.{layer.__name__}")
        console.print(table)
        for name, error in plugin_errors().items():
            message = (
                f"The plugin {name} failed to load: {type(error).__name__}: {error}"
            )
            console.print(message, style="red", markup=False)
    if command.kind in ("all", "recipes"):
        table = Table(title="recipes")
        for heading in ("name", "settings"):
            table.add_column(heading)
        for name, settings in RECIPES.items():
            text = ", ".join(f"{key} {value}" for key, value in settings.items())
            table.add_row(name, text)
        console.print(table)
    return 0


def _source(run: RunDirectory, data: str | None = None) -> Source:
    """Opens a run's own images again, or others."""
    config = run.config()
    source = open_source(
        data or config.data,
        seed=config.seed,
        test_fraction=config.test_fraction,
        channels=run.preprocessing().channels,
    )
    if data is None:
        source.check_unchanged(run.read_json("data.json")["fingerprint"])
    return source


_COMMANDS = {
    TrainConfig: _train,
    cli.Evaluate: _evaluate,
    cli.Export: _export,
    cli.Predict: _predict,
    cli.Features: _features,
    cli.ImportWeights: _import_weights,
    cli.Data: _data,
    cli.List: _list,
}
