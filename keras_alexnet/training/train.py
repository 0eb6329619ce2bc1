"""Training, from a configuration to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet._version import __version__
from keras_alexnet.architectures import get_architecture
from keras_alexnet.data.dataset import Dataset
from keras_alexnet.data.opening import open_dataset
from keras_alexnet.data.order import Shard
from keras_alexnet.data.pipeline import (
    augment_batch,
    evaluation_batches,
    training_batches,
)
from keras_alexnet.errors import UserError
from keras_alexnet.evaluation import Evaluation, Evaluator
from keras_alexnet.files import replacing
from keras_alexnet.images.decoding import decode
from keras_alexnet.inspect import figures
from keras_alexnet.model import AlexNet
from keras_alexnet.schedules import parse_schedule
from keras_alexnet.training import loop
from keras_alexnet.training.checkpoint import CheckpointStore, best_step, restore
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.damage import DamageReport
from keras_alexnet.training.diagnosis import FlatLossHint
from keras_alexnet.training.hosts import Hosts, place_in_cluster
from keras_alexnet.training.precision import (
    Precision,
    keep_choice,
    precision_of_run,
)
from keras_alexnet.training.preparation import (
    check_shares,
    describe_data,
    make_augmentation,
    make_mixing,
    make_model,
)
from keras_alexnet.training.rates import dropouts, multipliers
from keras_alexnet.training.run_directory import RunDirectory
from keras_alexnet.training.saver import Saver
from keras_alexnet.training.schedule_callback import ScheduleCallback
from keras_alexnet.training.strategy import describe, make_strategy

METRICS = ("loss", "top1_error", "top5_error")


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
    run_dir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: list[keras.callbacks.Callback] | None = None,
    until_epoch: int | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Trains a network and keeps everything about the run in one directory.

    Where the environment variable TF_CONFIG lists several hosts, each of them must call
    this with the same configuration, and with the same run directory on storage that
    all of them share; the first of them writes.

    Args:
        config: What to train, on what and how.
        run_dir: Directory of the run: configuration, checkpoints, history, figures,
            model. It must be new, unless the run in it is resumed or overwritten.
        resume: Continue the run in the directory from its last checkpoint.
        overwrite: Delete the run in the directory, if there is one, and begin anew.
        callbacks: More Keras callbacks.
        until_epoch: Pause after this epoch, with a checkpoint but no result.json;
            `resume=True` goes on later. Schedules are those of all `config.epochs`.
        quiet: Print one line for each epoch instead of a progress bar, as is done
            where standard output is no terminal.

    Returns:
        The result, which is also in the run directory's result.json.

    Raises:
        ValueError: The configuration contradicts itself, the data or the machine; or
            the run directory holds another run or none to resume, or another process is
            at work in it. Nothing has been done then.
        keras_alexnet.training.loop.Interrupted: SIGINT or SIGTERM came; the state is
            saved, and `resume=True` continues.
        keras_alexnet.training.loop.Diverged: The gradients were no longer finite.
        keras_alexnet.training.loop.HostLost: Another host no longer answers.
        keras_alexnet.training.loop.OutOfMemory: A step does not fit into a device.
    """
    get_architecture(config.architecture)
    if config.recipe == "fine-tune" and config.weights is None:
        raise UserError(
            "The recipe fine-tune starts from trained weights: name their file with "
            "--weights."
        )
    if until_epoch is not None and until_epoch < 1:
        raise UserError(f"until_epoch must be at least 1. Received: {until_epoch}")
    run = RunDirectory(run_dir)
    # Before the hosts wait for each other: the others would wait in vain.
    if place_in_cluster()[0] == 0:
        run.check(config, resume=resume, overwrite=overwrite)
    if resume and (run / "result.json").is_file():
        result = run.read_json("result.json")
        return TrainResult(run.path, result["metrics"], result["history"], True)
    strategy = make_strategy(config.replicas)
    hosts = Hosts.of(strategy)
    with (
        loop.noticing_lost_hosts(hosts),
        loop.naming_lack_of_memory(config.global_batch_size),
    ):
        check_shares(config, strategy.num_replicas_in_sync)
        source = open_dataset(
            config.data,
            seed=config.seed,
            test_fraction=config.test_fraction,
            validation_fraction=0.0,
            channels=config.channels,
        )
        keras.utils.set_random_seed(config.seed)
        precision = precision_of_run(config, run, hosts, resume=resume)
        # Before the run directory is made: a wrong layer name is found here.
        with strategy.scope():
            model = make_model(config, source, precision)
        claim = contextlib.nullcontext()
        if hosts.is_chief:
            claim = run.claimed(config, resume=resume, overwrite=overwrite)
        with claim:
            if hosts.is_chief:
                keep_choice(config, run, precision)
            return _train(
                config,
                run,
                hosts,
                source,
                model,
                precision,
                resume,
                callbacks or [],
                until_epoch,
                quiet,
            )


