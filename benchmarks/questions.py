"""The questions that there are benchmarks for, and how one is asked."""

from __future__ import annotations

import dataclasses
import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from keras_alexnet.errors import UserError, unknown

# Each is a module here with a function `run(options)`.
USUAL = {
    "training_step": "How fast is a training step, against textbook Keras and PyTorch?",
    "inference": "How fast is inference, against these, OpenVINO and ONNX Runtime?",
    "batch_size": "How does the speed of inference grow with the batch?",
    "lrn": "Which local response normalisation is the fastest?",
    "grouped_conv": "Which convolutions and poolings are the fastest?",
    "size": "What do larger images, and more classes, cost?",
    "memory": "How much memory does a training step take?",
    "choices": "Would other implementations than those chosen be faster here?",
}
OTHER = {
    "step_profile": "Where does the time of a training step go?",
    "import_time": "How long does it take to import the package?",
    "engine": "What does the training engine cost, on top of the step?",
    "scaling": "How efficient would several devices and hosts be? (computed)",
    "augmentation": "How fast is augmentation, against decoding alone?",
    "data_pipeline": "How fast is the input, against decoding, tf.data and PIL?",
    "many_files": "What does a folder of a million files cost?",
    "damaged_files": "Is every damaged file named, and what does that cost?",
    "tuning": "Does a search find better schedules, and what does it cost?",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How thoroughly a question is answered, and where the answer goes.

    Attributes:
        out: The directory of the results, a JSON file and a PNG file for each.
        quick: Whether networks, batches and repetitions are tiny: to see that
            everything works. What it measures means nothing.
        candidates: Patterns of the shell's kind; only those peers take part whose name
            fits one of them. All do where there are none.
    """

    out: Path = Path("benchmarks/results")
    quick: bool = False
    candidates: tuple[str, ...] = ()

    @property
    def repetitions(self) -> int:
        """How often each candidate is timed."""
        return 2 if self.quick else 5


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
    importlib.import_module(f"keras_alexnet.benchmarks.{name}").run(options)
