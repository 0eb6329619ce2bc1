"""The command line: `keras-alexnet train | evaluate | export | predict | ...`.

Nothing here imports TensorFlow until a command has been understood.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from keras_alexnet.errors import TrainingFailed, UserError
from keras_alexnet.training.config import TrainConfig, read_settings
from keras_alexnet.training.recipes import configure


@dataclasses.dataclass(frozen=True)
class Train(TrainConfig):
    """Train a network and keep everything about the run in one directory."""

    config: str | None = None
    """JSON file of settings, such as a run's config.json. They outrank the recipe's;
    flags outrank them."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Print the errors of a network on labelled images, class by class."""

    model: tyro.conf.Positional[str]
    """Directory of the run, or a .keras file."""
    data: str | None = None
    """Images to judge by, all of them; by default the run's own test images."""
    views: Literal[1, 10] = 1
    """Views of each image: its centre; or corners and centre, and these mirrored."""
    batch_size: int = 128
    """Images per pass."""
    out: str | None = None
    """Where to write evaluation.json and figures/; by default the run's directory, and
    nowhere for a .keras file."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the model of a run in a form that needs nothing of this package."""

    run: tyro.conf.Positional[str]
    """Directory of the run."""
    out: str | None = None
    """Where to write; by default export/ in the run's directory."""


@dataclasses.dataclass(frozen=True)
class Predict:
    """Print the likeliest classes of image files."""

    run: tyro.conf.Positional[str]
    """Directory of the run."""
    files: tyro.conf.Positional[tuple[str, ...]]
    """JPEG, PNG, GIF or BMP files."""
    top: int = 5
    """How many classes to print for each."""


@dataclasses.dataclass(frozen=True)
class Features:
    """Write what layers make of each image in a folder, as NumPy arrays."""

    model: tyro.conf.Positional[str]
    """Directory of a run, or a .keras file."""
    folder: tyro.conf.Positional[str]
    """JPEG, PNG, GIF or BMP files, in sub-folders too."""
    layers: tuple[str, ...] = ("fc7",)
    """Names of layers, such as relu5 or fc7; torchvision's where they fit."""
    out: str = "features.npz"
    """The file to write."""
    preprocessing: Literal["model", "caffe", "torch", "alexnet_2012", "none"] = "model"
    """What the network expects: what the model says, or whose way."""
    batch_size: int = 32
    """Images per pass."""


@dataclasses.dataclass(frozen=True)
class ImportWeights:
    """Turn a published file of weights, of any known format, into a model."""

    file: tyro.conf.Positional[str]
    """A file of PyTorch, Caffe, ONNX, cuda-convnet or Keras, or bvlc_alexnet.npy."""
    out: str
    """The .keras file to write."""
    architecture: str | None = None
    """The network they belong to; by default it is recognised."""
    mean: str | None = None
    """The mean image that goes with a .caffemodel, a .binaryproto."""
    convert: tuple[Literal["inverted-dropout", "lrn-k1", "lrn-k2"], ...] = ()
    """Conventions to convert the weights to, from those of 2012 or Caffe."""


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Draw schedules, or all those of a configuration, before any run."""

    schedule: tuple[str, ...] = ()
    """Schedules to compare, such as "cosine(0.02, warmup=0.05)" "dexp(0.01)"."""
    recipe: str | None = None
    """Recipe whose learning rate, dropout, multipliers and colour noise to draw."""
    config: str | None = None
    """JSON file of settings whose schedules to draw, such as a run's config.json."""
    out: str = "schedules.png"
    """The picture to write."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Say which images a source holds; check, measure, draw or write them anew."""

    source: tyro.conf.Positional[str]
    """Images, as train takes them: digits, folder:PATH, csv:FILE, tfrecord:FILES,
    tfds:NAME."""
    check: bool = False
    """Decode every image, and name those that are damaged."""
    measure: str | None = None
    """Measure mean colour, mean image and colour axes of the training images, and write
    them as this JSON file."""
    contact_sheet: str | None = None
    """Draw some images of some classes, as this PNG file."""
    to_tfrecord: str | None = None
    """Write all images as TFRecord files into this directory; continues where it was
    stopped."""
    shards: int | None = None
    """How many files of training images to write; by default 1,250 images in each."""
    test_fraction: float = 0.2
    """Share of each class that is kept for testing, where the data are not split."""
    seed: int = 0
    """Seed of that split."""