def _train(
    config: TrainConfig,
    run: RunDirectory,
    hosts: Hosts,
    source: Dataset,
    model: AlexNet,
    precision: Precision,
    resume: bool,
    callbacks: list[keras.callbacks.Callback],
    until_epoch: int | None,
    quiet: bool,
) -> TrainResult:
    """Trains, in a run directory that is this process's own."""
    # === Data ===
    source.skipped.read(run / hosts.own_name("skipped.csv"))
    if hosts.is_chief:
        describe_data(run, config, source, model.metadata.preprocessing)
    hosts.wait_for_all()
    data = run.read_json("data.json")
    source.check_unchanged(data["fingerprint"])
    preprocessing = run.preprocessing()
    augmentation = make_augmentation(config, preprocessing, data["color_axes"])
    on_device = config.augment_on == "device"
    shard = Shard(hosts.index, hosts.count, hosts.local_replicas)

    # === State ===
    saver = Saver(
        CheckpointStore(run / "checkpoints", config.keep_checkpoints),
        every_steps=config.checkpoint_steps,
        every_seconds=config.checkpoint_minutes and 60 * config.checkpoint_minutes,
        writes=hosts.is_chief,
    )
    damage = DamageReport(
        source, run / hosts.own_name("skipped.csv"), config.max_skipped, saver.attempt
    )
    damage.update()
    first_step, history, stopped = 0, [], False
    if resume:
        first_step, history, stopped = _restore(saver.store, hosts, model)
    ends = loop.epoch_ends(len(source.train), config.global_batch_size, config.epochs)
    # A callback that has ended the training has ended it for good.
    last_epoch = len(history) if stopped else until_epoch

    def batches() -> tf.data.Dataset:
        return training_batches(
            source.train,
            preprocessing,
            augmentation,
            batch_size=config.global_batch_size,
            seed=config.seed,
            first_step=first_step,
            last_step=ends[-1],
            shard=shard,
            mixing=make_mixing(config, source),
            on_device=on_device,
        )

    def augment(batch):
        return augment_batch(batch, preprocessing, augmentation)

    evaluator = Evaluator(model, strategy=hosts.strategy)
    test_batches = evaluation_batches(
        source.test, preprocessing, config.global_batch_size, shard
    )

    def validate() -> dict[str, float]:
        metrics = evaluator(test_batches).metrics()
        return {f"val_{name}": value for name, value in metrics.items()}

    def save(step: int, epoch: int, logs: dict[str, float] | None) -> None:
        if logs is not None:
            history.append({"epoch": epoch, "step": step, **logs})
            if hosts.is_chief:
                saver.attempt("history.csv", lambda: run.write_history(history))
        # A copy, because it is written while the history may grow.
        record = {
            "history": list(history),
            "stopped": logs is not None and model.stop_training,
            "config": dataclasses.asdict(config),
        }
        saver.save(step, model, record, best_step(history))

    # === Training ===
    on_chief = [keras.callbacks.TensorBoard(run / "logs", write_graph=False)]
    with contextlib.closing(saver):
        steps, steps_per_second = loop.run(
            model,
            batches,
            strategy=hosts.strategy,
            ends=ends[:last_epoch],
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
                damage,
                *(on_chief if hosts.is_chief else []),
                *callbacks,
            ],
            prepare=augment if on_device else None,
            validate=validate,
            is_due=saver.is_due,
            save=save,
            most_skipped=config.max_skipped_steps,
            quiet=quiet,
        )

    # === Results ===
    paused = len(history) < config.epochs and not (stopped or model.stop_training)
    if paused:
        metrics = {name: history[-1][f"val_{name}"] for name in METRICS}
        return TrainResult(run.path, metrics, history, failures=tuple(saver.failures))
    evaluation = evaluator(test_batches)
    damage.update()
    hosts.wait_for_all()
    if hosts.is_chief:
        for path in sorted(run.path.glob("skipped-*.csv")):
            source.skipped.read(path)
        source.skipped.print()
        summary = {
            "metrics": evaluation.metrics(),
            "history": history,
            "steps": steps,
            "images_per_second": steps_per_second
            and round(steps_per_second * config.global_batch_size, 1),
            "seconds_waited_for_checkpoints": round(saver.seconds_waited, 3),
            **_circumstances(hosts, source, model, precision),
        }
        _write_results(run, saver, model, source, evaluation, summary)
    failures = tuple(saver.failures)
    return TrainResult(run.path, evaluation.metrics(), history, failures=failures)


