"""Training loop with its callbacks against the bare compiled step, batch by batch.

    keras-alexnet benchmark engine

In one run of the loop windows of its steps alternate with as many bare steps; the batch
is on the device.
"""

from __future__ import annotations

import itertools
import math
import time

import keras
import tensorflow as tf

from keras_alexnet.benchmarks import models
from keras_alexnet.benchmarks.comparison import Work
from keras_alexnet.benchmarks.machine import has_gpu
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.schedules import parse_schedule
from keras_alexnet.training import loop
from keras_alexnet.training.callbacks import ScheduleCallback
from keras_alexnet.training.strategy import make_strategy


class Alternating(keras.callbacks.Callback):
    """Takes bare steps after each window of the loop's, and times both.

    Args:
        bare: Takes so many.
        window: Steps of a window.
    """

    def __init__(self, bare: Work, window: int):
        super().__init__()
        self.bare, self.window = bare, window
        self.seconds: dict[str, list[float]] = {"bare step": [], "loop": []}
        self._last: float | None = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Ends a window; the next begins when this returns."""
        if (batch + 1) % self.window:
            return
        float(logs["loss"])  # Waits for the device.
        now = time.perf_counter()
        self.bare(self.window)
        bare = (time.perf_counter() - now) / self.window
        if self._last is not None:  # The first window traces.
            self.seconds["loop"].append((now - self._last) / self.window)
            self.seconds["bare step"].append(bare)
        self._last = time.perf_counter()


def measure_loop(
    report: Report, network: str, precision: str, xla: bool, batch_size: int
) -> None:
    """Runs the loop, with schedules and progress bar, and reports."""
    strategy = make_strategy(1)
    with strategy.scope():
        one, other = (
            models.compiled(models.ours(network, precision), xla) for _ in range(2)
        )
    images, labels = models.noise(network, batch_size)
    data = images, labels, tf.ones(batch_size)
    with strategy.scope():
        bare = models.steps_of(other, data)
        models.steps_of(one, data)
    bare(1)
    started = time.perf_counter()
    bare(2)
    once = (time.perf_counter() - started) / 2
    window = min(200, max(1, math.ceil(2 * report.options.min_seconds / once)))
    steps = window * (report.options.repetitions + 1)
    alternating = Alternating(bare, window)
    loop.run(
        one,
        lambda: tf.data.Dataset.from_tensors(0).repeat(steps),
        strategy=strategy,
        ends=[steps],
        callbacks=[
            ScheduleCallback(steps, parse_schedule("cosine(1e-6)"), None),
            alternating,
        ],
        prepare=lambda _: data,
    )
    case = f"{network}, {precision}{', XLA' if xla else ''}, batch {batch_size}"
    report.add(case, alternating.seconds, batch_size, baseline="bare step")


def run(report: Report) -> None:
    """Measures and reports."""
    gpu, options = has_gpu(), report.options
    network = "alexnet_mini" if options.quick else "alexnet_2012"
    default = 8 if options.quick else 512 if gpu else 128
    compilations = (False, True) if gpu else (options.quick,)
    for case in itertools.product(
        options.batch_sizes or (default,), ("bfloat16", "float32"), compilations
    ):
        if not options.time_is_up:
            batch_size, precision, xla = case
            measure_loop(report, network, precision, xla, batch_size)
            keras.backend.clear_session()
