"""Checkpoints: everything that the next step depends on, never half-written.

A checkpoint is two files: `step-N.safetensors` with every variable, and
`step-N.json` with the position in training, the history and a checksum of both.
Each is written under another name, flushed to disk and renamed into place, the second
after the first: a checkpoint counts when its second file exists and the checksum fits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from keras_alexnet.errors import UserError
from keras_alexnet.files import discard_unfinished, replacing, write_whole
from keras_alexnet.training.optimizer import AVERAGE


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A saved state: variables by name, and `record`, JSON values beside them."""

    step: int
    record: dict[str, Any]
    arrays: dict[str, np.ndarray]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        directory: Where they are.
        keep: How many of the newest stay; the best stays besides.
    """

    def __init__(self, directory: Path, keep: int = 2):
        self.directory = directory
        self.keep = keep

    def save(
        self,
        step: int,
        values: dict[str, tf.Tensor],
        record: dict[str, Any],
    ) -> None:
        """Saves a state: what `snapshot` returned, and JSON values.

        Raises:
            OSError: It could not be written; what was there before still is.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with replacing(self._arrays(step)) as partial:
            try:
                # Scalars are NumPy's own numbers without this.
                arrays = {name: np.asarray(v.numpy()) for name, v in values.items()}
                save_file(arrays, partial)
            except SafetensorError as error:
                # Its way of saying that the disk is full.
                raise OSError(str(error)) from None
            with partial.open("rb") as file:
                while block := file.read(2**24):
                    digest.update(block)
        record = {**record, "step": step}
        digest.update(_canonical(record))
        record["sha256"] = digest.hexdigest()
        write_whole(self._record(step), json.dumps(record))

    def prune(self, step: int, best_step: int | None = None) -> None:
        """Deletes all checkpoints but those of the newest steps and of the best.

        Those of steps later than `step` are damaged ones, which a resumed run has
        passed over.

        Raises:
            OSError: One could not be deleted.
        """
        steps = self.steps()
        later = [old for old in steps if old > step]
        older = [old for old in steps if old <= step][: -self.keep]
        for old in later + older:
            if old != best_step:
                # The record first: without it the arrays do not count.
                self._record(old).unlink()
                self._arrays(old).unlink(missing_ok=True)

    def discard_unfinished(self) -> None:
        """Deletes what a process left that was killed while it wrote or deleted."""
        discard_unfinished(self.directory)
        for path in self.directory.glob("step-*.safetensors"):
            if not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)

    def load(self, which: Literal["best", "last"] = "last") -> Checkpoint | None:
        """Reads the newest checkpoint that is whole; None if there has been none.

        `"best"` is that with the smallest validation error; the newest where that is
        damaged.

        Raises:
            ValueError: There are checkpoints, and all are damaged.
        """
        steps = self.steps()[::-1]
        if which == "best":
            best = self._best_step()
            steps.sort(key=lambda step: step != best)
        for step in steps:
            with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
                record = json.loads(self._record(step).read_bytes())
                expected = record.pop("sha256")
                content = self._arrays(step).read_bytes()
                digest = hashlib.sha256(content + _canonical(record)).hexdigest()
                if digest == expected:
                    return Checkpoint(step, record, load(content))
            warnings.warn(
                f"The checkpoint {self._arrays(step)} is damaged; trying the one "
                "before it.",
                stacklevel=2,
            )
        if self.steps():
            raise UserError(
                f"All checkpoints in {self.directory} are damaged. Delete them to "
                "start from the beginning."
            )
        return None

    def _best_step(self) -> int | None:
        for step in reversed(self.steps()):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                return best_step(json.loads(self._record(step).read_bytes())["history"])
        return None

    def steps(self) -> list[int]:
        """Lists the steps of the checkpoints, ascending."""
        records = self.directory.glob(f"step-{'[0-9]' * 9}.json")
        return sorted(int(path.stem.removeprefix("step-")) for path in records)

    def _arrays(self, step: int) -> Path:
        return self.directory / f"step-{step:09d}.safetensors"

    def _record(self, step: int) -> Path:
        return self.directory / f"step-{step:09d}.json"


def _canonical(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True).encode()


def best_step(history: list[dict[str, float]]) -> int | None:
    """Returns the step with the smallest validation error, the first of equals."""
    rated = [row for row in history if "val_top1_error" in row]
    return min(rated, key=lambda row: row["val_top1_error"])["step"] if rated else None


def snapshot(model: keras.Model) -> dict[str, tf.Tensor]:
    """Takes the values of a model, of its optimizer and of its metrics.

    Nothing is copied here: TensorFlow copies a variable's memory when the next step
    changes it while it is still in use. All hosts must call this at the same step,
    because metrics are added up over all.
    """
    return {name: tf.convert_to_tensor(v.value) for name, v in _variables(model)}


def restore(checkpoint: Checkpoint, model: keras.Model) -> None:
    """Puts a checkpoint's values into a model and its optimizer.

    A model that is not compiled is for inference, and gets its weights only: their
    moving averages, where the optimizer kept them.

    Raises:
        ValueError: The checkpoint is of another model; the first difference is named.
    """
    variables, arrays = dict(_variables(model)), checkpoint.arrays
    if not model.compiled:
        arrays = {name: one for name, one in arrays.items() if name.startswith("model")}
    for here, there, where in (
        (variables, arrays, "missing in it"),
        (arrays, variables, "in it only"),
    ):
        if others := sorted(here.keys() - there.keys()):
            raise UserError(
                "The checkpoint is of another model or version: "
                f"{others[0]} is {where}."
            )
    for name, variable in variables.items():
        array = checkpoint.arrays[name]
        if tuple(variable.shape) != array.shape:
            raise UserError(
                f"The checkpoint is of another model: {name} has the shape "
                f"{array.shape} there and {tuple(variable.shape)} here."
            )
    averages = {} if model.compiled else _averages(checkpoint)
    for name, variable in variables.items():
        path = variable.path.replace("/", "_")
        variable.assign(averages.get(path, checkpoint.arrays[name]))


def _averages(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Returns the moving averages of weights, by the path of their variable."""
    return {
        name.split("/", 2)[2].removesuffix(f"_{AVERAGE}"): array
        for name, array in checkpoint.arrays.items()
        if name.startswith("optimizer/") and name.endswith(f"_{AVERAGE}")
    }


def _variables(model: keras.Model) -> Iterable[tuple[str, keras.Variable]]:
    """Yields weights, seeds, optimizer and metric states, each under its own name."""
    # Names that a new process gives them too. Paths would not do: a seed's holds a
    # number that counts up within a process.
    for kind, variables in (
        ("model", model.variables),
        ("optimizer", model.optimizer.variables if model.compiled else ()),
        ("metrics", model.metrics_variables),
    ):
        for index, variable in enumerate(variables):
            yield f"{kind}/{index}/{variable.name}", variable
