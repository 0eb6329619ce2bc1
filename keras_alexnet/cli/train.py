"""Train a network."""

from __future__ import annotations

import sys

from keras_alexnet.errors import UserError
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.loop import Interrupted
from keras_alexnet.training.train import train


def run(config: TrainConfig) -> int:
    """Trains, and prints the result."""
    if config.recipe == "fine-tune" and config.weights is None:
        raise UserError(
            "The recipe fine-tune starts from trained weights: name their file with "
            "--weights."
        )
    try:
        result = train(config)
    except Interrupted as stop:
        print(
            f"\nStopped by {stop}; everything is saved. Continue with: "
            f"keras-alexnet train --run-dir {config.run_dir} --resume"
        )
        return 128 + stop.signal_number
    if result.finished_before:
        print(f"{result.run_dir} has finished already; nothing to do.")
    top1, top5 = result.metrics["top1_error"], result.metrics["top5_error"]
    print(
        f"Test images: top-1 error {top1:.2%}, top-5 error {top5:.2%} "
        f"(accuracy {1 - top1:.2%}). Everything is in {result.run_dir}."
    )
    if result.failures:
        finished = (result.run_dir / "result.json").is_file()
        print(
            f"But something could not be written, {len(result.failures)} times; the "
            f"last: {result.failures[-1]}. "
            + (
                "The results are complete."
                if finished
                else "Repair that and repeat the command with --resume."
            ),
            file=sys.stderr,
        )
    return 1 if result.failures else 0
