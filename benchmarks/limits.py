"""Limits of the device: square matrix products, and copying memory.

    keras-alexnet benchmark limits

On a GPU float32 products use TF32, TensorFlow's default, and the copy is from its
memory to its memory; bytes are counted twice, because they are read and written.
"""

from __future__ import annotations

import statistics

import numpy as np
import tensorflow as tf

from keras_alexnet.benchmarks.comparison import Comparison, Seconds, Work
from keras_alexnet.benchmarks.machine import has_gpu
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report


class Limits:
    """The limits as candidates of a comparison.

    Args:
        comparison: They are added to it.

    Attributes:
        work: FLOP or bytes of an execution, by name.
    """

    def __init__(self, comparison: Comparison):
        self.work: dict[str, float] = {}
        gpu, quick = has_gpu(), comparison.options.quick
        size = 128 if quick else 8192 if gpu else 2048
        for dtype in ("float32", "bfloat16"):
            name = f"limit: {dtype} product of {size}"
            comparison.add(name, product, limit=True, dtype=dtype, size=size)
            self.work[name] = 2.0 * size**3
        size = 1 << (16 if quick else 30 if gpu else 29)
        comparison.add("limit: copy", memory_copy, limit=True, size=size)
        self.work["limit: copy"] = 2.0 * size

    def report(self, report: Report, seconds: Seconds) -> tuple[dict, dict]:
        """Reports the limits among what was measured.

        Returns:
            FLOP/s by dtype and bytes/s of `"copy"`; what was measured besides.
        """
        rates: dict[str, float] = {}
        for name in filter(seconds.__contains__, self.work):
            unit, factor = ("GB/s", 1e9) if "copy" in name else ("TFLOP/s", 1e12)
            times = {name: seconds[name]}
            report.add("limits", times, self.work[name] / factor, unit)
            _, key, *_ = name.split()
            rates[key] = self.work[name] / statistics.median(seconds[name])
        return rates, {k: x for k, x in seconds.items() if k not in self.work}


def product(dtype: str, size: int) -> Work:
    """Makes products of random square matrices."""
    has_gpu()
    a = tf.cast(tf.random.stateless_normal((size, size), (0, size)), dtype)
    multiply = tf.function(lambda: tf.matmul(a, a), autograph=False)

    def work(count: int) -> float:
        for _ in range(count):
            c = multiply()
        return float(c[0, 0])

    return work


def memory_copy(size: int) -> Work:
    """Makes copies of so many bytes: on a GPU there, on the CPU by NumPy."""
    if not has_gpu():
        source = np.ones(size // 4, np.float32)
        target = np.empty_like(source)
        return lambda count: [np.copyto(target, source) for _ in range(count)]
    x = tf.ones((size // 4,))
    negate = tf.function(lambda: -x, autograph=False, jit_compile=True)

    def work(count: int) -> float:
        for _ in range(count):
            y = negate()
        return float(y[0])

    return work


def run(options: Options) -> None:
    """Measures and reports."""
    report = Report("limits", options)
    with Comparison(options) as comparison:
        limits = Limits(comparison)
        limits.report(report, comparison.run())
        report.skip(comparison.skipped)
    report.write()
