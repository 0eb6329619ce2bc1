"""How long does it take to import the package, beyond importing Keras?

Each repetition is a fresh process that imports Keras, then the package, then looks up
`build`, and times each; and another one that prints the command line's help.

    keras-alexnet benchmark import_time
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from rich.table import Table

from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import write_json
from keras_alexnet.inspect.tables import console

STATEMENTS = ("import keras", "import keras_alexnet", "keras_alexnet.build")
HELP = "keras-alexnet --help"
# Run with the statements as arguments; the last line that it prints is their times.
PROGRAM = """
import json, sys, time
seconds = {}
for statement in sys.argv[1:]:
    begin = time.perf_counter()
    exec(statement)
    seconds[statement] = time.perf_counter() - begin
print(json.dumps(seconds))
"""


def python(*arguments: str) -> str:
    """Runs Python in a fresh process and returns what it printed."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measure(repetitions: int) -> dict[str, list[float]]:
    """Returns the seconds of each repetition, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in (*STATEMENTS, HELP)}
    for repetition in range(-1, repetitions):
        found = json.loads(python("-c", PROGRAM, *STATEMENTS).splitlines()[-1])
        begin = time.perf_counter()
        python("-m", "keras_alexnet", "--help")
        found[HELP] = time.perf_counter() - begin
        if repetition >= 0:
            for name, value in found.items():
                seconds[name].append(value)
    return seconds


def run(options: Options) -> None:
    """Measures and reports."""
    seconds = measure(1 if options.quick else 7)
    table = Table(title="import_time")
    for heading in ("what", "seconds", "min - max"):
        table.add_column(heading)
    for name, values in seconds.items():
        table.add_row(
            name,
            f"{statistics.median(values):.3f}",
            f"{min(values):.3f} - {max(values):.3f}",
        )
    console.print(table)
    write_json("import_time", options, results=seconds)