def _write_results(
    run: RunDirectory,
    saver: Saver,
    model: AlexNet,
    source: Dataset,
    evaluation: Evaluation,
    summary: dict[str, Any],
) -> None:
    """Writes all that a finished run has; and that it has finished, if all is there."""
    history = summary["history"]

    def save_model() -> None:
        with replacing(run / "model.keras") as partial:
            model.save(partial)

    written = [
        saver.attempt("history.csv", lambda: run.write_history(history)),
        saver.attempt(
            "figures", lambda: _draw(run, model, source, evaluation, history)
        ),
        saver.attempt("model.keras", save_model),
    ]
    if all(written):
        saver.attempt("result.json", lambda: run.write_json("result.json", summary))


def _circumstances(
    hosts: Hosts, source: Dataset, model: AlexNet, precision: Precision
) -> dict[str, Any]:
    """Says what a run was made of, and where, and what was left out."""
    return {
        "parameters": model.count_params(),
        "devices": describe(hosts.strategy),
        "hosts": hosts.count,
        "replicas": hosts.strategy.num_replicas_in_sync,
        "precision": precision.name,
        "xla": model.jit_compile,
        "examples": source.total,
        "skipped": len(source.skipped),
        "skipped_steps": int(model.optimizer.skipped_steps.numpy()),
        "versions": {
            "keras_alexnet": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
        },
    }


def _restore(
    store: CheckpointStore, hosts: Hosts, model: AlexNet
) -> tuple[int, list[dict[str, float]], bool]:
    """Puts the last checkpoint's state into a model, if there is one.

    Returns:
        The step and the history to go on with, and whether a callback has ended the
        training.

    Raises:
        ValueError: The hosts do not see the same checkpoints, or all are damaged.
    """
    if hosts.is_chief:
        store.discard_unfinished()
    hosts.wait_for_all()
    checkpoint = store.load()
    if not hosts.is_same(checkpoint.step if checkpoint else 0):
        raise UserError(
            f"The hosts see different checkpoints in {store.directory}: the run "
            "directory must be on storage that all of them share."
        )
    if not checkpoint:
        return 0, [], False
    restore(checkpoint, model)
    if hosts.is_chief:
        print(f"Continuing {store.directory.parent} after step {checkpoint.step}.")
    record = checkpoint.record
    return checkpoint.step, record["history"], record["stopped"]


def _draw(
    run: RunDirectory,
    model: AlexNet,
    source: Dataset,
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
        [
            decode(source.test.file(place), source.channels).numpy()
            for place in evaluation.positions[order].tolist()
        ],
        evaluation.probabilities[order],
        evaluation.labels[order],
        source.class_names,
        directory / "predictions.png",
    )
