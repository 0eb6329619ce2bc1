"""Training, from a configuration to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet._version import __version__
from keras_alexnet.architectures import get_architecture
from keras_alexnet.data.dataset import Dataset, Split
from keras_alexnet.data.memory import keep_decoded
from keras_alexnet.data.order import Shard
from keras_alexnet.data.pipeline import (
    augment_batch,
    evaluation_batches,
    training_batches,
)
from keras_alexnet.errors import UserError
from keras_alexnet.evaluation import Evaluation, Evaluator
from keras_alexnet.files import replacing, write_table, write_whole
from keras_alexnet.images.decoding import decode
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.inspect import figures
from keras_alexnet.inspect.robustness import parse_epsilon
from keras_alexnet.model import AlexNet
from keras_alexnet.schedules import parse_schedule
from keras_alexnet.training import loop
from keras_alexnet.training.adversarial import make_attack
from keras_alexnet.training.callbacks import (
    DamageReport,
    FlatLossHint,
    ScheduleCallback,
)
from keras_alexnet.training.checkpoint import CheckpointStore, best_step, restore
from keras_alexnet.training.choices import Facts, choose, open_images
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.hosts import Hosts, place_in_cluster
from keras_alexnet.training.precision import choose_precision
from keras_alexnet.training.preparation import (
    describe_data,
    make_augmentation,
    make_class_weights,
    make_mixing,
    make_model,
    sizes,
    unmeasured,
)
from keras_alexnet.training.rates import dropouts, multipliers
from keras_alexnet.training.run_directory import LENGTH, RunDirectory
from keras_alexnet.training.saver import Saver
from keras_alexnet.training.strategy import describe, make_strategy
from keras_alexnet.training.trackers import begin, check_trackers

METRICS = ("loss", "top1_error", "top5_error")
# Of a run by the minute: how much faster an image is evaluated than trained on, what an
# epoch's end takes besides, and the end of the run: evaluation, figures, model.
EVALUATION_SPEED, EPOCH_SECONDS, END_SECONDS = 2.5, 0.3, 6.0
# Steps of a run take longer than those that are timed: callbacks, checkpoints.
MARGIN = 1.05


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
    trackers: Sequence[str] = (),
    until_epoch: int | None = None,
    quiet: bool = False,
    started: float | None = None,
) -> TrainResult:
    """Trains a network and keeps everything about the run in one directory.

    Where the environment variable TF_CONFIG lists several hosts, each of them must call
    this with the same configuration, and with the same run directory on storage that
    all of them share; the first of them writes.

    Args:
        config: What to train, on what and how.
        run_dir: Directory of the run: configuration, checkpoints, history, figures,
            model. It must be new, unless the run in it is resumed or overwritten.
        resume: Continue the run in the directory from its last checkpoint. With other
            `epochs` or `steps` it becomes longer, or ends there if it is that far, and
            schedules go on as those of a run of the new length.
        overwrite: Delete the run in the directory, if there is one, and begin anew.
        callbacks: More Keras callbacks.
        trackers: Experiment trackers that get the settings and each epoch's metrics:
            `"wandb"`, `"mlflow"`.
        until_epoch: Pause after this epoch, with a checkpoint but no result.json;
            `resume=True` goes on later. Schedules are those of all `config.epochs`.
        quiet: Print one line for each epoch instead of a progress bar, as is done
            where standard output is no terminal.
        started: When the time of `config.minutes` began, by `time.monotonic()`; now by
            default.

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
    began = time.monotonic() if started is None else started
    _check(config, until_epoch)
    check_trackers(trackers)
    run = RunDirectory(run_dir)
    # Before the hosts wait for each other: the others would wait in vain.
    if place_in_cluster()[0] == 0:
        run.check(config, resume=resume, overwrite=overwrite)
    changed = resume and run.has_other_length(config)
    if resume and not changed and (run / "result.json").is_file():
        result = run.read_json("result.json")
        return TrainResult(run.path, result["metrics"], result["history"], True)
    strategy = make_strategy(config.replicas)
    hosts = Hosts.of(strategy)
    with loop.noticing_lost_hosts(hosts):
        source = open_images(config)
        config, choices = _completed(config, source, run, resume)
        if config.patience and not source.validation:
            raise UserError(
                "patience needs validation images, because nothing may be chosen by "
                "the test images. Received: validation_fraction=0"
            )
        config.check_fit(strategy.num_replicas_in_sync, *sizes(config))
        keras.utils.set_random_seed(config.seed)
        precision, why = choose_precision(config.precision, hosts, begun=resume)
        config = dataclasses.replace(config, precision=precision)
        # Before the run directory is made: a wrong layer name is found here.
        with strategy.scope():
            model = make_model(config, source, why)
        claim = contextlib.nullcontext()
        if hosts.is_chief:
            claim = run.claimed(config, resume=resume, overwrite=overwrite)
        with claim, loop.naming_lack_of_memory(config.global_batch_size):
            of_weights = model.metadata.preprocessing
            source = _decoded(config, source, of_weights)
            if hosts.is_chief:
                describe_data(run, config, source, of_weights, choices)
            hosts.wait_for_all()
            training = _Training(config, run, hosts, source, model, began)
            training.restore(resume, until_epoch)
            training.run(callbacks or [], trackers, quiet)
            if training.is_paused:
                return training.result(training.history[-1], "val_")
            return training.finish()


