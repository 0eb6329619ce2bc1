"""Training, from a configuration to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

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
from keras_alexnet.evaluation import Evaluation, evaluate
from keras_alexnet.files import replacing
from keras_alexnet.inspect import figures
from keras_alexnet.model import AlexNet
from keras_alexnet.preprocessing import Preprocessing
from keras_alexnet.run_directory import RunDirectory
from keras_alexnet.schedules import parse_schedule
from keras_alexnet.training import loop
from keras_alexnet.training.checkpoint import CheckpointStore, best_step, restore
from keras_alexnet.training.diagnosis import FlatLossHint
from keras_alexnet.training.hosts import Hosts
from keras_alexnet.training.optimizer import DecayedMomentum
from keras_alexnet.training.rates import dropouts, frozen_layers, multipliers
from keras_alexnet.training.saver import Saver
from keras_alexnet.training.schedule_callback import ScheduleCallback
from keras_alexnet.training.strategy import (
    describe,
    make_deterministic,
    make_strategy,
    use_xla,
)

METRICS = ("loss", "top1_error", "top5_error")

# Keras's names for them: computations in it, weights in float32.
PRECISIONS = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What came out of a training run.

    Attributes:
        run_dir: Where everything about the run is.
        metrics: Loss, top-1 and top-5 error on the test images.
        history: One row per epoch.
        finished_before: Whether the run was already complete, so that nothing was done.
        failures: What could not be written to the run directory, and why.
    """

    run_dir: Path
    metrics: dict[str, float]
    history: list[dict[str, float]]
    finished_before: bool = False
    failures: tuple[str, ...] = ()


def train(
    config: TrainConfig,
    callbacks: list[keras.callbacks.Callback] | None = None,
    until_epoch: int | None = None,
) -> TrainResult:
    """Trains a network and keeps everything about the run in `config.run_dir`.

    Where the environment variable TF_CONFIG lists several hosts, each of them must call
    this with the same configuration, and with the same run directory on storage that
    all of them share; the first of them writes.

    Args:
        config: What to train, on what, how and where.
        callbacks: More Keras callbacks.
        until_epoch: Pause after this epoch, with a checkpoint but no result.json;
            `resume=True` goes on later. Schedules are those of all `config.epochs`.

    Returns:
        The result, which is also in the run directory's result.json.

    Raises:
        ValueError: The configuration contradicts itself, the data or the machine; or
            the run directory holds another run, or another process is at work in it.
            Nothing has been done then.
        keras_alexnet.training.loop.Interrupted: SIGINT or SIGTERM came; the state is
            saved, and `resume=True` continues.
        keras_alexnet.training.loop.Diverged: The gradients were no longer finite.
        keras_alexnet.training.loop.HostLost: Another host no longer answers.
    """
    get_architecture(config.architecture)
    run = RunDirectory(Path(config.run_dir))
    if config.resume and (run / "result.json").is_file():
        RunDirectory.check(config)
        result = run.read_json("result.json")
        return TrainResult(run.path, result["metrics"], result["history"], True)
    strategy = make_strategy(config.replicas)
    hosts = Hosts.of(strategy)
    if hosts.is_chief:
        RunDirectory.check(config)
    _check_shares(config, strategy.num_replicas_in_sync)
    source = open_source(
        config.data,
        seed=config.seed,
        test_fraction=config.test_fraction,
        channels=config.channels,
    )
    keras.utils.set_random_seed(config.seed)
    # Before the run directory is made: a wrong layer name is found here.
    with strategy.scope():
        model = _make_model(config, source)
    with (
        loop.noticing_lost_hosts(hosts),
        run.claimed(config) if hosts.is_chief else contextlib.nullcontext(),
    ):
        return _train(
            config,
            run,
            hosts,
            source,
            model,
            callbacks or [],
            min(until_epoch or config.epochs, config.epochs),
        )


