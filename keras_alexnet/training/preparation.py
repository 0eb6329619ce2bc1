"""What a run consists of, made from its configuration: devices, data, network."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.architectures import get_architecture
from keras_alexnet.builder import build
from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.dataset import Dataset
from keras_alexnet.data.measure import measure, published_axes
from keras_alexnet.data.mixing import Mixing
from keras_alexnet.errors import UserError
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.model import POLICIES, AlexNet
from keras_alexnet.schedules import parse_schedule, per_epoch
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.optimizer import DecayedAdam, DecayedMomentum
from keras_alexnet.training.rates import decays, dropouts, frozen_layers, multipliers
from keras_alexnet.training.run_directory import RunDirectory
from keras_alexnet.training.strategy import describe, make_deterministic, use_xla

OPTIMIZERS = {"momentum": DecayedMomentum, "adamw": DecayedAdam}


def build_network(
    config: TrainConfig,
    *,
    channels: int,
    classes: int,
    dtype: str | None = None,
    weights: str | None = None,
) -> AlexNet:
    """Builds the network of a configuration, not yet compiled."""
    image_size, _ = sizes(config)

    def override(value: str) -> str | None:
        return None if value.lower() == "none" else value

    architecture = get_architecture(config.architecture).widened(config.width)
    drops = any(spec.role == "dropout" for spec in architecture.top)
    return build(
        architecture,
        input_shape=(image_size, image_size, channels),
        classes=classes,
        groups=config.groups,
        conv=config.conv,
        norm=override(config.norm),
        pool=override(config.pool),
        activation=override(config.activation),
        dropout=parse_schedule(config.dropout)(0.0) if drops else "default",
        dtype=dtype,
        weights=weights,
    )


def make_model(config: TrainConfig, source: Dataset, why: str) -> AlexNet:
    """Makes the compiled model, with all of its variables.

    `why` is the reason of its precision, for people.
    """
    classes = len(source.class_names)
    jit_compile, reason = use_xla(config.xla, config.deterministic)
    model = build_network(
        config,
        channels=source.channels,
        classes=classes,
        dtype=POLICIES[config.precision],
        weights=config.weights,
    )
    loss: keras.losses.Loss = keras.losses.SparseCategoricalCrossentropy()
    accuracy = keras.metrics.SparseCategoricalAccuracy
    if config.label_probabilities:
        loss = keras.losses.CategoricalCrossentropy(
            label_smoothing=config.label_smoothing
        )
        accuracy = keras.metrics.CategoricalAccuracy
    for name, schedule in dropouts(config, model).items():
        model.get_layer(name).rate = schedule(0.0)
    for name in frozen_layers(config, model):
        model.get_layer(name).trainable = False
    factors = multipliers(config, model)
    model.micro_batches = config.micro_batches
    if config.deterministic:
        make_deterministic(model, jit_compile)
    model.compile(
        optimizer=OPTIMIZERS[config.optimizer](
            parse_schedule(config.learning_rate)(0.0),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            multipliers={name: factor(0.0) for name, factor in factors.items()},
            decay_multipliers=decays(config, model),
            dynamic_loss_scale=config.precision == "float16",
            average=config.ema,
            global_clipnorm=config.clip_norm,
        ),
        loss=loss,
        # An object, whose variables exist now: by its name, Keras would make it within
        # the traced step, which several replicas do not allow.
        # Damaged images have a weight of 0.
        weighted_metrics=[accuracy("accuracy")],
        jit_compile=jit_compile,
        # Keras would wrap the optimizer in one that looks at one replica alone.
        auto_scale_loss=False,
    )
    _make_state(model, config.label_probabilities)
    print(
        f"{config.architecture}, {model.count_params():,} parameters; "
        f"{_described(source)} images of {len(source.class_names)} classes; "
        f"{', '.join(describe(tf.distribute.get_strategy()))}; "
        f"{config.precision}: {why}; "
        f"XLA {'on' if jit_compile else 'off'}: {reason}"
    )
    return model


def _make_state(model: AlexNet, label_probabilities: bool) -> None:
    """Makes the states of optimizer and metrics, as Keras would in the first step.

    A checkpoint holds them; they must exist to be restored.
    """
    model.optimizer.build(model.trainable_variables)
    classes = model.output_shape[-1]
    outputs = tf.fill((1, classes), 1 / classes)
    labels = outputs if label_probabilities else tf.zeros((1,), tf.int32)
    strategy = tf.distribute.get_strategy()
    with _without_warnings():  # That running eagerly is slow. It is once.
        strategy.run(model.compute_metrics, args=(None, labels, outputs, tf.ones((1,))))
    model.reset_metrics()


def _described(source: Dataset) -> str:
    splits = {"training": source.train, "validation": source.validation}
    splits["test"] = source.test
    parts = [f"{len(split):,} {name}" for name, split in splits.items() if split]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def sizes(config: TrainConfig) -> tuple[int, int]:
    """Returns the network's input size and the size that images are resized to."""
    image_size = config.image_size or get_architecture(config.architecture).input_size
    # As much larger as the 256 of the paper than the 227 of its network.
    return image_size, config.resize_size or math.ceil(image_size * 256 / 227)