@dataclasses.dataclass(frozen=True)
class List:
    """List architectures, layers, recipes, and plugins that failed to load."""

    kind: tyro.conf.Positional[Literal["all", "architectures", "layers", "recipes"]] = (
        "all"
    )
    """What to list."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """Run a command in several processes on this machine, as if on several hosts.

    `keras-alexnet launch --hosts 2 -- train --run-dir runs/two`. On a cluster, run the
    same `train` command on each host, with TF_CONFIG set and a run directory that all
    share.
    """

    command: tyro.conf.Positional[tuple[str, ...]]
    """The command and its options, after two dashes."""
    hosts: int = 2
    """How many processes."""


@dataclasses.dataclass(frozen=True)
class Tune:
    """Search for the best schedules and settings; continue a search that was stopped.

    Settings of the runs are those of the recipe, then of --config, then of the flags.
    """

    run_dir: str = "runs/search"
    """Directory of the search: state, a run directory for each trial, best.json,
    report.md."""
    trials: int = 30
    """How many trials there are at most."""
    tuner: Literal["random", "bayesian", "hyperband", "grid"] = "random"
    """How the next trial is chosen. Hyperband continues the best of many short trials;
    each of its rounds counts as one."""
    space: str = "schedules"
    """What is searched: schedules, recipe, everything, or a JSON file."""
    objective: str = "val_top1_error"
    """What is compared: a column of history.csv, after the last epoch."""
    early_stopping: Literal["none", "median"] = "none"
    """Whether trials stop early that are worse than most others at the same epoch."""
    keep: int = 3
    """How many of the best trials keep their weights."""
    workers: int = 1
    """How many trials run at the same time, on this machine."""
    search_seed: int = 0
    """Seed of what is tried."""
    seeds: int = 3
    """With how many fresh seeds the best settings are compared with those that the
    search began from; 0 for no comparison. Of --ablation: how often each is trained."""
    ablation: bool = False
    """In place of a search: leave out normalisation, overlapping pooling, towers,
    dropout and augmentation, one after the other, as the paper did."""

    data: str | None = None
    """Images to train on; see `keras-alexnet train --help`."""
    recipe: str | None = None
    """Recipe that the search varies."""
    config: str | None = None
    """JSON file of settings that the search varies, such as a run's config.json."""
    epochs: int | None = None
    """Passes over the training images."""
    seed: int | None = None
    """Seed of the runs."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """Precision of the computations."""
    replicas: int | None = None
    """Devices to train each trial on."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measure on this machine, beside the other systems that are installed.

    `keras-alexnet benchmark inference lrn`, or with no question the usual ones. Each
    gives a table, a JSON file and a picture.
    """

    questions: tyro.conf.Positional[tuple[str, ...]] = ()
    """What to measure; see --list."""
    list: bool = False
    """List the questions and measure nothing."""
    quick: bool = False
    """Take tiny networks and few repetitions, to see that everything works."""
    candidates: tuple[str, ...] = ()
    """Patterns of the peers that take part, such as "torch*"; by default all."""
    out: str = "benchmarks/results"
    """Directory to write the answers to."""


_COMMAND_MODULES = {
    TrainConfig: "train",
    Launch: "launch",
    Evaluate: "evaluate",
    Export: "export",
    Predict: "predict",
    Features: "features",
    ImportWeights: "import_weights",
    Tune: "tune",
    Inspect: "inspect",
    Data: "data",
    List: "list",
    Benchmark: "benchmark",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits.

    The exit code is 0; 2 after a mistake by the user and 1 after a failure of the
    machine, each printed in one line; 130 or 143 when a signal stopped the command.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = _parse(arguments)
        _quiet_tensorflow()
        # Each command's module imports only what that command needs.
        name = _COMMAND_MODULES[type(command)]
        sys.exit(importlib.import_module(f"keras_alexnet.cli.{name}").run(command))
    except UserError as error:
        # Some errors of the libraries below span lines.
        print("keras-alexnet:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(2)
    except (OSError, TrainingFailed) as error:
        # Not the user's mistake: a full disk, a directory taken away, a lost host.
        print(f"keras-alexnet: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("keras-alexnet: interrupted", file=sys.stderr)
        sys.exit(130)


def _parse(
    arguments: list[str],
) -> (
    TrainConfig
    | Evaluate
    | Export
    | Predict
    | Features
    | ImportWeights
    | Inspect
    | Data
    | List
    | Launch
    | Tune
    | Benchmark
):
    """Parses a command line.

    Raises:
        ValueError: It is wrong.
    """
    subcommands = {
        "train": Train,
        "evaluate": Evaluate,
        "export": Export,
        "predict": Predict,
        "features": Features,
        "import-weights": ImportWeights,
        "tune": Tune,
        "inspect": Inspect,
        "data": Data,
        "list": List,
        "launch": Launch,
        "benchmark": Benchmark,
    }
    # What comes after two dashes belongs to the command that is launched.
    launched: list[str] = []
    if arguments[:1] == ["launch"] and "--" in arguments:
        dashes = arguments.index("--")
        arguments, launched = arguments[:dashes], arguments[dashes + 1 :]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            if arguments[:1] == ["train"]:
                flags = tyro.cli(
                    Train,
                    prog="keras-alexnet train",
                    args=arguments[1:],
                    default=_before_flags(arguments[1:]),
                )
                return _without_file(flags)
            command = tyro.extras.subcommand_cli_from_dict(
                subcommands, prog="keras-alexnet", args=arguments
            )
            if launched:
                command = dataclasses.replace(command, command=tuple(launched))
            return command
    except SystemExit as stop:
        if stop.code:
            raise UserError(_one_line(errors.getvalue())) from None
        raise


def _before_flags(arguments: list[str]) -> Train:
    """Returns what flags start from: a recipe or a run to resume, then a file."""

    @dataclasses.dataclass(frozen=True)
    class Base:
        run_dir: str | None = None
        recipe: str | None = None
        data: str | None = None
        resume: bool = False
        config: str | None = None

    base, _ = tyro.cli(Base, args=arguments, return_unknown_args=True, add_help=False)
    values = read_settings(base.config) if base.config else {}
    run_dir = Path(base.run_dir or values.get("run_dir", TrainConfig.run_dir))
    if base.resume and (run_dir / "config.json").is_file():
        start = TrainConfig.from_file(run_dir / "config.json").updated(values)
    else:
        flags = {"recipe": base.recipe, "data": base.data}
        given = {name: value for name, value in flags.items() if value is not None}
        start = configure({**values, **given})
    return Train(**vars(start), config=base.config)


def _without_file(flags: Train) -> TrainConfig:
    """Returns the settings alone: the file that some are from is none of them."""
    fields = dataclasses.fields(TrainConfig)
    return TrainConfig(**{field.name: getattr(flags, field.name) for field in fields})


def _one_line(message: str) -> str:
    """Flattens the box that the parser draws around its errors."""
    # Between rules: a heading, the error, perhaps suggestions, where to find help.
    text = re.sub("[╭╮╰╯│]", " ", message)
    parts = [" ".join(part.split()) for part in re.split("─+|-{3,}", text)]
    heading, *details = [part for part in parts if part]
    text = ". ".join(part.rstrip(".") for part in details or [heading])
    text = text.replace("Error parsing Train: ", "")
    return re.sub(r"For full helptext, (run|see):? (.*?--help)", r"See \2.", text)


def _quiet_tensorflow() -> None:
    """Imports TensorFlow without the page that it writes about its own start-up."""
    if glob.glob("/dev/nvidia*") or glob.glob("/dev/dxg"):
        # What it says about this machine's GPUs may matter.
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with contextlib.ExitStack() as cleanup:
        with contextlib.suppress(OSError):  # There may be no standard error.
            kept = os.dup(2)
            cleanup.callback(os.close, kept)
            cleanup.callback(os.dup2, kept, 2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            cleanup.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
        import tensorflow as tf

        tf.config.list_physical_devices()
