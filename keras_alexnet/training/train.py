"""Training, from a configuration to a finished run."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet._version import __version__
from keras_alexnet.architectures import get_architecture
from keras_alexnet.builder import build
from keras_alexnet.config import TrainConfig
from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.pipeline import (
    evaluation_batches,
    measure_colors,
    training_batches,
)
from keras_alexnet.data.sources import Source, open_source
from keras_alexnet.evaluation import Evaluation
from keras_alexnet.files import replacing
from keras_alexnet.inspect import figures
from keras_alexnet.model import AlexNet
from keras_alexnet.preprocessing import Preprocessing, decode
from keras_alexnet.run_directory import RunDirectory
from keras_alexnet.schedules import parse_schedule
from keras_alexnet.training import loop
from keras_alexnet.training.checkpoint import CheckpointStore, restore
from keras_alexnet.training.damage import DamageReport
from keras_alexnet.training.optimizer import DecayedMomentum
from keras_alexnet.training.strategy import describe, make_strategy, use_xla


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What came out of a training run.

    Attributes:
        run_dir: Where everything about the run is.
        metrics: Loss, top-1 and top-5 error on the test images.
        history: One row per epoch.
        finished_before: Whether the run was already complete, so that nothing was done.
    """

    run_dir: Path
    metrics: dict[str, float]
    history: list[dict[str, float]]
    finished_before: bool = False


def train(
    config: TrainConfig, callbacks: list[keras.callbacks.Callback] | None = None
) -> TrainResult:
    """Trains a network and keeps everything about the run in `config.run_dir`.

    Args:
        config: What to train, on what, how and where.
        callbacks: More Keras callbacks.

    Returns:
        The result, which is also in the run directory's result.json.

    Raises:
        ValueError: The configuration contradicts itself, the data or the machine; or
            the run directory holds another run. Nothing has been done then.
        keras_alexnet.training.loop.Interrupted: SIGINT or SIGTERM came; the state is
            saved, and `resume=True` continues.
    """
    # === Data ===
    architecture = get_architecture(config.architecture)
    run = RunDirectory.check(config)
    if config.resume and (run / "result.json").is_file():
        result = run.read_json("result.json")
        return TrainResult(run.path, result["metrics"], result["history"], True)
    strategy = make_strategy(config.replicas)
    replicas = strategy.num_replicas_in_sync
    if config.global_batch_size % replicas:
        raise ValueError(
            f"A batch of {config.global_batch_size} cannot be shared equally by "
            f"{replicas} devices: choose a multiple of {replicas}."
        )
    source = open_source(
        config.data,
        seed=config.seed,
        test_fraction=config.test_fraction,
        channels=config.channels,
    )
    image_size, resize_size = _sizes(config)
    if resize_size + 2 * config.crop_padding < image_size:
        raise ValueError(
            f"Nothing to crop: images of {resize_size} pixels and a border of "
            f"{config.crop_padding} leave no room for the network's {image_size}. "
            "Choose a larger resize_size."
        )
    keras.utils.set_random_seed(config.seed)
    jit_compile = use_xla(config.xla)
    # Before the run directory is made: a wrong layer name is found here.
    with strategy.scope():
        model = _make_model(config, source, jit_compile)
    run.begin(config)
    source.skipped.read(run / "skipped.csv")
    data = _describe_data(run, config, source, architecture.pixel_scale)
    preprocessing = run.preprocessing()
    damage = DamageReport(source, run / "skipped.csv", config.max_skipped)
    damage.update()

    # === State ===
    checkpoints = CheckpointStore(run / "checkpoints")
    history: list[dict[str, float]] = []
    first_step = 0
    if config.resume and (checkpoint := checkpoints.load()):
        restore(checkpoint, model)
        history = checkpoint.record["history"]
        first_step = checkpoint.step
        print(f"Continuing {run.path} after step {first_step}.")
    ends = loop.epoch_ends(len(source.train), config.global_batch_size, config.epochs)

    def validate() -> dict[str, float]:
        metrics = _evaluate(model, source, preprocessing, config)[0].metrics()
        return {f"val_{name}": value for name, value in metrics.items()}

    def save(step: int, epoch: int, logs: dict[str, float] | None) -> None:
        if logs is not None:
            history.append({"epoch": epoch, "step": step, **logs})
            run.write_history(history)
        checkpoints.save(step, model, {"history": history})

    # === Training ===
    print(
        f"{config.architecture}, {model.count_params():,} parameters; "
        f"{len(source.train):,} training and {len(source.test):,} test images of "
        f"{len(source.class_names)} classes; {', '.join(describe(strategy))}; "
        f"{config.precision}; XLA {'on' if jit_compile else 'off'}"
    )
    steps, steps_per_second = loop.run(
        model,
        training_batches(
            source.train,
            preprocessing,
            _augmentation(config, preprocessing, data["color_axes"]),
            batch_size=config.global_batch_size,
            seed=config.seed,
            first_step=first_step,
            last_step=ends[-1],
        ),
        strategy=strategy,
        ends=ends,
        first_step=first_step,
        callbacks=[
            loop.ScheduleCallback(
                ends[-1],
                parse_schedule(config.learning_rate),
                parse_schedule(config.dropout),
            ),
            keras.callbacks.TensorBoard(run / "logs", write_graph=False),
            damage,
            *(callbacks or []),
        ],
        validate=validate,
        save=save,
    )

    # === Results ===
    with replacing(run / "model.keras") as partial:
        model.save(partial)
    evaluation, places = _evaluate(model, source, preprocessing, config)
    damage.update()
    source.skipped.print()
    _draw(run, model, source, evaluation, places, history)
    speed = steps_per_second and round(steps_per_second * config.global_batch_size, 1)
    # Last, because it says that the run has finished.
    run.write_json(
        "result.json",
        {
            "metrics": evaluation.metrics(),
            "history": history,
            "steps": steps,
            "images_per_second": speed,
            "parameters": model.count_params(),
            "devices": describe(strategy),
            "replicas": replicas,
            "precision": config.precision,
            "xla": jit_compile,
            "skipped": len(source.skipped),
            "versions": {
                "keras_alexnet": __version__,
                "keras": keras.__version__,
                "tensorflow": tf.__version__,
                "numpy": np.__version__,
            },
        },
    )
    return TrainResult(run.path, evaluation.metrics(), history)


