"""Limits of the device: square matrix products, and copying memory.

    keras-alexnet benchmark limits

On a GPU float32 products run with and without TF32, and the copy is from its memory to
its memory; bytes are counted twice, because they are read and written.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from keras_alexnet.benchmarks.comparison import EXACT, TENSORFLOW, Comparison
from keras_alexnet.benchmarks.devices import has_gpu, set_tf32
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.benchmarks.workers import Work


class Limits:
    """The limits as candidates of a comparison.

    Args:
        comparison: They are added to it.
        process: Where they run; "" is this process.
        exact: Whether float32 without TF32 is measured too, on a GPU.
        copy: Whether the copy is one of them.
    """

    def __init__(
        self,
        comparison: Comparison,
        process: str = TENSORFLOW,
        exact: bool = False,
        copy: bool = True,
    ):
        self.work: dict[str, float] = {}
        self.gpu = has_gpu()
        quick = comparison.options.quick
        size = 128 if quick else 8192 if self.gpu else 2048
        products = ["TF32" if self.gpu else "float32", "bfloat16"]
        for dtype in products + ["float32"] * (exact and self.gpu):
            name = f"limit: {dtype} product of {size}"
            where = EXACT if dtype == "float32" and self.gpu else process
            comparison.add(name, product, where, limit=True, dtype=dtype, size=size)
            self.work[name] = 2.0 * size**3
        size = 1 << (16 if quick else 30 if self.gpu else 29)
        kinds = ("DeepCopy", "XLA") if self.gpu else ("NumPy",)
        for kind in kinds if copy else ():
            name = f"limit: copy by {kind}"
            comparison.add(name, memory_copy, process, limit=True, kind=kind, size=size)
            self.work[name] = 2.0 * size

    def rates(self, seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """Returns FLOP/s by dtype, and bytes/s of the fastest `"copy"`."""
        rates: dict[str, float] = {}
        for name, work in self.work.items():
            if name in seconds:
                _, key, *_ = name.split()
                rate = work / statistics.median(seconds[name])
                rates[key] = max(rates.get(key, 0), rate)
        return rates

    def product(self, dtype: str) -> str:
        """Returns the product that bounds what computes in a dtype by default."""
        return "TF32" if dtype == "float32" and self.gpu else dtype

    def split(self, seconds: Mapping) -> tuple[dict, dict]:
        """Returns what is a limit, and what is not."""
        ours = {name: x for name, x in seconds.items() if name in self.work}
        return ours, {name: x for name, x in seconds.items() if name not in self.work}


def product(dtype: str, size: int) -> Work:
    """Makes products of random square matrices."""
    has_gpu()
    set_tf32(dtype != "float32")
    dtype = "float32" if dtype == "TF32" else dtype
    a = tf.cast(tf.random.stateless_normal((size, size), (0, size)), dtype)
    multiply = tf.function(lambda: tf.matmul(a, a), autograph=False)

    def work(count: int) -> float:
        for _ in range(count):
            c = multiply()
        return float(c[0, 0])

    return work


def memory_copy(kind: str, size: int) -> Work:
    """Makes copies of so many bytes, by one of three ways."""
    if kind == "NumPy":
        source = np.ones(size // 4, np.float32)
        target = np.empty_like(source)
        return lambda count: [np.copyto(target, source) for _ in range(count)]
    has_gpu()
    x = tf.ones((size // 4,))
    if kind == "DeepCopy":
        copy = tf.function(lambda: tf.raw_ops.DeepCopy(x=x), autograph=False)
    else:
        copy = tf.function(lambda: -x, autograph=False, jit_compile=True)

    def work(count: int) -> float:
        for _ in range(count):
            y = copy()
        return float(y[0])

    return work


def add_limits(report: Report, limits: Limits, seconds: Mapping) -> dict[str, float]:
    """Reports the limits that were measured, and returns their rates."""
    measured, _ = limits.split(seconds)
    for name, values in measured.items():
        unit = ("GB/s", 1e9) if "copy" in name else ("TFLOP/s", 1e12)
        report.add("limits", {name: values}, limits.work[name] / unit[1], unit[0])
    return limits.rates(seconds)


def run(options: Options) -> None:
    """Measures and reports."""
    report = Report("limits", options)
    with Comparison(options) as comparison:
        limits = Limits(comparison, exact=True)
        add_limits(report, limits, comparison.run())
        report.skip(comparison.skipped)
    report.write()
