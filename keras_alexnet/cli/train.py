"""`keras-alexnet train`: train a network."""

from __future__ import annotations

import dataclasses
import sys

import tyro

from keras_alexnet.startup import STARTED
from keras_alexnet.training.config import TrainConfig, read_settings
from keras_alexnet.training.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Train(TrainConfig):
    """Train a network and keep everything about the run in one directory."""

    run_dir: str = "runs/latest"
    """Directory of the run: configuration, checkpoints, history, figures, model."""
    resume: bool = False
    """Continue the run in the run directory from its last checkpoint."""
    overwrite: bool = False
    """Replace the run in the run directory."""
    quiet: bool = False
    """Print one line for each epoch instead of a progress bar."""
    wandb: bool = False
    """Log settings and metrics to Weights & Biases."""
    mlflow: bool = False
    """Log settings and metrics to MLflow."""
    gpu_memory: float | None = None
    """GiB of each GPU's memory that a process takes at most. By default what it needs,
    as it needs it."""
    config: str | None = None
    """JSON file of settings, such as a run's config.json. They outrank the recipe's;
    flags outrank them."""

    @classmethod
    def before_flags(cls, arguments: list[str]) -> Train:
        """Returns what flags start from: a recipe or a run to resume, then a file."""

        @dataclasses.dataclass(frozen=True)
        class Base:
            run_dir: str = Train.run_dir
            recipe: str | None = None
            data: str | None = None
            weights: str | None = None
            resume: bool = False
            config: str | None = None

        base, _ = tyro.cli(
            Base, args=arguments, return_unknown_args=True, add_help=False
        )
        values = read_settings(base.config) if base.config else {}
        if base.resume:
            start = RunDirectory(base.run_dir).to_resume().updated(values)
        else:
            names = "recipe", "data", "weights"
            flags = {name: getattr(base, name) for name in names}
            given = {name: value for name, value in flags.items() if value is not None}
            start = TrainConfig(**{**values, **given})
        return cls(**vars(start))

    def settings(self) -> TrainConfig:
        """Returns what is trained, without where it goes."""
        fields = dataclasses.fields(TrainConfig)
        return TrainConfig(
            **{field.name: getattr(self, field.name) for field in fields}
        )

    def run(self) -> int:
        """Trains, and prints the result."""
        from keras_alexnet.training.loop import Interrupted
        from keras_alexnet.training.trackers import TRACKERS
        from keras_alexnet.training.train import train

        try:
            result = train(
                self.settings(),
                self.run_dir,
                resume=self.resume,
                overwrite=self.overwrite,
                trackers=[name for name in TRACKERS if getattr(self, name)],
                quiet=self.quiet,
                started=STARTED,
            )
        except Interrupted as stop:
            print(
                f"\nStopped by {stop}; everything is saved. Continue with: "
                f"keras-alexnet train --run-dir {self.run_dir} --resume"
            )
            return 128 + stop.signal_number
        if result.finished_before:
            print(f"{result.run_dir} has finished already; nothing to do.")
        top1, top5 = result.metrics["top1_error"], result.metrics["top5_error"]
        print(
            f"Test images: top-1 error {top1:.2%}, top-5 error {top5:.2%} "
            f"(accuracy {1 - top1:.2%}). Everything is in {result.run_dir}."
        )
        if not result.failures:
            return 0
        finished = (result.run_dir / "result.json").is_file()
        advice = "Repair that and repeat the command with --resume."
        print(
            f"But something could not be written, {len(result.failures)} times; the "
            f"last: {result.failures[-1]}. "
            + ("The results are complete." if finished else advice),
            file=sys.stderr,
        )
        return 1
