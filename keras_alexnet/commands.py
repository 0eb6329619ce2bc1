"""What the commands do, once the command line has been understood."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_alexnet import cli
from keras_alexnet.architectures import get_architecture, list_architectures
from keras_alexnet.config import TrainConfig, read_settings
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.data.sources import Examples, Source, open_source, reason
from keras_alexnet.recipes import RECIPES, configure
from keras_alexnet.registry import get_layer, list_layers, plugin_errors
from keras_alexnet.run_directory import RunDirectory
from keras_alexnet.schedules import parse_schedule

if TYPE_CHECKING:
    from keras_alexnet.evaluation import Evaluation

# In a file or a pipe there is no width to fit.
console = Console(width=None if sys.stdout.isatty() else 160)


def run(command) -> int:
    """Runs a parsed command and returns the exit code."""
    return _COMMANDS[type(command)](command)


def _train(config: TrainConfig) -> int:
    """Trains, and prints the result."""
    from keras_alexnet.training.loop import Interrupted
    from keras_alexnet.training.train import train

    if config.recipe == "fine-tune" and config.weights is None:
        raise ValueError(
            "The recipe fine-tune starts from trained weights: name their file with "
            "--weights."
        )
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
    if result.failures:
        print(
            f"But {len(result.failures)} files could not be written, the last: "
            f"{result.failures[-1]}. Repair that and repeat the command with --resume.",
            file=sys.stderr,
        )
    return 1 if result.failures else 0


def _launch(command: cli.Launch) -> int:
    """Runs a command in several processes."""
    from keras_alexnet.training.launch import launch

    return launch(command.hosts, command.command)


def _evaluate(command: cli.Evaluate) -> int:
    """Prints and draws what a network makes of labelled images."""
    from keras_alexnet.evaluation import Evaluation, Evaluator, match_classes
    from keras_alexnet.features import load_network
    from keras_alexnet.model import Metadata

    if command.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1. Got {command.batch_size}.")
    run = RunDirectory.open(command.model) if Path(command.model).is_dir() else None
    if run is None and Path(command.model).is_file() and command.data is None:
        raise ValueError(
            f"{command.model} has no test images of its own: name some with --data."
        )
    if run is None and not Path(command.model).is_file():
        raise ValueError(
            f"{command.model} is not a run directory and not a model file."
        )
    model, preprocessing = load_network(command.model)
    preprocessing = preprocessing.with_image_size(model.inputs[0].shape[1])
    if run is not None:
        metadata = Metadata(class_names=tuple(run.class_names()))
        others = command.data if command.data != run.config().data else None
        source = _source(run, others)
    else:
        metadata, others = getattr(model, "metadata", Metadata()), command.data
        source = open_source(others, seed=0, channels=preprocessing.channels)
        source.print_skipped()
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
    from keras_alexnet.inspect import figures

    directory = out / "figures"
    directory.mkdir(parents=True, exist_ok=True)
    counts = evaluation.confusion()
    figures.confusion(counts, class_names, directory / "confusion.png")
    print(f"Confusion matrix: {directory / 'confusion.png'}")
    if len(mistakes := evaluation.mistakes(18)):
        pictures = [readers[index] for index in mistakes]
        figures.predictions(
            [part.read(tf.constant(position)).numpy() for part, position in pictures],
            evaluation.probabilities[mistakes],
            evaluation.labels[mistakes],
            class_names,
            directory / "mistakes.png",
        )
        print(f"Most confident mistakes: {directory / 'mistakes.png'}")
    RunDirectory(out).write_json(
        "evaluation.json", {**values, "confusion": counts.tolist()}
    )


def _export(command: cli.Export) -> int:
    """Exports a run's model and compares the export with it."""
    from keras_alexnet.export.saved_model import export_saved_model, largest_difference

    run = RunDirectory.open(command.run)
    model, preprocessing = run.model(), run.preprocessing()
    path = command.out or str(run / "export")
    examples = _source(run).test
    Path(path).mkdir(parents=True, exist_ok=True)
    export_saved_model(model, path, preprocessing, run.class_names())
    images = np.stack(
        [
            preprocessing.prepare(examples.read(tf.constant(index)))
            for index in range(min(16, len(examples)))
        ]
    )
    difference = largest_difference(path, model, preprocessing, images)
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


def _inspect(command: cli.Inspect) -> int:
    """Draws schedules and prints some of their values."""
    from keras_alexnet.inspect import figures
    from keras_alexnet.inspect.schedules import panels_of, table_of

    asked = (command.schedule, command.recipe, command.config)
    if sum(bool(one) for one in asked) != 1:
        raise ValueError(
            "Nothing to draw: give --schedule, --recipe or --config."
            if not any(asked)
            else "Give only one of --schedule, --recipe and --config."
        )
    if command.schedule:
        texts = {text: parse_schedule(text) for text in command.schedule}
        panels, epochs = {"Schedules": texts}, None
    else:
        settings = (
            read_settings(command.config)
            if command.config
            else {"recipe": command.recipe}
        )
        config = configure(settings)
        panels, epochs = panels_of(config), config.epochs
    Path(command.out).parent.mkdir(parents=True, exist_ok=True)
    figures.schedules(panels, Path(command.out), epochs)
    console.print(table_of(panels, epochs))
    print(f"Drawn in {command.out}.")
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
    source.print_skipped()
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
    cli.Inspect: _inspect,
    cli.List: _list,
    cli.Launch: _launch,
}