def _check(config: TrainConfig, until_epoch: int | None) -> None:
    """Finds mistakes that need no images."""
    if config.architecture is not None:
        get_architecture(config.architecture)
    if config.recipe == "fine-tune" and config.weights is None:
        raise UserError(
            "The recipe fine-tune starts from trained weights: name their file with "
            "--weights."
        )
    if config.adversarial is not None:
        parse_epsilon(config.adversarial)
    if until_epoch is not None and until_epoch < 1:
        raise UserError(f"until_epoch must be at least 1. Received: {until_epoch}")


def _completed(
    config: TrainConfig, source: Dataset, run: RunDirectory, resume: bool
) -> tuple[TrainConfig, list[str]]:
    """Returns a configuration in which nothing is left to be chosen, and why so."""
    if resume:
        # As it was chosen when the run began.
        saved, names = run.config(), set(config.left_open)
        names |= {"epochs"} if "steps" in names else set()
        values = {name: getattr(saved, name) for name in names}
        if run.has_other_length(config):
            values["minutes"] = None
            if config.epochs not in (None, saved.epochs):
                values["steps"] = None
        return config.updated(values), []
    if config.is_complete:
        return config, []
    config, choices = choose(config, Facts.of(source))
    print("Chosen from the images:", *choices, sep="\n  ")
    return config, choices


def _decoded(
    config: TrainConfig, source: Dataset, of_weights: Preprocessing | None
) -> Dataset:
    """Returns the images with those decoded that are small enough to be kept so."""
    if config.augmentation == "modern":
        return source  # It magnifies parts, which have more detail in the files.
    preprocessing = unmeasured(config, source, of_weights)
    splits = {
        name: keep_decoded(split, preprocessing)
        for name, split in source.splits.items()
    }
    return dataclasses.replace(source, splits=splits)


