"""`keras-alexnet benchmark`: measure, beside other systems."""

from __future__ import annotations

import dataclasses
import multiprocessing
import sys

import tyro

from keras_alexnet.benchmarks.questions import OTHER, USUAL, Options, check
from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Benchmark(Options):
    """Measure on this machine, beside its limits.

    `keras-alexnet benchmark inference operations`, or with no question the usual ones.
    Each prints a line for each row, and writes a JSON file. In a checkout, the
    other systems that are installed take part.
    """

    questions: tyro.conf.Positional[tuple[str, ...]] = ()
    """What to measure; see --list."""
    list: bool = False
    """List the questions and measure nothing."""

    def run(self) -> int:
        """Answers questions, or lists them."""
        if self.list:
            from keras_alexnet.inspect.tables import console, make_table

            rows = [(*one, "usually") for one in USUAL.items()]
            rows += [(*one, "by name") for one in OTHER.items()]
            headings = ("name", "what it asks", "asked")
            console.print(make_table("questions", headings, rows))
            return 0
        names = self.questions or tuple(USUAL)
        check(names, self)
        if len(names) == 1:
            _ask(names[0], self)
            return 0
        failed = [name for name in names if self._in_a_process(name)]
        if failed:
            print(f"Without an answer: {', '.join(failed)}.", file=sys.stderr)
        return 1 if failed else 0

    def _in_a_process(self, name: str) -> int | None:
        """Answers one question in a process, whose memory and devices are its own."""
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_answer, args=(name, self))
        process.start()
        process.join()
        return process.exitcode


def _answer(name: str, options: Options) -> None:
    try:
        _ask(name, options)
    except UserError as error:
        sys.exit(f"keras-alexnet: {error}")


def _ask(name: str, options: Options) -> None:
    from keras_alexnet.benchmarks.report import ask

    ask(name, options)