def _make_model(config: TrainConfig, source: Source, jit_compile: bool) -> AlexNet:
    image_size, _ = _sizes(config)
    classes = len(source.class_names)

    def override(value: str) -> str | None:
        return None if value.lower() == "none" else value

    model = build(
        config.architecture,
        input_shape=(image_size, image_size, source.channels),
        classes=classes,
        groups=config.groups,
        conv=config.conv,
        norm=override(config.norm),
        pool=override(config.pool),
        activation=override(config.activation),
        dropout=parse_schedule(config.dropout)(0.0),
        dtype="mixed_bfloat16" if config.precision == "bfloat16" else "float32",
    )
    model.compile(
        optimizer=DecayedMomentum(
            parse_schedule(config.learning_rate)(0.0),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        ),
        loss="sparse_categorical_crossentropy",
        # An object, whose variables exist now: by its name, Keras would make it within
        # the traced step, which several replicas do not allow.
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        jit_compile=jit_compile,
    )
    # A checkpoint holds the states of optimizer and metrics, which must exist to be
    # restored; Keras would make them in the first step.
    model.optimizer.build(model.trainable_variables)
    outputs = tf.fill((1, classes), 1 / classes)
    tf.distribute.get_strategy().run(
        model.compute_metrics, args=(None, tf.zeros((1,), tf.int32), outputs, None)
    )
    model.reset_metrics()
    return model


