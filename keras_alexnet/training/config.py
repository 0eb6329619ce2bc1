"""The configuration of a training run: one frozen dataclass of plain values.

Its fields are the flags of `keras-alexnet train`, the keys of a run's `config.json`,
and what recipes set. This module imports nothing heavy: the command line's help is made
from it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from keras_alexnet.errors import UserError, unknown
from keras_alexnet.schedules import (
    Constant,
    Curriculum,
    Plateau,
    Schedule,
    parse_schedule,
)
from keras_alexnet.training.recipes import CHOOSING, recipe_settings
from keras_alexnet.training.setting_types import ScheduleText, conform, hints_of

# Settings that recipes may leave to be chosen (`choices`), where they are None.
CHOSEN = (
    *("architecture", "epochs", "global_batch_size", "learning_rate", "class_weights"),
    *("horizontal_flip", "crop_padding", "zoom", "rate_multipliers", "weight_decay"),
)

# Settings, what their values must be, and that in words.
_COUNTS = (
    *("epochs", "steps", "patience", "global_batch_size", "image_size", "resize_size"),
    *("micro_batches", "max_skipped_steps", "checkpoint_steps", "keep_checkpoints"),
    *("groups", "replicas", "adversarial_steps"),
)
_FRACTIONS = (
    *("test_fraction", "validation_fraction", "max_skipped", "momentum", "zoom"),
    "label_smoothing",
)
_RANGES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (_COUNTS, lambda value: value >= 1, "at least 1"),
    (
        ("crop_padding", "weight_decay", "rotation", "mixup", "cutmix"),
        lambda value: 0 <= value < math.inf,
        "finite and not negative",
    ),
    (
        ("clip_norm", "checkpoint_minutes", "width", "minutes"),
        lambda value: 0 < value < math.inf,
        "positive",
    ),
    (("seed",), lambda value: 0 <= value < 2**32, "in [0, 2**32)"),
    (_FRACTIONS, lambda value: 0 <= value < 1, "in [0, 1)"),
    (("ema",), lambda value: 0 < value < 1, "in (0, 1)"),
)

# Lists of LAYER=SCHEDULE: the word for a value, kinds that it cannot be, its limit.
_BY_LAYER: dict[str, tuple[str, tuple[type, ...], float]] = {
    "rate_multipliers": ("FACTOR", (Curriculum, Plateau), math.inf),
    "decay_multipliers": ("FACTOR", (Curriculum, Plateau), math.inf),
    "dropout_by_layer": ("RATE", (Plateau,), 1.0),
}

# Settings of earlier versions that are arguments of `train` now.
_RETIRED = {"run_dir", "resume"}


@dataclasses.dataclass(frozen=True, init=False)
class TrainConfig:
    """What is trained, on what and how.

    Args:
        **settings: Settings by name. What is not given is the recipe's, and where the
            recipe does not say either, the default below.

    Raises:
        ValueError: A name that is no setting, or a value of a wrong type or out of
            range.

    Example:
    >>> TrainConfig(recipe="alexnet-2012", data="folder:photos").learning_rate
    'step(0.01, boundaries=(0.275, 0.56, 0.868))'
    """

    recipe: str = "auto"
    """Named starting point for all other settings (see `keras-alexnet list recipes`),
    or auto: fine-tune with weights to start from, digits for the embedded digits,
    images for everything else. images leaves what is not given to be chosen from the
    images, when training begins."""
    data: str = "digits"
    """Images to train on: digits (embedded); folder:PATH with one sub-folder per class,
    or with train/ and val/ that hold them; csv:FILE with columns path and label;
    tfrecord:FILES, a folder or a pattern; decoded:FOLDER, as data --decoded writes
    it; or tfds:NAME of TensorFlow Datasets."""
    test_fraction: float = 0.2
    """Share of each class that is kept for testing, where the data are not split."""
    validation_fraction: float = 0.0
    """Share of each class's training images that is kept from training, to choose the
    best epoch by; where the data have a validation split, that is taken."""
    max_skipped: float = 0.01
    """Share of the images that may be damaged; more stop the run. A single one never
    does."""

    architecture: str | None = "alexnet_2012"
    """Network: see `keras-alexnet list`."""
    groups: int | None = None
    """Towers in the layers that have two; 1 joins them."""
    width: float = 1.0
    """What the filters and hidden units of the architecture are multiplied by."""
    conv: str = "default"
    """Registered name of a layer that takes the place of the convolutions."""
    norm: str = "default"
    """Registered name of a layer that takes the place of the normalisation; none leaves
    it out."""
    pool: str = "default"
    """Registered name of a layer that takes the place of the pooling."""
    activation: str = "default"
    """Registered name of a layer that takes the place of the activations."""
    weights: str | None = None
    """File of weights to start from, of any format that import-weights reads; what does
    not fit, such as an output layer for other classes, starts anew."""
    freeze: tuple[str, ...] = ()
    """Layers that are not trained: names, or patterns such as conv*."""

    channels: Literal[1, 3] | None = None
    """Colour channels of the network's input: 1 or 3; what the data have by default."""
    image_size: int | None = None
    """Height and width of the network's input, in pixels; the architecture's by
    default."""
    resize_size: int | None = None
    """Length to which the shorter side of an image is resized, before cropping; by
    default as much larger than the input as 256 is than 227."""
    fused_decode: bool = True
    """Whether large JPEG files are shrunk while they are decoded, and only the parts
    that training needs: faster, and nearly the same."""
    mean: Literal["pixel", "image"] = "pixel"
    """What is subtracted from images: the training images' mean pixel, or their mean
    image, as the 2012 program does."""
    augmentation: Literal["2012", "modern"] = "2012"
    """Random changes of training images: crop, flip and colour noise as in 2012; or a
    part of random size, flip and colour jitter."""
    augment_on: Literal["host", "device"] = "host"
    """Where images are changed: the device gets them whole, as bytes, and does the
    rest."""
    crop_padding: int | None = 0
    """Pixels of border added on each side before a random crop."""
    horizontal_flip: bool | None = True
    """Whether half of the training images are mirrored."""
    color_noise: ScheduleText = "0.1"
    """Standard deviation of the colour noise along the principal axes of the training
    images' colours, in units of the axes' own; colour images only. A number, or a
    schedule such as piecewise((0.1, 0), (0.74,)), which changes between epochs."""
    color_noise_form: Literal["paper", "program"] = "paper"
    """Colour noise as in the paper, which adds it; or as in the 2012 program, which
    then divides by 1 + color_noise."""
    color_statistics: Literal["measured", "published"] = "measured"
    """Colour axes: the training images' own, or those published for ImageNet."""
    mixup: float = 0.0
    """Shape of the beta distribution by which images are mixed with others; 0 for
    none."""
    cutmix: float = 0.0
    """The same for boxes of other images that are laid on images; 0 for none."""
    label_smoothing: float = 0.0
    """Share of a label's probability that is spread over all classes
    (arXiv:1512.00567)."""
    adversarial: str | None = None
    """Adversarial training: how far the numbers of images may be moved, before each
    step, to where the network errs most; a fraction of the range of pixels, such as
    8/255."""
    adversarial_steps: int = 1
    """Gradient steps by which they are moved."""
    rotation: float = 0.0
    """Largest random rotation, in degrees."""
    zoom: float | None = 0.0
    """Largest random change of scale, as a fraction."""

    class_weights: Literal["none", "balanced"] | None = "none"
    """What each class counts in the loss: all images the same, or all classes."""

    epochs: int | None = 90
    """Passes over the training images."""
    minutes: float | None = None
    """Time for the whole run, start and end included: decides the number of steps when
    a few have been timed, in place of epochs."""
    steps: int | None = None
    """Number of steps, in place of epochs; the last epoch may be shorter."""
    keep: Literal["last", "best"] = "last"
    """Which epoch's weights become the model: the last's, or those with the smallest
    error on the validation images."""
    patience: int | None = None
    """Epochs without a smaller error on the validation images after which the training
    ends; never by default."""
    global_batch_size: int | None = 128
    """Images per step, over all replicas."""
    learning_rate: ScheduleText | None = "step(0.01)"
    """Learning rate: a number, or a schedule such as cosine(0.05, warmup=0.1) or
    plateau(0.01)."""
    bias_multiplier: ScheduleText = "1"
    """What the learning rate is multiplied by for biases: a number or a schedule."""
    rate_multipliers: tuple[str, ...] | None = ()
    """What the learning rate is multiplied by in some layers, each LAYER=FACTOR: names
    or patterns, numbers or schedules, such as fc8=10 or "conv*=linear(1, end=0)". Of
    several that fit a layer the last one counts."""
    decay_multipliers: tuple[str, ...] = ()
    """What the weight decay is multiplied by in some layers, each LAYER=FACTOR: names
    or patterns, numbers. Of several that fit a layer the last one counts."""
    optimizer: Literal["momentum", "adamw"] = "momentum"
    """Stochastic gradient descent with momentum, as in 2012, or AdamW."""
    momentum: float = 0.9
    """Momentum; AdamW's decay of the first moment."""
    weight_decay: float | None = 0.0005
    """Decay of the kernels: an L2 penalty of half this size on each; with AdamW the
    part that a rate of 1 would take off in each step."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, such as 0.999, which is
    evaluated and becomes the model; none by default."""
    dropout: ScheduleText = "0.5"
    """Dropout rate: a number, or a schedule such as curriculum(0.5)."""
    dropout_by_layer: tuple[str, ...] = ()
    """Dropout rates of single layers, each LAYER=RATE, such as drop7=0.3 or
    "drop6=linear(0.5, end=0.2)"; the others have that of dropout."""

    seed: int = 0
    """Seed of the split, the initial weights, the data order, augmentation, dropout."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Precision of the computations; weights are kept in float32. auto: bfloat16 where
    the CPU or the GPUs compute it natively, else float32. With float16 the loss is
    scaled."""
    clip_norm: float | None = None
    """Largest norm of the gradients, over all replicas and weights; no limit by
    default."""
    micro_batches: int = 1
    """Parts into which each device cuts its share of a batch, to save memory."""
    max_skipped_steps: int = 20
    """How many steps in a row may have gradients that are not finite before the run
    stops. Such a step changes nothing."""
    xla: Literal["auto", "on", "off"] = "auto"
    """Whether XLA compiles the step on each replica; auto: on GPUs, not on CPUs."""
    replicas: int | None = None
    """Devices to train on: all GPUs by default, or one CPU. On a CPU, more than one
    makes as many logical devices."""
    deterministic: bool = False
    """Whether the same run gives the same bits on GPUs too, at some cost. On CPUs it
    does anyway."""
    checkpoint_minutes: float | None = 10.0
    """Time between two checkpoints within an epoch; there is one after each epoch."""
    checkpoint_steps: int | None = None
    """Steps between two checkpoints within an epoch."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay, besides the best."""

    def __init__(self, **settings: Any):
        settings = _conforming(settings)
        recipe, start = recipe_settings(
            settings.get("recipe", "auto"),
            settings.get("data", "digits"),
            settings.get("weights"),
        )
        values = {**DEFAULTS, **start, **settings, "recipe": recipe}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        for name, hint in hints_of(type(self)).items():
            value = conform(name, getattr(self, name), hint)
            object.__setattr__(self, name, value)
        for names, is_right, what in _RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not is_right(value):
                    raise UserError(f"{name} must be {what}. Received: {value}")
        self._check_augmentation()
        if self.learning_rate is not None:
            _check_schedule("learning_rate", self.learning_rate, (Curriculum,))
        _check_schedule("dropout", self.dropout, (Plateau,), 1.0)
        for name in ("color_noise", "bias_multiplier"):
            _check_schedule(name, getattr(self, name), (Curriculum, Plateau))
        for name in _BY_LAYER:
            self.by_layer(name)
        if self.recipe not in CHOOSING:
            for name in CHOSEN:
                if getattr(self, name) is None:
                    raise UserError(
                        f"{name} is chosen from the images by the recipes images and "
                        f"fine-tune only. Received: {name}=None, recipe={self.recipe}"
                    )
        self.check_fit(self.replicas or 1, self.image_size, self.resize_size)

    def check_fit(
        self, replicas: int, image_size: int | None, resize_size: int | None
    ) -> None:
        """Raises a ValueError unless a batch can be shared, and an image cropped.

        What is None is still to be chosen, and fits.
        """
        parts = replicas * self.micro_batches
        if self.global_batch_size is not None and self.global_batch_size % parts:
            raise UserError(
                f"A batch of {self.global_batch_size} cannot be shared equally by "
                f"{replicas} replicas in {self.micro_batches} micro-batches each: "
                f"choose a multiple of {parts} as global_batch_size."
            )
        if None in (image_size, resize_size, self.crop_padding):
            return
        if resize_size + 2 * self.crop_padding < image_size:
            raise UserError(
                "Nothing to crop: resize_size plus twice crop_padding must be at least "
                f"image_size. Received: resize_size={resize_size}, "
                f"crop_padding={self.crop_padding}, image_size={image_size}"
            )

    @property
    def label_probabilities(self) -> bool:
        """Whether labels are probabilities of `(batch, classes)` in a step."""
        return bool(self.mixup or self.cutmix or self.label_smoothing)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be chosen from the images."""
        return all(getattr(self, name) is not None for name in CHOSEN)

    @property
    def left_open(self) -> tuple[str, ...]:
        """Names of settings without a value that the run decides when it begins."""
        names = (*CHOSEN, "image_size", "resize_size") * (self.recipe in CHOOSING)
        names += ("steps",) * (self.minutes is not None)
        names = tuple(name for name in names if getattr(self, name) is None)
        return names + ("precision",) * (self.precision == "auto")

    def by_layer(self, name: str) -> dict[str, Schedule]:
        """Reads a setting that is a list of LAYER=SCHEDULE.

        Returns:
            Functions of progress by name or pattern of layers, in the order given.

        Raises:
            ValueError: One is written otherwise, is given twice, or is no such
                schedule.
        """
        what, unsuitable, limit = _BY_LAYER[name]
        schedules: dict[str, Schedule] = {}
        for text in getattr(self, name) or ():
            layer, equals, value = (part.strip() for part in text.partition("="))
            if not layer or not equals or layer in schedules:
                raise UserError(
                    f"{name} are written LAYER={what}, each layer once. "
                    f"Received: {text!r}"
                )
            full_name = f"{name} {layer}"
            schedules[layer] = _check_schedule(full_name, value, unsuitable, limit)
            if name == "decay_multipliers" and type(schedules[layer]) is not Constant:
                raise UserError(f"{full_name} must be a number. Received: {text!r}")
        return schedules

    def _check_augmentation(self) -> None:
        if self.augmentation == "modern" and (
            self.crop_padding or self.rotation or self.zoom
        ):
            raise UserError(
                "augmentation=modern has no crop_padding, rotation and zoom. Leave "
                "them at 0, or choose augmentation=2012."
            )
        if self.augment_on == "device" and (
            self.augmentation == "modern" or self.mixup or self.cutmix
        ):
            raise UserError(
                "augmentation=modern, mixup and cutmix happen on the host. Choose "
                "augment_on=host."
            )

    def to_json(self) -> str:
        """Returns the configuration as JSON, ready for a file."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def updated(self, values: dict[str, Any]) -> TrainConfig:
        """Returns this configuration with other values of some settings.

        Raises:
            ValueError: A key that is no setting, or a value that it cannot have.
        """
        return dataclasses.replace(self, **_conforming(values))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Makes a configuration from a dictionary, such as a parsed config.json.

        Raises:
            ValueError: As `TrainConfig`.
        """
        return cls(**_without_retired(values))

    @classmethod
    def from_file(cls, path: str | Path) -> TrainConfig:
        """Reads a configuration from a JSON file.

        Raises:
            ValueError: There is no such file, it is not JSON, or a setting is wrong.
        """
        return cls(**read_settings(path))


DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}


def get_recipe(name: str, data: str = "digits") -> TrainConfig:
    """Returns the configuration that a recipe stands for.

    Args:
        name: A name of `keras-alexnet list recipes`, or `"auto"` for the one that suits
            the data.
        data: Where the images come from.

    Raises:
        ValueError: There is no such recipe.
    """
    return TrainConfig(recipe=name, data=data)


def read_settings(path: str | Path) -> dict[str, Any]:
    """Reads settings, all or some, each of its own type, from a JSON file.

    Raises:
        ValueError: There is no such file, it is not JSON, or a setting is unknown or
            wrong.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold settings.")
    try:
        return _conforming(_without_retired(values))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _without_retired(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _RETIRED}


def _conforming(values: dict[str, Any]) -> dict[str, Any]:
    """Returns settings, each of its own type."""
    hints = hints_of(TrainConfig)
    for name in values:
        if name not in hints:
            raise UserError(unknown(name, "setting", hints))
    return {name: conform(name, value, hints[name]) for name, value in values.items()}


def _check_schedule(
    name: str, text: str, unsuitable: tuple[type, ...], limit: float = math.inf
) -> Schedule:
    """Returns a schedule that is of a suitable kind and stays in [0, limit).

    Raises:
        ValueError: It is not, or cannot be read.
    """
    try:
        schedule = parse_schedule(text)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    if isinstance(schedule, unsuitable):
        kind = type(schedule).__name__.lower()
        purpose = "the dropout rate" if kind == "curriculum" else "the learning rate"
        raise UserError(
            f"{name} cannot be a {kind}, which is for {purpose} only. "
            f"Received: {text!r}"
        )
    points = [percent / 100 for percent in range(101)]
    points += getattr(schedule, "boundaries", ())
    if not all(0 <= schedule(point) < limit for point in points):
        raise UserError(
            f"{name} must be a number in [0, {limit}) throughout. Received: {text!r}"
        )
    return schedule
