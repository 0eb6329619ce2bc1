"""The questions that there are benchmarks for, and how one is asked."""

from __future__ import annotations

import dataclasses
import importlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from keras_alexnet.errors import UserError, unknown

# Each is a module here with a function `run(options)`.
USUAL = {
    "training_step": "How fast is a training step, and which part of the limit is it?",
    "inference": "How fast is inference, over batch sizes?",
    "lrn": "Which local response normalisation is the fastest?",
    "grouped_conv": "Which grouped convolution is the fastest?",
    "memory": "How much memory does a training step take?",
    "choices": "Would other implementations than those chosen be faster here?",
}
OTHER = {
    "limits": "What can this device do at best: matrix products and copies?",
    "step_profile": "Where does the time of a training step go?",
    "engine": "What does the training loop cost, on top of the step?",
    "data_pipeline": "How fast is the input, against decoding and tf.data?",
    "features": "How fast are features of photographs, from files to fc7?",
    "own_images": "A folder of images: how good, how soon, beside plain Keras?",
}


class TimeIsUp(Exception):
    """What was still to be measured is left out."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How thoroughly a question is answered, and where the answer goes.

    Attributes:
        out: The directory of the results, a JSON file for each.
        quick: Whether networks, batches and repetitions are tiny: to see that
            everything works. What it measures means nothing.
        candidates: Patterns of the shell's kind; only those take part whose name fits
            one of them. All do where there are none.
        batch_sizes: Images of a batch; by default what suits the device.
        time_limit: Seconds after which nothing more is begun; what was measured until
            then is reported.
        data: For `own_images`: a folder, `digits`, or `digits:N` for N training images.
        epochs: How long networks of `own_images` train, unless `minutes` are given.
        minutes: How long they train, start and end included.
        seeds: How often they train.
        started: When the question was asked, by `time.monotonic()`.
    """

    out: Path = Path("benchmarks/results")
    quick: bool = False
    candidates: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    time_limit: float | None = None
    data: str = "digits"
    epochs: int = 20
    minutes: float | None = None
    seeds: int = 3
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def repetitions(self) -> int:
        """How often each candidate is timed."""
        return 2 if self.quick else 5

    @property
    def min_seconds(self) -> float:
        """How long each candidate is executed at a time."""
        return 0.01 if self.quick else 0.2

    @property
    def time_is_up(self) -> bool:
        """Whether the time limit has passed."""
        limit = self.time_limit
        return limit is not None and time.monotonic() - self.started > limit

    def check_time(self) -> None:
        """Raises `TimeIsUp` after the time limit."""
        if self.time_is_up:
            raise TimeIsUp(f"the limit of {self.time_limit:.0f} s has passed")


def check(names: Sequence[str], options: Options) -> None:
    """Finds out what would come to light only after the measuring.

    Args:
        names: Questions.
        options: How they will be asked; the directory of the results is made.

    Raises:
        ValueError: There is no such question, or the directory cannot be made.
    """
    for name in names:
        if name not in {**USUAL, **OTHER}:
            raise UserError(unknown(name, "question", {**USUAL, **OTHER}))
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        # Not made for it, it may still not let anybody write.
        with tempfile.TemporaryFile(dir=options.out):
            pass
    except OSError as error:
        raise UserError(
            f"Results cannot be written to {options.out}: {error.strerror}. Choose "
            "another directory with --out."
        ) from None


def ask(name: str, options: Options) -> None:
    """Measures, prints the answer and writes it.

    Args:
        name: A question.
        options: How, and where to.

    Raises:
        ValueError: There is no such question, or its answer cannot be written.
    """
    check([name], options)
    options = dataclasses.replace(options, started=time.monotonic())
    importlib.import_module(f"keras_alexnet.benchmarks.{name}").run(options)