def _sizes(config: TrainConfig) -> tuple[int, int]:
    """Returns the network's input size and the size that images are resized to."""
    image_size = config.image_size or get_architecture(config.architecture).input_size
    # As much larger as the 256 of the paper than the 227 of its network.
    return image_size, config.resize_size or math.ceil(image_size * 256 / 227)


def _describe_data(
    run: RunDirectory, config: TrainConfig, source: Source, pixel_scale: float
) -> dict[str, Any]:
    """Measures the training images and writes data.json, once for a run."""
    if (run / "data.json").is_file():
        data = run.read_json("data.json")
        source.check_unchanged(data["fingerprint"])
        return data
    image_size, resize_size = _sizes(config)
    unmeasured = Preprocessing(
        image_size=image_size,
        resize_size=resize_size,
        channels=source.channels,
        mean=(0.0,) * source.channels,
        scale=pixel_scale,
    )
    mean, axes = measure_colors(source.train, unmeasured, seed=config.seed)
    preprocessing = dataclasses.replace(unmeasured, mean=tuple(mean.tolist()))
    run.write_json(
        "data.json",
        {
            "class_names": source.class_names,
            "preprocessing": preprocessing.to_config(),
            "color_axes": axes.tolist(),
            "train": len(source.train),
            "test": len(source.test),
            "fingerprint": source.fingerprint(),
        },
    )
    return run.read_json("data.json")


def _augmentation(
    config: TrainConfig, preprocessing: Preprocessing, color_axes: list[list[float]]
) -> Augmentation:
    colored = preprocessing.channels == 3
    return Augmentation(
        image_size=preprocessing.image_size,
        crop_padding=config.crop_padding,
        horizontal_flip=config.horizontal_flip,
        rotation=config.rotation,
        zoom=config.zoom,
        color_noise=config.color_noise if colored else 0.0,
        color_axes=tuple(map(tuple, color_axes)) if colored else (),
    )


def _evaluate(
    model: AlexNet, source: Source, preprocessing: Preprocessing, config: TrainConfig
) -> tuple[Evaluation, np.ndarray]:
    batches = evaluation_batches(source.test, preprocessing, config.global_batch_size)
    return judge(model, batches)


def judge(
    model: keras.Model, batches: tf.data.Dataset
) -> tuple[Evaluation, np.ndarray]:
    """Runs a model over the images that weigh something.

    Args:
        model: Returns probabilities.
        batches: From `evaluation_batches`.

    Returns:
        The evaluation, and the numbers of the images that it is of.

    Raises:
        ValueError: None of them weighs anything.
    """
    probabilities, labels, counts = [], [], []
    for images, numbers, weights in batches:
        counted = weights.numpy() > 0
        # Not predict_on_batch: under a strategy, each replica would predict all.
        outputs = model.predict(images, batch_size=len(images), verbose=0)
        probabilities.append(outputs[counted])
        labels.append(numbers.numpy()[counted])
        counts.append(counted)
    places = np.flatnonzero(np.concatenate(counts))
    if not len(places):
        raise ValueError("None of the test images can be read.")
    return Evaluation(np.concatenate(probabilities), np.concatenate(labels)), places


def _draw(
    run: RunDirectory,
    model: AlexNet,
    source: Source,
    evaluation: Evaluation,
    places: np.ndarray,
    history: list[dict[str, float]],
) -> None:
    directory = run / "figures"
    directory.mkdir(exist_ok=True)
    figures.learning_curves(history, directory / "learning_curves.png")
    if kernels := [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]:
        figures.filters(
            keras.ops.convert_to_numpy(kernels[0]), directory / "filters.png"
        )
    # Those it knows least: they tell most.
    order = np.argsort(evaluation.of_label)[:18]
    figures.predictions(
        [
            decode(source.test.file(place), source.channels).numpy()
            for place in places[order].tolist()
        ],
        evaluation.probabilities[order],
        evaluation.labels[order],
        source.class_names,
        directory / "predictions.png",
    )
