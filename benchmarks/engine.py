"""What does the training engine cost, on top of the step itself?

Three questions, each answered within one run of alexnet_2012, batch 128: how fast the
loop is against the bare compiled step; two logical devices on the same processor
against one; how long training stands still for checkpoints.

    keras-alexnet benchmark engine
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from keras_alexnet.benchmarks.networks import (
    Network,
    compiled_for_training,
    images_and_labels,
    network_for,
    ours,
)
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.benchmarks.timing import in_turn
from keras_alexnet.schedules import parse_schedule
from keras_alexnet.training import loop
from keras_alexnet.training.checkpoint import CheckpointStore
from keras_alexnet.training.saver import Saver
from keras_alexnet.training.schedule_callback import ScheduleCallback
from keras_alexnet.training.strategy import make_strategy

BATCH_SIZE = 128
STEPS = 7


def model_on(strategy: tf.distribute.Strategy, network: Network) -> keras.Model:
    """Builds and compiles the network on some devices."""
    with strategy.scope():
        model = compiled_for_training(ours(network))
        model.optimizer.build(model.trainable_variables)
        strategy.run(
            model.compute_metrics,
            args=(None, tf.zeros((1,), tf.int32), tf.zeros((1, network.classes)), None),
        )
    return model


def batch(network: Network, size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Makes a batch of noise."""
    images, labels = images_and_labels(network, size)
    return tf.constant(images), tf.constant(labels), tf.ones(size)


class Alternating(keras.callbacks.Callback):
    """Takes a bare step after each of the loop's, and times both."""

    def __init__(self, bare: Callable[[], None]):
        super().__init__()
        self.bare = bare
        self.seconds = {"bare step": [], "loop": []}
        self._last: float | None = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Ends the time of a step of the loop, which began when this returned."""
        now = time.perf_counter()
        if self._last is not None:
            self.seconds["loop"].append(now - self._last)
            self.bare()
            self.seconds["bare step"].append(time.perf_counter() - now)
        else:
            self.bare()  # Traces.
        self._last = time.perf_counter()


def measure_loop(report: Report, network: Network, batch_size: int) -> None:
    """The loop, with its callbacks and its progress bar, against the bare step."""
    strategy = make_strategy()
    one, other = model_on(strategy, network), model_on(strategy, network)
    data = batch(network, batch_size)
    step = tf.function(other.train_step, autograph=False)
    alternating = Alternating(lambda: float(step(data)["loss"]))
    loop.run(
        one,
        lambda: tf.data.Dataset.from_tensors(data).repeat(STEPS),
        strategy=strategy,
        ends=[STEPS],
        callbacks=[
            ScheduleCallback(STEPS, parse_schedule("cosine(1e-6)"), None),
            alternating,
        ],
    )
    report.add("loop", alternating.seconds, batch_size, baseline="bare step")


def measure_replicas(report: Report, network: Network, batch_size: int) -> None:
    """One device against two, each with half of the batch and half of the cores."""
    data = batch(network, batch_size)
    candidates = {}
    for replicas in (1, 2):
        strategy = make_strategy(replicas)
        model = model_on(strategy, network)
        share = batch_size // replicas
        dataset = tf.data.Dataset.from_tensors(data).unbatch().batch(share).repeat()
        iterator = iter(
            strategy.distribute_datasets_from_function(lambda _, d=dataset: d)
        )

        @tf.function(autograph=False)
        def step(batch, strategy=strategy, model=model):
            strategy.run(model.train_step, args=(batch,))
            return model.get_metrics_result()["loss"]

        candidates[f"{replicas} replicas"] = lambda step=step, iterator=iterator: float(
            step(next(iterator))
        )
    seconds = in_turn(candidates, STEPS, warm_up=2)
    report.add("replicas", seconds, batch_size, baseline="1 replicas")


def measure_checkpoints(report: Report, network: Network, batch_size: int) -> None:
    """How long training waits for a checkpoint, and how steps fare meanwhile."""
    model, data = model_on(make_strategy(), network), batch(network, batch_size)
    step = tf.function(model.train_step, autograph=False)
    step(data)
    seconds = {"step alone": [], "step while writing": []}
    waits = []
    with tempfile.TemporaryDirectory() as directory:
        saver = Saver(CheckpointStore(Path(directory)))
        for number in range(STEPS):
            for name in seconds:
                saver.wait()
                waited = saver.seconds_waited
                if name == "step while writing":
                    saver.save(number, model, {})
                    waits.append(saver.seconds_waited - waited)
                begin = time.perf_counter()
                float(step(data)["loss"])
                seconds[name].append(time.perf_counter() - begin)
        saver.close()
    report.add("checkpoints", seconds, batch_size, baseline="step alone")
    report.say("seconds that training waits for a checkpoint", statistics.median(waits))


def run(options: Options) -> None:
    """Answers the three questions."""
    # Logical devices must exist before TensorFlow first uses the processor.
    make_strategy(2)
    network = network_for(options.quick)
    batch_size = 8 if options.quick else BATCH_SIZE
    report = Report("engine", options, batch_size=batch_size)
    for measure in (measure_loop, measure_replicas, measure_checkpoints):
        measure(report, network, batch_size)
        keras.backend.clear_session()
    report.write()
