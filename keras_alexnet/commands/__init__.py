"""What the commands do, once the command line has been understood: one file each."""

from __future__ import annotations

import importlib

from keras_alexnet import cli
from keras_alexnet.config import TrainConfig

_MODULES = {
    TrainConfig: "train",
    cli.Launch: "launch",
    cli.Evaluate: "evaluate",
    cli.Export: "export",
    cli.Predict: "predict",
    cli.Features: "features",
    cli.ImportWeights: "import_weights",
    cli.Tune: "tune",
    cli.Inspect: "inspect",
    cli.Data: "data",
    cli.List: "list",
    cli.Benchmark: "benchmark",
}


def run(command) -> int:
    """Runs a parsed command and returns the exit code."""
    # Each imports only what it needs.
    name = f"keras_alexnet.commands.{_MODULES[type(command)]}"
    return importlib.import_module(name).run(command)
