"""Questions that there are benchmarks for, and the options that all of them take."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from keras_alexnet.errors import UserError, unknown

# Each is a module here with a function `run(report)`.
USUAL = {
    "training_step": "How fast is a training step, and which part of the limit is it?",
    "inference": "How fast is inference, over batch sizes?",
    "operations": "Which normalisation and convolutions are the fastest here?",
}
OTHER = {
    "limits": "What can this device do at best: matrix products and copies?",
    "engine": "How much of the bare step's speed does the training loop have?",
    "data_pipeline": "How fast is the input, against decoding and tf.data?",
    "features": "How fast are features of photographs, from files to fc7?",
    "own_images": "A folder of images: how good, how soon, beside plain Keras?",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How thoroughly a question is answered, and where the answer goes.

    The fields are flags of `keras-alexnet benchmark`, which explains them.
    """

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
    out: Path = Path("benchmarks/results")
    """Directory to write the answers to."""
    # When the question was asked.
    started: float = dataclasses.field(default_factory=time.monotonic, init=False)

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


def check(names: Sequence[str], options: Options) -> None:
    """Finds out what would come to light only after the measuring.

    Args:
        names: Questions.
        options: How they will be asked; the directory of the results is made.

    Raises:
        UserError: There is no such question, an option makes no sense, or the directory
            cannot be made.
    """
    for name in names:
        if name not in {**USUAL, **OTHER}:
            raise UserError(unknown(name, "question", {**USUAL, **OTHER}))
    for name in ("batch_sizes", "time_limit", "epochs", "minutes", "seeds"):
        given = getattr(options, name)
        for value in given if isinstance(given, tuple) else (given,):
            if value is not None and not value > 0:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} must be positive. Received: {value}")
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
