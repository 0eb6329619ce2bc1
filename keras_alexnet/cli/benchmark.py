"""Measure, beside other systems."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tensorflow as tf
from rich.table import Table

from keras_alexnet import cli
from keras_alexnet.benchmarks.questions import OTHER, USUAL, Options, ask, check
from keras_alexnet.cli.common import console


def run(command: cli.Benchmark) -> int:
    """Answers questions, or lists them."""
    if command.list:
        table = Table(title="questions")
        for heading in ("name", "what it asks", "asked"):
            table.add_column(heading)
        for questions, when in ((USUAL, "usually"), (OTHER, "by name")):
            for name, summary in questions.items():
                table.add_row(name, summary, when)
        console.print(table)
        return 0
    names = command.questions or tuple(USUAL)
    options = Options(Path(command.out), command.quick, command.candidates)
    check(names, options)
    if len(names) == 1:
        # Functions are traced anew for every case: TensorFlow would warn of it.
        tf.get_logger().setLevel("ERROR")
        ask(names[0], options)
        return 0
    failed = [name for name in names if _in_a_process(name, command)]
    if failed:
        print(f"Without an answer: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def _in_a_process(name: str, command: cli.Benchmark) -> int:
    """Answers one question in a process, whose memory and devices are its own."""
    arguments = ["benchmark", name, "--out", command.out]
    if command.quick:
        arguments.append("--quick")
    if command.candidates:
        arguments += ["--candidates", *command.candidates]
    return subprocess.run(
        [sys.executable, "-m", "keras_alexnet", *arguments]
    ).returncode
