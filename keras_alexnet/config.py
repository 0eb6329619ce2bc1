"""The configuration of a training run: one frozen dataclass of plain values.

Its fields are the flags of `keras-alexnet train`, the keys of a run's `config.json`,
and what recipes set. This module imports nothing heavy: the command line's help is made
from it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

from keras_alexnet.errors import unknown
from keras_alexnet.schedules import parse_schedule

# The type hints say the same, to the command line; a config.json is checked here.
CHOICES = {
    "channels": (None, 1, 3),
    "precision": ("float32", "bfloat16"),
    "xla": ("auto", "on", "off"),
}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train a network and keep everything about the run in one directory."""

    run_dir: str = "runs/latest"
    """Directory of the run: configuration, checkpoints, history, figures, model."""
    recipe: str = "auto"
    """Named starting point for all other settings: digits, alexnet-2012, or auto, which
    is digits for the embedded digits and alexnet-2012 for everything else."""
    data: str = "digits"
    """Images to train on: digits (embedded); folder:PATH with one sub-folder per class,
    or with train/ and val/ that hold them; csv:FILE with columns path and label;
    tfrecord:FILES, a folder or a pattern; or tfds:NAME of TensorFlow Datasets."""
    test_fraction: float = 0.2
    """Share of each class that is kept for testing, where the data are not split."""
    max_skipped: float = 0.01
    """Share of the images that may be damaged; more stop the run. A single one never
    does."""

    architecture: str = "alexnet_2012"
    """Network: see `keras-alexnet list`."""
    groups: int | None = None
    """Towers in the layers that have two; 1 joins them."""
    conv: str = "default"
    """Registered name of a layer that takes the place of the convolutions."""
    norm: str = "default"
    """Registered name of a layer that takes the place of the normalisation; none leaves
    it out."""
    pool: str = "default"
    """Registered name of a layer that takes the place of the pooling."""
    activation: str = "default"
    """Registered name of a layer that takes the place of the activations."""

    channels: Literal[1, 3] | None = None
    """Colour channels of the network's input: 1 or 3; what the data have by default."""
    image_size: int | None = None
    """Height and width of the network's input, in pixels; the architecture's by
    default."""
    resize_size: int | None = None
    """Length to which the shorter side of an image is resized, before cropping; by
    default as much larger than the input as 256 is than 227."""
    crop_padding: int = 0
    """Pixels of border added on each side before a random crop."""
    horizontal_flip: bool = True
    """Whether half of the training images are mirrored."""
    color_noise: float = 0.1
    """Standard deviation of the colour noise along the principal axes of the training
    images' colours, in units of the axes' own; colour images only."""
    rotation: float = 0.0
    """Largest random rotation, in degrees."""
    zoom: float = 0.0
    """Largest random change of scale, as a fraction."""

    epochs: int = 90
    """Passes over the training images."""
    global_batch_size: int = 128
    """Images per step, over all replicas."""
    learning_rate: str = "step(0.01)"
    """Learning rate: a number, or a schedule such as cosine(0.05, warmup=0.1)."""
    momentum: float = 0.9
    """Momentum of stochastic gradient descent."""
    weight_decay: float = 0.0005
    """Decay of the kernels: an L2 penalty of half this size on each."""
    dropout: str = "0.5"
    """Dropout rate: a number, or a schedule such as linear(0.5, end=0.2)."""

    seed: int = 0
    """Seed of the split, the initial weights, the data order, augmentation, dropout."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the computations; weights are kept in float32."""
    xla: Literal["auto", "on", "off"] = "auto"
    """Whether XLA compiles the step on each replica; auto: on GPUs, not on CPUs."""
    replicas: int | None = None
    """Devices to train on: all GPUs by default, or one CPU. On a CPU, more than one
    makes as many logical devices."""
    resume: bool = False
    """Continue the run in the run directory from its last checkpoint."""

    def __post_init__(self) -> None:
        for name in ("epochs", "global_batch_size", "image_size", "resize_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {value}")
        for name in ("crop_padding", "color_noise", "weight_decay", "rotation"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"{name} must be finite and not negative. Received: {value}"
                )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32). Received: {self.seed}")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(map(str, choices))}. "
                    f"Received: {value}"
                )
        for name in ("groups", "replicas"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {value}")
        for name in ("test_fraction", "max_skipped", "momentum", "zoom"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1). Received: {value}")
        if self.resize_size and self.image_size:
            if self.resize_size + 2 * self.crop_padding < self.image_size:
                raise ValueError(
                    "Nothing to crop: resize_size plus twice crop_padding must be at "
                    f"least image_size. Received: resize_size={self.resize_size}, "
                    f"crop_padding={self.crop_padding}, image_size={self.image_size}"
                )
        _check_schedule("learning_rate", self.learning_rate, math.inf)
        _check_schedule("dropout", self.dropout, 1.0)
        if self.replicas and self.global_batch_size % self.replicas:
            raise ValueError(
                f"A batch of {self.global_batch_size} cannot be shared equally by "
                f"{self.replicas} replicas: choose a multiple of {self.replicas} as "
                "global_batch_size."
            )

    def to_json(self) -> str:
        """Returns the configuration as JSON, ready for a file."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Makes a configuration from a dictionary, such as a parsed config.json.

        Raises:
            ValueError: A key that is no field, or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise ValueError(unknown(key, "setting", known))
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(
                f"A setting has a value of a wrong type: {error}"
            ) from None

    @classmethod
    def from_file(cls, path: str | Path) -> TrainConfig:
        """Reads a configuration from a JSON file.

        Raises:
            ValueError: There is no such file, it is not JSON, or a setting is wrong.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"Cannot read {path}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path} does not hold settings.")
        return cls.from_dict(values)


def _check_schedule(name: str, text: str, limit: float) -> None:
    """Raises a ValueError unless a schedule stays in [0, limit) for the whole run."""
    schedule = parse_schedule(text)
    if not all(0 <= schedule(percent / 100) < limit for percent in range(101)):
        raise ValueError(
            f"{name} must be a number in [0, {limit}) throughout. Received: {text!r}"
        )
