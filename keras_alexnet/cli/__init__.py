"""The command line: `keras-alexnet train | evaluate | export | predict | ...`.

Each command is a file of this folder: a dataclass, whose fields are its arguments, and
its `run`, which returns the exit code. Here they are parsed and dispatched, and errors
become messages. Nothing heavy is imported until a command runs: `--help` needs no
TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Protocol

import tyro

from keras_alexnet._version import __version__
from keras_alexnet.cli.benchmark import Benchmark
from keras_alexnet.cli.data import Data
from keras_alexnet.cli.evaluate import Evaluate
from keras_alexnet.cli.explain import Explain
from keras_alexnet.cli.export import Export
from keras_alexnet.cli.features import Features
from keras_alexnet.cli.import_weights import ImportWeights
from keras_alexnet.cli.inspect import Inspect
from keras_alexnet.cli.launch import Launch
from keras_alexnet.cli.list import List
from keras_alexnet.cli.lpips import Lpips
from keras_alexnet.cli.predict import Predict
from keras_alexnet.cli.report import Report
from keras_alexnet.cli.robustness import Robustness
from keras_alexnet.cli.serve import Serve
from keras_alexnet.cli.train import Train
from keras_alexnet.cli.tune import Tune
from keras_alexnet.cli.verify import Verify
from keras_alexnet.errors import TrainingFailed, UserError
from keras_alexnet.startup import GPU_MEMORY, import_tensorflow

COMMANDS = {
    "train": Train,
    "evaluate": Evaluate,
    "export": Export,
    "predict": Predict,
    "explain": Explain,
    "report": Report,
    "features": Features,
    "robustness": Robustness,
    "lpips": Lpips,
    "verify": Verify,
    "serve": Serve,
    "import-weights": ImportWeights,
    "tune": Tune,
    "inspect": Inspect,
    "data": Data,
    "list": List,
    "launch": Launch,
    "benchmark": Benchmark,
}


class Command(Protocol):
    """A command line that has been understood."""

    def run(self) -> int:
        """Does what is asked, and returns the exit code."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits.

    The exit code is 0; 2 after a mistake by the user and 1 after a failure of the
    machine, each printed in one line; 130 or 143 when a signal stopped the command.
    Any other exception is a defect of this package, and keeps its traceback.
    """
    # Not `list(...)`: that name is a command in this package.
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]
    if arguments == ["--version"]:
        print(f"keras-alexnet {__version__}")
        sys.exit(0)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names need not be Unicode; they are printed as they are.
            stream.reconfigure(errors="surrogateescape")
    try:
        command = _parse(arguments)
        if getattr(command, "gpu_memory", None) is not None:
            # Processes that the command starts inherit it.
            os.environ[GPU_MEMORY] = str(command.gpu_memory)
        if not isinstance(command, (Inspect, Launch)):
            import_tensorflow()
        sys.exit(command.run())
    except UserError as error:
        # Some span lines, such as those about a configuration.
        print("keras-alexnet:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(2)
    except (OSError, TrainingFailed) as error:
        # Not the user's mistake: a full disk, a directory taken away, a lost host.
        print(f"keras-alexnet: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("keras-alexnet: interrupted", file=sys.stderr)
        sys.exit(130)


def _parse(arguments: Sequence[str]) -> Command:
    """Parses a command line.

    Raises:
        UserError: It is wrong.
    """
    name, rest, launched = arguments[:1], arguments[1:], []
    # What comes after two dashes belongs to the command that is launched.
    if name == ["launch"] and "--" in rest:
        dashes = rest.index("--")
        rest, launched = rest[:dashes], rest[dashes + 1 :]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            if not name or name[0] not in COMMANDS:
                return tyro.extras.subcommand_cli_from_dict(
                    COMMANDS, prog="keras-alexnet", args=arguments
                )
            options = {"default": Train.before_flags(rest)} if name == ["train"] else {}
            command = tyro.cli(
                COMMANDS[name[0]],
                prog=f"keras-alexnet {name[0]}",
                args=rest,
                **options,
            )
    except SystemExit as stop:
        if stop.code:
            raise UserError(_one_line(errors.getvalue())) from None
        raise
    if launched:
        command = dataclasses.replace(command, command=tuple(launched))
    return command


def _one_line(message: str) -> str:
    """Flattens the box that the parser draws around its errors."""
    # Between rules: a heading, the error, perhaps suggestions, where to find help.
    text = re.sub("[╭╮╰╯│]", " ", message)
    parts = [" ".join(part.split()) for part in re.split("─+|-{3,}", text)]
    heading, *details = [part for part in parts if part]
    text = ". ".join(part.rstrip(".") for part in details or [heading])
    text = re.sub(r"Error parsing \w+: ", "", text)
    return re.sub(r"For full helptext, (run|see):? (.*?--help)", r"See \2.", text)
