"""Default settings for users' own images, chosen from what the images are."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_alexnet.architectures import get_architecture
from keras_alexnet.data.dataset import Dataset, Split
from keras_alexnet.data.opening import open_dataset
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.weights.catalog import find_weights
from keras_alexnet.weights.reading import read_weights
from keras_alexnet.weights.recognition import network_of
from keras_alexnet.weights.weight_file import WeightFile

# Images up to this side are learnt as they are, by a network for small images.
SMALL = 96
# Fewer photographs than that do not teach a network of 62 million weights.
MANY = 10_000
# Of the largest class to the smallest; classes count alike from there on.
UNBALANCED = 1.5
# Names of characters that are longer than one.
CHARACTERS = set(
    "zero one two three four five six seven eight nine digit letter".split()
)
SAMPLE = 64


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of training images before any is learnt from.

    Attributes:
        images: How many there are.
        side: The median of the shorter sides of some of them, in pixels.
        imbalance: Images of the largest class over those of the smallest; 1 where
            labels are not known.
        characters: Whether the classes are named like characters.
    """

    images: int
    side: int
    imbalance: float
    characters: bool

    @classmethod
    def of(cls, dataset: Dataset) -> Facts:
        """Looks at a dataset, and at some of its images, evenly spaced."""
        train = dataset.train
        # Damaged images have no size; training names them.
        sides = [side for side in map(_side, _files(train)) if side]
        counts = np.ones(1)
        if train.labels is not None:
            counts = np.bincount(train.labels, minlength=train.classes)
        names = [name.lower() for name in dataset.class_names]
        return cls(
            images=len(train),
            side=round(statistics.median(sides)) if sides else SMALL,
            imbalance=float(counts.max() / max(counts.min(), 1)),
            characters=all(len(name) == 1 or name in CHARACTERS for name in names),
        )


def _files(split: Split) -> Iterator[bytes]:
    """Yields some files, evenly spaced."""
    for place in np.linspace(0, len(split) - 1, min(SAMPLE, len(split))):
        with contextlib.suppress(tf.errors.OpError):
            yield split.file(int(place)).numpy()


def _side(encoded: bytes) -> int | None:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def choose(config: TrainConfig, facts: Facts) -> tuple[TrainConfig, list[str]]:
    """Fills in the settings of a configuration that are None.

    A function of its arguments alone, and of the weights to start from. Returns the
    configuration, and one line for each choice, with its reason.
    """
    settings: dict[str, Any] = {}
    reasons: list[str] = []

    def take(name: str, value: Any, reason: str) -> Any:
        given = getattr(config, name)
        if given is not None:
            return given
        settings[name] = value
        reasons.append(f"{name} {value}: {reason}")
        return value

    images = f"{facts.images:,} training images"
    small = facts.side <= SMALL
    few = facts.images < MANY
    size, weights = config.image_size, None
    is_open = None in (config.architecture, config.rate_multipliers)
    if config.weights is not None and is_open:
        weights = read_weights(find_weights(config.weights))
    if weights is not None and config.architecture is None:
        architecture, own_size, why = _network_of_weights(weights, config, facts)
        take("architecture", architecture, f"that of {config.weights}")
        size = take("image_size", own_size, why) if own_size else size
    else:
        architecture = take("architecture", *_network(config, facts))
    if size is None:
        size = get_architecture(architecture).input_size
        if architecture == "alexnet_small":
            size = max(facts.side, size) if small else SMALL
            take("image_size", size, f"images of {facts.side} pixels")
    faster = _multipliers(weights, config, architecture)
    take("rate_multipliers", faster, "layers that begin anew")
    if small:
        take("resize_size", size, "nothing is cut off small images")
    batch = 128 if facts.images >= 5000 else 64 if facts.images >= 1000 else 32
    batch = take("global_batch_size", batch, images)
    # 20 passes over 50,000 images; fewer images are seen more often.
    epochs = round(20 * (50_000 / facts.images) ** 0.35)
    take("epochs", min(max(epochs, 15), 100), images)
    # Proportional to the batch (https://arxiv.org/abs/1706.02677).
    adam = config.optimizer == "adamw"
    rate = (0.002 if adam else 0.1) * batch / 128
    normalised = architecture in ("alexnet_small", "alexnet_bn")
    rate = rate if normalised else rate / 5
    take("weight_decay", 0.05 if adam else 0.0005, f"usual with {config.optimizer}")
    why = f"batches of {batch}, {'with' if normalised else 'without'} batch norm"
    take("learning_rate", f"cosine({rate:g}, warmup=0.15)", why)
    flips = "characters have a direction" if facts.characters else "no characters"
    take("horizontal_flip", not facts.characters, flips)
    take("crop_padding", size // 8 if small else 0, f"inputs of {size} pixels")
    take("zoom", 0.1 if few else 0.0, images)
    balanced = facts.imbalance > UNBALANCED
    take(
        "class_weights",
        "balanced" if balanced else "none",
        f"the largest class has {facts.imbalance:.3g} times as many as the smallest",
    )
    return config.updated(settings), reasons


def _network(config: TrainConfig, facts: Facts) -> tuple[str, str]:
    """Returns an architecture, where there are no weights to say it, and a reason."""
    if facts.side <= SMALL:
        return "alexnet_small", f"images of {facts.side} pixels"
    images = f"{facts.images:,} training images"
    if facts.images < MANY:
        return "alexnet_small", f"{images} are few for a larger network"
    return "alexnet_bn", f"{images} of {facts.side} pixels"


def _network_of_weights(
    weights: WeightFile, config: TrainConfig, facts: Facts
) -> tuple[str, int | None, str]:
    """Returns the weights' architecture, a size of its input, and that one's reason."""
    network = network_of(weights)
    size, why = network.input_size, f"that of {config.weights}"
    if size and facts.side <= SMALL and "fc6" not in weights.layers:
        # A quarter of the pixels: small images have no more detail, and the dense
        # layers, which the size would have to fit, begin anew.
        size, why = size // 2, f"half {why}, for images of {facts.side} pixels"
    return network.architecture, size, why


def _multipliers(
    weights: WeightFile | None, config: TrainConfig, architecture: str
) -> tuple[str, ...]:
    """Returns what the layers learn faster by that the weights do not have."""
    if weights is None or config.rate_multipliers is not None:
        return ()
    known = weights.layers
    ours = get_architecture(architecture).kernel_shapes()
    return tuple(
        f"{name}=10"
        for name in ("fc6", "fc7", "fc8")
        if name in ours and (name == "fc8" or name not in known)
    )


def open_images(config: TrainConfig) -> Dataset:
    """Opens the images of a configuration, in the splits that training needs."""
    return open_dataset(
        config.data,
        seed=config.seed,
        test_fraction=config.test_fraction,
        validation_fraction=config.validation_fraction,
        channels=config.channels,
    )
