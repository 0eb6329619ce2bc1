"""What the machine can do at best: matrix products, and copying memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_alexnet.benchmarks.contest import Contest
from keras_alexnet.benchmarks.timing import fastest, in_turn

# Beyond the caches, and in them.
SIZES = (1024, 2048, 4096)
COPIED_BYTES = 1 << 29


class Limits:
    """Matrix products at their best size and a memory copy, as candidates.

    Args:
        contest: They are entered here, to be timed beside the others.
        quick: Whether they are tiny.
    """

    def __init__(self, contest: Contest, quick: bool):
        self._work: dict[str, float] = {}
        sizes = (64, 128) if quick else SIZES
        for dtype in ("float32", "bfloat16"):
            name, products = best_product(dtype, sizes)
            contest.enter(name, products)
            self._work[name] = 2.0 * max(sizes) ** 3
        source = np.ones((1 << 16 if quick else COPIED_BYTES) // 4, np.float32)
        target = np.empty_like(source)
        contest.enter("memory copy", lambda: np.copyto(target, source))
        # It is read and written.
        self._work["memory copy"] = 2.0 * source.nbytes

    def split(
        self, seconds: dict[str, list[float]]
    ) -> tuple[dict[str, list[float]], dict[str, float]]:
        """Takes the limits out of what was measured.

        Args:
            seconds: From `Contest.run`.

        Returns:
            The seconds of the others; and FLOP/s or bytes/s, by limit.
        """
        others = {name: x for name, x in seconds.items() if name not in self._work}
        rates = {
            name: work / statistics.median(seconds[name])
            for name, work in self._work.items()
        }
        return others, rates


def product_rate(rates: dict[str, float], dtype: str) -> float:
    """Returns the FLOP/s of the matrix product in a dtype."""
    return next(rate for name, rate in rates.items() if dtype in name)


def best_product(
    dtype: str, sizes: tuple[int, ...]
) -> tuple[str, Callable[[], object]]:
    """Finds the size of square matrices whose products run at the highest rate.

    Args:
        dtype: Of the matrices.
        sizes: To choose from.

    Returns:
        A name, and what computes products, of smaller matrices more of them: always
        2 * max(sizes)^3 FLOP.
    """
    products = {
        f"matrix product of {size}, {dtype}": _products(
            dtype, size, (max(sizes) // size) ** 3
        )
        for size in sizes
    }
    name = fastest(in_turn(products, 3))
    return name, products[name]


def _products(dtype: str, size: int, count: int) -> Callable[[], object]:
    a = tf.cast(tf.random.stateless_normal((size, size), (0, size)), dtype)

    @tf.function(autograph=False)
    def product():
        # One element, so that nothing is copied back from a GPU.
        return tf.matmul(a, a)[0, 0]

    return lambda: [product().numpy() for _ in range(count)]
