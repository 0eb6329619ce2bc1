"""What does the training engine cost, on top of the step itself?

Three questions, each answered within one run of alexnet_2012, batch 128: how fast the
loop is against the bare compiled step; two logical devices on the same processor
against one; how long training stands still for checkpoints.

    python -m benchmarks engine
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_alexnet
from benchmarks.timing import in_turn, report
from keras_alexnet.schedules import parse_schedule
from keras_alexnet.training import loop
from keras_alexnet.training.checkpoint import CheckpointStore
from keras_alexnet.training.optimizer import DecayedMomentum
from keras_alexnet.training.saver import Saver
from keras_alexnet.training.schedule_callback import ScheduleCallback
from keras_alexnet.training.strategy import make_strategy

BATCH_SIZE = 128
STEPS = 7


def model_on(strategy: tf.distribute.Strategy) -> keras.Model:
    """Builds and compiles the network on some devices."""
    with strategy.scope():
        model = keras_alexnet.build()
        model.compile(
            DecayedMomentum(1e-3),
            "sparse_categorical_crossentropy",
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
        strategy.run(
            model.compute_metrics,
            args=(None, tf.zeros((1,), tf.int32), tf.zeros((1, 1000)), None),
        )
    return model


def batch() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Makes a batch of noise."""
    random = np.random.default_rng(0)
    images = random.normal(0, 60, (BATCH_SIZE, 227, 227, 3)).astype("float32")
    labels = random.integers(0, 1000, BATCH_SIZE).astype("int32")
    return tf.constant(images), tf.constant(labels), tf.ones(BATCH_SIZE)


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


def measure_loop() -> None:
    """The loop, with its callbacks and its progress bar, against the bare step."""
    strategy = make_strategy()
    one, other, data = model_on(strategy), model_on(strategy), batch()
    step = tf.function(other.train_step, autograph=False)
    alternating = Alternating(lambda: float(step(data)["loss"]))
    loop.run(
        one,
        lambda: tf.data.Dataset.from_tensors(data).repeat(STEPS),
        strategy=strategy,
        ends=[STEPS],
        callbacks=[
            ScheduleCallback(STEPS, parse_schedule("cosine(0.01)"), None),
            alternating,
        ],
    )
    report("loop", alternating.seconds, BATCH_SIZE, baseline="bare step")


def measure_replicas() -> None:
    """One device against two, each with half of the batch and half of the cores."""
    data = batch()
    candidates = {}
    for replicas in (1, 2):
        strategy = make_strategy(replicas)
        model = model_on(strategy)
        share = BATCH_SIZE // replicas
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
    report("replicas", seconds, BATCH_SIZE, baseline="1 replicas")


def measure_checkpoints() -> None:
    """How long training waits for a checkpoint, and how steps fare meanwhile."""
    strategy = make_strategy()
    model, data = model_on(strategy), batch()
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
    report("checkpoints", seconds, BATCH_SIZE, baseline="step alone")
    wait = statistics.median(waits)
    print(f"Waiting for a checkpoint: {wait:.2f} s, {wait / 60:.2%} of a minute.")


def main() -> None:
    """Answers the three questions."""
    # Logical devices must exist before TensorFlow first uses the processor.
    make_strategy(2)
    measure_loop()
    keras.backend.clear_session()
    measure_replicas()
    keras.backend.clear_session()
    measure_checkpoints()


if __name__ == "__main__":
    main()