def _train(
    config: TrainConfig,
    run: RunDirectory,
    hosts: Hosts,
    source: Source,
    model: AlexNet,
    callbacks: list[keras.callbacks.Callback],
    until_epoch: int,
) -> TrainResult:
    """Trains, in a run directory that is this process's own."""
    # === Data ===
    if hosts.is_chief:
        _describe_data(run, config, source, model.metadata.preprocessing)
        source.print_skipped()
    hosts.wait_for_all()
    data = run.read_json("data.json")
    source.check_unchanged(data["fingerprint"])
    preprocessing = run.preprocessing()

    # === State ===
    saver = Saver(
        CheckpointStore(run / "checkpoints", config.keep_checkpoints),
        every_steps=config.checkpoint_steps,
        every_seconds=config.checkpoint_minutes and 60 * config.checkpoint_minutes,
        writes=hosts.is_chief,
    )
    first_step, history = (
        _restore(saver.store, hosts, model) if config.resume else (0, [])
    )
    ends = loop.epoch_ends(len(source.train), config.global_batch_size, config.epochs)

    def batches() -> tf.data.Dataset:
        return (
            training_batches(
                source.train,
                preprocessing,
                _augmentation(config, preprocessing, data["color_axes"]),
                batch_size=config.global_batch_size,
                seed=config.seed,
                first_step=first_step,
                last_step=ends[-1],
            )
            .rebatch(config.global_batch_size // hosts.count)
            .shard(hosts.count, hosts.index)
            .rebatch(config.global_batch_size // hosts.strategy.num_replicas_in_sync)
        )

    def validate() -> dict[str, float]:
        metrics = _evaluate(model, source, preprocessing, config).metrics()
        return {f"val_{name}": value for name, value in metrics.items()}

    def save(step: int, epoch: int, logs: dict[str, float] | None) -> None:
        if logs is not None:
            history.append({"epoch": epoch, "step": step, **logs})
            saver.attempt("history.csv", lambda: run.write_history(history))
        # A copy, because it is written while the history may grow.
        record = {"history": list(history), "config": dataclasses.asdict(config)}
        saver.save(step, model, record, best_step(history))

    # === Training ===
    on_chief = [keras.callbacks.TensorBoard(run / "logs", write_graph=False)]
    with contextlib.closing(saver):
        steps, steps_per_second = loop.run(
            model,
            batches,
            strategy=hosts.strategy,
            ends=ends[:until_epoch],
            first_step=first_step,
            callbacks=[
                ScheduleCallback(
                    ends[-1],
                    parse_schedule(config.learning_rate),
                    dropouts(config, model),
                    multipliers=multipliers(config, model),
                    history=history,
                ),
                FlatLossHint(),
                *(on_chief if hosts.is_chief else []),
                *callbacks,
            ],
            validate=validate,
            is_due=saver.is_due,
            save=save,
            most_skipped=config.max_skipped_steps,
        )

    # === Results ===
    if until_epoch < config.epochs:
        metrics = {name: history[-1][f"val_{name}"] for name in METRICS}
        failures = tuple(saver.failures)
        return TrainResult(run.path, metrics, history, failures=failures)
    evaluation = _evaluate(model, source, preprocessing, config)
    speed = steps_per_second and round(steps_per_second * config.global_batch_size, 1)
    result = {
        "metrics": evaluation.metrics(),
        "history": history,
        "steps": steps,
        "images_per_second": speed,
        "seconds_waited_for_checkpoints": round(saver.seconds_waited, 3),
        "parameters": model.count_params(),
        "devices": describe(hosts.strategy),
        "hosts": hosts.count,
        "replicas": hosts.strategy.num_replicas_in_sync,
        "precision": config.precision,
        "xla": model.jit_compile,
        "skipped": len(source.skipped),
        "versions": {
            "keras_alexnet": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
        },
    }
    saver.attempt("figures", lambda: _draw(run, model, source, evaluation, history))
    if saver.attempt("model.keras", lambda: _save_model(run, model)):
        # Last, because it says that the run has finished.
        saver.attempt("result.json", lambda: run.write_json("result.json", result))
    failures = tuple(saver.failures)
    return TrainResult(run.path, result["metrics"], history, failures=failures)


def _check_shares(config: TrainConfig, replicas: int) -> None:
    """Raises a ValueError if a batch cannot be shared, or an image not be cropped."""
    if config.global_batch_size % (replicas * config.micro_batches):
        raise ValueError(
            f"A batch of {config.global_batch_size} cannot be shared equally by "
            f"{replicas} devices in {config.micro_batches} parts each: choose a "
            f"multiple of {replicas * config.micro_batches}."
        )
    image_size, resize_size = _sizes(config)
    if resize_size + 2 * config.crop_padding < image_size:
        raise ValueError(
            f"Nothing to crop: images of {resize_size} pixels and a border of "
            f"{config.crop_padding} leave no room for the network's {image_size}. "
            "Choose a larger resize_size."
        )


def _restore(
    store: CheckpointStore, hosts: Hosts, model: AlexNet
) -> tuple[int, list[dict[str, float]]]:
    """Returns the step and the history to go on with; puts their state into a model.

    Raises:
        ValueError: The hosts do not see the same checkpoints, or all are damaged.
    """
    if hosts.is_chief:
        store.discard_unfinished()
    hosts.wait_for_all()
    checkpoint = store.load()
    first_step = checkpoint.step if checkpoint else 0
    if hosts.total([first_step]) != [first_step * hosts.count]:
        raise ValueError(
            f"The hosts see different checkpoints in {store.directory}: the run "
            "directory must be on storage that all of them share."
        )
    if not checkpoint:
        return 0, []
    restore(checkpoint, model)
    if hosts.is_chief:
        print(f"Continuing {store.directory.parent} after step {first_step}.")
    return first_step, checkpoint.record["history"]


def _save_model(run: RunDirectory, model: AlexNet) -> None:
    with replacing(run / "model.keras") as partial:
        model.save(partial)


def _make_model(config: TrainConfig, source: Source) -> AlexNet:
    """Makes the compiled model, with all of its variables."""
    image_size, _ = _sizes(config)
    classes = len(source.class_names)
    jit_compile, reason = use_xla(config.xla, config.deterministic)

    def override(value: str) -> str | None:
        return None if value.lower() == "none" else value

    model = build(
        get_architecture(config.architecture).widened(config.width),
        input_shape=(image_size, image_size, source.channels),
        classes=classes,
        groups=config.groups,
        conv=config.conv,
        norm=override(config.norm),
        pool=override(config.pool),
        activation=override(config.activation),
        dropout=parse_schedule(config.dropout)(0.0),
        dtype=PRECISIONS[config.precision],
        weights=config.weights,
    )
    for name, schedule in dropouts(config, model).items():
        model.get_layer(name).rate = schedule(0.0)
    for name in frozen_layers(config, model):
        model.get_layer(name).trainable = False
    factors = multipliers(config, model)
    model.micro_batches = config.micro_batches
    if config.deterministic:
        make_deterministic(model, jit_compile)
    model.compile(
        optimizer=DecayedMomentum(
            parse_schedule(config.learning_rate)(0.0),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            multipliers={name: factor(0.0) for name, factor in factors.items()},
            dynamic_loss_scale=config.precision == "float16",
            global_clipnorm=config.clip_norm,
        ),
        loss="sparse_categorical_crossentropy",
        # An object, whose variables exist now: by its name, Keras would make it within
        # the traced step, which several replicas do not allow.
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        jit_compile=jit_compile,
        # Keras would wrap the optimizer in one that looks at one replica alone.
        auto_scale_loss=False,
    )
    # A checkpoint holds the states of optimizer and metrics, which must exist to be
    # restored; Keras would make them in the first step.
    model.optimizer.build(model.trainable_variables)
    strategy = tf.distribute.get_strategy()
    outputs = tf.fill((1, classes), 1 / classes)
    with _without_warnings():  # That running eagerly is slow. It is once.
        strategy.run(
            model.compute_metrics, args=(None, tf.zeros((1,), tf.int32), outputs, None)
        )
    model.reset_metrics()
    print(
        f"{config.architecture}, {model.count_params():,} parameters; "
        f"{len(source.train):,} training and {len(source.test):,} test images of "
        f"{len(source.class_names)} classes; {', '.join(describe(strategy))}; "
        f"{config.precision}; XLA {'on' if jit_compile else 'off'}: {reason}"
    )
    return model


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def _sizes(config: TrainConfig) -> tuple[int, int]:
    """Returns the network's input size and the size that images are resized to."""
    image_size = config.image_size or get_architecture(config.architecture).input_size
    # As much larger as the 256 of the paper than the 227 of its network.
    return image_size, config.resize_size or math.ceil(image_size * 256 / 227)


def _describe_data(
    run: RunDirectory,
    config: TrainConfig,
    source: Source,
    of_weights: Preprocessing | None,
) -> None:
    """Measures the training images and writes data.json, once for a run."""
    if (run / "data.json").is_file():
        return
    image_size, resize_size = _sizes(config)
    unmeasured = Preprocessing(
        image_size=image_size,
        resize_size=resize_size,
        channels=source.channels,
        mean=(0.0,) * source.channels,
        scale=get_architecture(config.architecture).pixel_scale,
    )
    mean, axes = measure_colors(source.train, unmeasured, seed=config.seed)
    preprocessing = dataclasses.replace(unmeasured, mean=tuple(mean.tolist()))
    if of_weights is not None and of_weights.channels == source.channels:
        # Weights from elsewhere go on with what they were trained on.
        preprocessing = of_weights.with_image_size(image_size)
        if config.resize_size:
            preprocessing = dataclasses.replace(preprocessing, resize_size=resize_size)
    run.write_json(
        "data.json",
        {
            "class_names": source.class_names,
            "preprocessing": preprocessing.to_config(),
            "color_axes": axes.tolist(),
            "train": len(source.train),
            "test": len(source.test),
            "skipped": source.skipped,
            "fingerprint": source.fingerprint(),
        },
    )


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
        color_noise=parse_schedule(config.color_noise)(0.0) if colored else 0.0,
        color_axes=tuple(map(tuple, color_axes)) if colored else (),
    )


def _evaluate(
    model: AlexNet, source: Source, preprocessing: Preprocessing, config: TrainConfig
) -> Evaluation:
    batches = evaluation_batches(source.test, preprocessing, config.global_batch_size)
    return evaluate(model, batches, source.test.labels)


def _draw(
    run: RunDirectory,
    model: AlexNet,
    source: Source,
    evaluation: Evaluation,
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
        [source.test.read(tf.constant(index)).numpy() for index in order],
        evaluation.probabilities[order],
        evaluation.labels[order],
        source.class_names,
        directory / "predictions.png",
    )
