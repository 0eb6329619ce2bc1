"""`keras-alexnet benchmark`: measure, beside other systems."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import tyro


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measure on this machine, beside its limits.

    `keras-alexnet benchmark inference lrn`, or with no question the usual ones. Each
    prints a line for each row, and writes a JSON file. In a checkout, the
    other systems that are installed take part.
    """

    questions: tyro.conf.Positional[tuple[str, ...]] = ()
    """What to measure; see --list."""
    list: bool = False
    """List the questions and measure nothing."""
    quick: bool = False
    """Take tiny networks and few repetitions, to see that everything works."""
    candidates: tuple[str, ...] = ()
    """Patterns of what takes part, such as "keras_alexnet bfloat16*" "PyTorch*"."""
    batch_sizes: tuple[int, ...] = ()
    """Images of a batch, one size or several; by default what suits the device."""
    time_limit: float | None = None
    """Seconds for each question, after which nothing more is begun."""
    data: str = "digits"
    """For own_images: a folder with train/ and test/, digits, or digits:N for N
    training images."""
    epochs: int = 20
    """For own_images: passes over the training images, unless --minutes is given."""
    minutes: float | None = None
    """For own_images: how long each network trains, start and end included."""
    seeds: int = 3
    """For own_images: how often each network trains."""
    out: str = "benchmarks/results"
    """Directory to write the answers to."""

    def run(self) -> int:
        """Answers questions, or lists them."""
        import tensorflow as tf

        from keras_alexnet.benchmarks.questions import OTHER, USUAL, Options, ask, check
        from keras_alexnet.inspect.tables import console, make_table

        if self.list:
            rows = [(*one, "usually") for one in USUAL.items()]
            rows += [(*one, "by name") for one in OTHER.items()]
            headings = ("name", "what it asks", "asked")
            console.print(make_table("questions", headings, rows))
            return 0
        names = self.questions or tuple(USUAL)
        names_of_options = {field.name for field in dataclasses.fields(Options)}
        given = {k: x for k, x in vars(self).items() if k in names_of_options}
        options = Options(**{**given, "out": Path(self.out)})
        check(names, options)
        if len(names) == 1:
            # Functions are traced anew for every case: TensorFlow would warn of it.
            tf.get_logger().setLevel("ERROR")
            ask(names[0], options)
            return 0
        failed = [name for name in names if self._in_a_process(name)]
        if failed:
            print(f"Without an answer: {', '.join(failed)}.", file=sys.stderr)
        return 1 if failed else 0

    def _in_a_process(self, name: str) -> int:
        """Answers one question in a process, whose memory and devices are its own."""
        arguments = ["benchmark", name]
        for field in dataclasses.fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default or field.name == "out":
                flag = "--" + field.name.replace("_", "-")
                values = (
                    value
                    if isinstance(value, tuple)
                    else (value,) * (value is not True)
                )
                arguments += [flag, *map(str, values)]
        command = [sys.executable, "-m", "keras_alexnet", *arguments]
        return subprocess.run(command).returncode