def unmeasured(
    config: TrainConfig, source: Dataset, of_weights: Preprocessing | None
) -> Preprocessing:
    """Returns what the network expects, but for a mean that is still to be measured.

    That of the weights to start from goes on.
    """
    image_size, resize_size = sizes(config)
    if of_weights is not None and of_weights.channels == source.channels:
        preprocessing = of_weights.with_image_size(image_size)
        if config.resize_size:
            preprocessing = dataclasses.replace(preprocessing, resize_size=resize_size)
        return preprocessing
    return Preprocessing(
        image_size=image_size,
        resize_size=resize_size,
        channels=source.channels,
        mean=(0.0,) * source.channels,
        scale=get_architecture(config.architecture).pixel_scale,
        fused_decode=config.fused_decode,
    )


def describe_data(
    run: RunDirectory,
    config: TrainConfig,
    source: Dataset,
    of_weights: Preprocessing | None,
    choices: Sequence[str] = (),
) -> None:
    """Measures the training images and writes data.json, once for a run."""
    if (run / "data.json").is_file():
        return
    preprocessing = unmeasured(config, source, of_weights)
    measured = measure(source.train, preprocessing.geometry, seed=config.seed)
    if of_weights is None or of_weights.channels != source.channels:
        preprocessing = dataclasses.replace(
            preprocessing,
            mean=measured.mean,
            mean_image=measured.mean_image if config.mean == "image" else None,
        )
    published = config.color_statistics == "published" and source.channels == 3
    axes = published_axes() if published else measured.color_axes
    run.write_json(
        "data.json",
        {
            "class_names": source.class_names,
            "preprocessing": preprocessing.to_config(),
            "color_axes": axes,
            "train": len(source.train),
            "validation": len(source.validation or ()),
            "test": len(source.test),
            "fingerprint": source.fingerprint(),
            "choices": list(choices),
        },
    )


def make_augmentation(
    config: TrainConfig, preprocessing: Preprocessing, color_axes: list[list[float]]
) -> Augmentation:
    """Makes the random changes of training images."""
    colored = preprocessing.channels == 3
    strengths = per_epoch(parse_schedule(config.color_noise), config.epochs)
    return Augmentation(
        image_size=preprocessing.image_size,
        crop_padding=config.crop_padding,
        horizontal_flip=config.horizontal_flip,
        rotation=config.rotation,
        zoom=config.zoom,
        color_noise=strengths if colored and any(strengths) else 0.0,
        color_axes=tuple(map(tuple, color_axes)) if colored else (),
        color_mean=(preprocessing.mean_image or preprocessing.mean)
        if config.color_noise_form == "program"
        else None,
        modern=config.augmentation == "modern",
    )


def make_class_weights(config: TrainConfig, source: Dataset) -> tuple[float, ...]:
    """Returns what the images of each class count in the loss; () for 1 each.

    Balanced: in proportion to 1 / images of the class, 1 in the mean over the images.

    Raises:
        ValueError: They are to be balanced, and labels are not known yet.
    """
    if config.class_weights != "balanced":
        return ()
    labels = source.train.labels
    if labels is None:
        raise UserError(
            f"class_weights=balanced needs labels that are known before the images are "
            f"read, which {source.name} has not. Choose class_weights=none."
        )
    counts = np.bincount(labels, minlength=len(source.class_names))
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return tuple(weights.tolist())


def make_mixing(config: TrainConfig, source: Dataset) -> Mixing | None:
    """Makes what mixes training images, if anything does."""
    if config.mixup or config.cutmix:
        return Mixing(len(source.class_names), config.mixup, config.cutmix)
    return None