class _Training:
    """The training of one run, in a run directory that is this process's own.

    Attributes:
        config: What is trained, complete.
        history: One row for each epoch.
        ends: For each epoch, the number of steps after which it is over.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        hosts: Hosts,
        source: Dataset,
        model: AlexNet,
        began: float,
    ):
        self.config, self.run_dir, self.hosts = config, run, hosts
        self.source, self.model, self.began = source, model, began
        skipped = run / hosts.own_name("skipped.csv")
        source.skipped.read(skipped)
        data = run.read_json("data.json")
        source.check_unchanged(data["fingerprint"])
        self.preprocessing = run.preprocessing()
        self.augmentation = make_augmentation(
            config, self.preprocessing, data["color_axes"]
        )
        self.attack = None
        if config.adversarial:
            self.attack = make_attack(config, model, self.preprocessing)
        self.shard = Shard(hosts.index, hosts.count, hosts.local_replicas)
        self.saver = Saver(
            CheckpointStore(run / "checkpoints", config.keep_checkpoints),
            every_steps=config.checkpoint_steps,
            every_seconds=config.checkpoint_minutes and 60 * config.checkpoint_minutes,
            writes=hosts.is_chief,
        )
        self.damage = DamageReport(
            source, skipped, config.max_skipped, self.saver.attempt
        )
        self.damage.update()
        self.ends = self._ends()
        self.evaluator = Evaluator(model, strategy=hosts.strategy)
        # Without a validation split the test split is shown, and nothing chosen by it.
        watched = source.validation or source.test
        self.watched = self.evaluator.repeated(self._evaluation_batches(watched))
        self.evaluation: Evaluation | None = None
        self.steps_per_second: float | None = None
        self.schedule: ScheduleCallback | None = None
        model.bind(
            self.preprocessing,
            class_names=source.class_names,
            weights=f"trained on {config.data}",
        )

    def _ends(self) -> list[int]:
        size, epochs, steps = (
            self.config.global_batch_size,
            self.config.epochs,
            self.config.steps,
        )
        return loop.epoch_ends(len(self.source.train), size, epochs, steps)

    def _evaluation_batches(self, split: Split) -> tf.data.Dataset:
        return evaluation_batches(
            split, self.preprocessing, self.config.global_batch_size, self.shard
        )

    def restore(self, resume: bool, until_epoch: int | None) -> None:
        """Takes up the last checkpoint, if there is one."""
        self.first_step, self.history, self.stopped = 0, [], False
        if resume:
            self.first_step, self.history, self.stopped = _restore(
                self.config, self.saver.store, self.hosts, self.model
            )
        # A callback that has ended the training has ended it for good.
        self.last_epoch = len(self.history) if self.stopped else until_epoch

    def batches(self) -> tf.data.Dataset:
        """Makes the batches from the first step on."""
        return training_batches(
            self.source.train,
            self.preprocessing,
            self.augmentation,
            batch_size=self.config.global_batch_size,
            seed=self.config.seed,
            first_step=self.first_step,
            last_step=self.ends[-1],
            shard=self.shard,
            mixing=make_mixing(self.config, self.source),
            on_device=self.config.augment_on == "device",
            class_weights=make_class_weights(self.config, self.source),
        )

    def prepare(self, batch: tuple) -> tuple:
        """Does on the device what is left to do with a batch."""
        if self.config.augment_on == "device":
            batch = augment_batch(batch, self.preprocessing, self.augmentation)
        images, labels, weights = batch
        if self.config.label_probabilities and labels.shape.rank == 1:
            labels = tf.one_hot(labels, len(self.source.class_names))
        if self.attack:
            images = self.attack(images, labels)
        return images, labels, weights

    def plan(self, seconds: float) -> list[int]:
        """Turns the minutes of the run into a number of steps, which is written down.

        Args:
            seconds: What a step takes, its batch included.
        """
        size = self.config.global_batch_size
        per_image = seconds / size / EVALUATION_SPEED
        watched = self.source.validation or self.source.test
        per_epoch = EPOCH_SECONDS + per_image * len(watched)
        left = 60 * self.config.minutes - (time.monotonic() - self.began)
        left -= END_SECONDS + per_image * len(self.source.test)
        seconds *= MARGIN
        steps = int(left / (seconds + per_epoch * size / len(self.source.train)))
        (steps,) = self.hosts.total([max(steps, 1) if self.hosts.is_chief else 0])
        self.config = dataclasses.replace(self.config, steps=steps)
        self.ends = self._ends()
        self.config = dataclasses.replace(self.config, epochs=len(self.ends))
        print(
            f"{self.config.minutes:g} minutes are {steps:,} steps of "
            f"{1000 * seconds:.1f} ms: {len(self.ends)} epochs."
        )
        if self.hosts.is_chief:
            # Or the run could not be resumed: nothing has been trained yet.
            write_whole(self.run_dir / "config.json", self.config.to_json())
        self.schedule.total_steps = steps
        return self.ends[: self.last_epoch]

    def validate(self) -> dict[str, float]:
        """Evaluates the model at the end of an epoch."""
        with self.model.optimizer.averaged():
            self.evaluation = self.evaluator(self.watched)
        metrics = self.evaluation.metrics()
        return {f"val_{name}": value for name, value in metrics.items()}

    def save(self, step: int, epoch: int, logs: dict[str, float] | None) -> None:
        """Saves a checkpoint, and at the end of an epoch the history."""
        if logs is not None:
            self.history.append({"epoch": epoch, "step": step, **logs})
            if self._has_lost_patience():
                print(f"No smaller error for {self.config.patience} epochs: the end.")
                self.model.stop_training = True
            if self.hosts.is_chief:
                self.saver.attempt(
                    "history.csv",
                    lambda: write_table(self.run_dir / "history.csv", self.history),
                )
        # A copy, because it is written while the history may grow.
        record = {
            "history": list(self.history),
            "stopped": logs is not None and self.model.stop_training,
            "config": dataclasses.asdict(self.config),
        }
        self.saver.save(step, self.model, record, best_step(self.history))

    def _has_lost_patience(self) -> bool:
        best = best_step(self.history)
        later = sum(row["step"] > best for row in self.history)
        return self.config.patience is not None and later >= self.config.patience

    def run(
        self,
        callbacks: list[keras.callbacks.Callback],
        trackers: Sequence[str],
        quiet: bool,
    ) -> None:
        """Trains up to the last step, or to where the run pauses."""
        config, model = self.config, self.model
        rate = parse_schedule(config.learning_rate)
        self.schedule = ScheduleCallback(
            self.ends[-1],
            rate,
            dropouts(config, model),
            multipliers=multipliers(config, model),
            history=self.history,
        )
        boards = []
        if self.hosts.is_chief:
            logs = self.run_dir / "logs"
            boards = [keras.callbacks.TensorBoard(logs, write_graph=False)]
            boards += begin(trackers, config, self.run_dir.path)
        to_plan = config.minutes is not None and config.steps is None
        with contextlib.closing(self.saver):
            self.steps, self.steps_per_second = loop.run(
                model,
                self.batches,
                strategy=self.hosts.strategy,
                ends=self.plan if to_plan else self.ends[: self.last_epoch],
                first_step=self.first_step,
                callbacks=[
                    self.schedule,
                    FlatLossHint(getattr(rate, "warmup", 0.0)),
                    self.damage,
                    *boards,
                    *callbacks,
                ],
                prepare=self.prepare,
                validate=self.validate,
                is_due=self.saver.is_due,
                save=self.save,
                most_skipped=config.max_skipped_steps,
                quiet=quiet,
            )

    @property
    def is_paused(self) -> bool:
        """Whether epochs are left that a later process is to train."""
        done = len(self.history) >= len(self.ends)
        return not (done or self.stopped or self.model.stop_training)

    def result(self, metrics: Mapping[str, float], prefix: str = "") -> TrainResult:
        """Returns what `train` returns."""
        return TrainResult(
            self.run_dir.path,
            {name: metrics[prefix + name] for name in METRICS},
            self.history,
            failures=tuple(self.saver.failures),
        )

    def finish(self) -> TrainResult:
        """Judges the model by the test images, and writes all that there is."""
        source, hosts = self.source, self.hosts
        kept = self._keep()
        self.model.optimizer.use_averages()
        if source.validation or self.evaluation is None:
            self.evaluation = self.evaluator(self._evaluation_batches(source.test))
        evaluation = self.evaluation
        self.damage.update()
        hosts.wait_for_all()
        if hosts.is_chief:
            for path in sorted(self.run_dir.path.glob("skipped-*.csv")):
                source.skipped.read(path)
            source.skipped.print()
            speed = self.steps_per_second
            summary = {
                "metrics": evaluation.metrics(),
                "kept_step": kept,
                "history": self.history,
                "steps": self.steps,
                "images_per_second": speed
                and round(speed * self.config.global_batch_size, 1),
                "seconds_waited_for_checkpoints": round(self.saver.seconds_waited, 3),
                **_circumstances(hosts, source, self.model, self.config.precision),
            }
            _write_results(
                self.run_dir, self.saver, self.model, source, evaluation, summary
            )
        return self.result(evaluation.metrics())

    def _keep(self) -> int:
        """Puts the weights of the chosen epoch into the model; returns its step."""
        best = best_step(self.history) if self.source.validation else None
        if self.config.keep == "last" or best in (None, self.steps):
            return self.steps
        checkpoint = None
        with contextlib.suppress(UserError):  # All are damaged.
            checkpoint = self.saver.store.load("best")
        if checkpoint is None:
            print("No checkpoint could be read: the last weights become the model.")
            return self.steps
        restore(checkpoint, self.model)
        return checkpoint.step


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
        saver.attempt("history.csv", lambda: write_table(run / "history.csv", history)),
        saver.attempt(
            "figures", lambda: _draw(run, model, source, evaluation, history)
        ),
        saver.attempt("model.keras", save_model),
    ]
    if all(written):
        saver.attempt("result.json", lambda: run.write_json("result.json", summary))


def _circumstances(
    hosts: Hosts, source: Dataset, model: AlexNet, precision: str
) -> dict[str, Any]:
    """Says what a run was made of, and where, and what was left out."""
    return {
        "parameters": model.count_params(),
        "devices": describe(hosts.strategy),
        "hosts": hosts.count,
        "replicas": hosts.strategy.num_replicas_in_sync,
        "precision": precision,
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
    config: TrainConfig, store: CheckpointStore, hosts: Hosts, model: AlexNet
) -> tuple[int, list[dict[str, float]], bool]:
    """Puts the last checkpoint's state into a model, if there is one.

    Returns:
        The step and the history to go on with, and whether a callback has ended the
        training.
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
    # A longer run goes on where a callback had ended the shorter one.
    length = [record["config"].get(name) == getattr(config, name) for name in LENGTH]
    return checkpoint.step, record["history"], record["stopped"] and all(length)


def _draw(
    run: RunDirectory,
    model: AlexNet,
    source: Dataset,
    evaluation: Evaluation,
    history: list[dict[str, float]],
) -> None:
    directory = run / "figures"
    directory.mkdir(exist_ok=True)
    figures.learning_curves(
        history,
        directory / "learning_curves.png",
        evaluated="validation" if source.validation else "test",
    )
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
