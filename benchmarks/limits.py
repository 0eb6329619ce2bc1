"""Limits of the device: square matrix products, and copying memory.

    keras-alexnet benchmark limits

On a GPU float32 products use TF32, TensorFlow's default, and the copy is from its
memory to its memory; bytes are counted twice, because they are read and written.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_alexnet.benchmarks.comparison import Comparison, Work
from keras_alexnet.benchmarks.machine import has_gpu
from keras_alexnet.benchmarks.report import Report, Seconds


def run(report: Report) -> None:
    """Measures and reports."""
    with Comparison(report) as comparison:
        report_limits(report, add_limits(comparison), comparison.run())


def add_limits(comparison: Comparison) -> dict[str, float]:
    """Adds the limits as candidates; returns FLOP or bytes of an execution, by name."""
    gpu, quick, work = has_gpu(), comparison.options.quick, {}
    size = 128 if quick else 8192 if gpu else 2048
    for dtype in ("float32", "bfloat16"):
        name = f"limit: {dtype} product of {size}"
        comparison.add(name, product, limit=True, dtype=dtype, size=size)
        work[name] = 2.0 * size**3
    size = 1 << (16 if quick else 30 if gpu else 29)
    comparison.add("limit: copy", memory_copy, limit=True, size=size)
    return {**work, "limit: copy": 2.0 * size}


def report_limits(
    report: Report, work: Mapping[str, float], seconds: Seconds
) -> tuple[dict[str, float], dict]:
    """Reports the limits among what was measured.

    Args:
        report: Where they are reported.
        work: From `add_limits`.
        seconds: From `Comparison.run`.

    Returns:
        FLOP/s by dtype and bytes/s of `"copy"`; what was measured besides.
    """
    rates: dict[str, float] = {}
    for name in filter(seconds.__contains__, work):
        unit, factor = ("GB/s", 1e9) if "copy" in name else ("TFLOP/s", 1e12)
        report.add("limits", {name: seconds[name]}, work[name] / factor, unit)
        _, key, *_ = name.split()
        rates[key] = work[name] / statistics.median(seconds[name])
    return rates, {k: x for k, x in seconds.items() if k not in work}


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
