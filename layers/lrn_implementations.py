"""Ways to compute local response normalisation, and which is which.

All work on activations of shape (rows, groups, channels of a tower, columns) and
compute in float32. With d = k + alpha * the windowed sum of x^2,

    y = x d^-beta
    dx = dy d^-beta - 2 alpha beta x * (the mirrored windowed sum of dy x d^(-beta - 1))

is how both directions are written, but for TensorFlow's own. What limits them is memory
traffic: the gradient computes d anew, because keeping it takes longer.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf

from keras_alexnet.errors import UserError

IMPLEMENTATIONS = ("xla", "windowed", "native")


@dataclasses.dataclass(frozen=True)
class Formula:
    """The numbers of x / (k + alpha * windowed sum of squares) ^ beta.

    Attributes:
        size: Number of channels in a window; even ones lean to the lower channels.
        alpha: Scale of the sum.
        beta: The exponent.
        k: The additive constant.
    """

    size: int
    alpha: float
    beta: float
    k: float


# Made once for each formula, so that calls outside a graph find what is compiled. Holds
# no variables and may be shared by replicas.
@functools.cache
def get(name: str, formula: Formula) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function of (rows, groups, channels, columns) that normalises.

    Args:
        name: `"xla"`: shifted copies are added up, compiled into few loops; several
            times faster than the others, after a compilation for each shape.
            `"windowed"`: the same by TensorFlow's separate operations. `"native"`:
            TensorFlow's own operation, for windows of odd size; differentiable once,
            and an infinity makes NaN of its whole row on CPUs.
        formula: What to compute.

    Raises:
        ValueError: There is no such implementation, or it cannot compute the formula.
    """
    if name == "native":
        return _native(formula)
    if name == "windowed":
        return _windowed(formula)
    if name == "xla":
        return _windowed(
            formula, functools.partial(tf.function, jit_compile=True, autograph=False)
        )
    raise UserError(
        f"implementation must be one of {', '.join(IMPLEMENTATIONS)}. Received: {name}"
    )


def _windowed(
    formula: Formula,
    compiled: Callable[[Callable], Callable] = lambda function: function,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the normalisation that adds up shifted copies.

    Args:
        formula: What to compute.
        compiled: What happens to each function that is one loop over the activations.
    """
    before, after = formula.size // 2, (formula.size - 1) // 2
    beta = formula.beta

    def inverse_root(wide):
        energy = _windowed_sum(tf.square(wide), before, after)
        return tf.math.rsqrt(formula.k + formula.alpha * energy)

    @compiled
    def forward(x):
        wide = tf.cast(x, tf.float32)
        return tf.cast(wide * _power(inverse_root(wide), beta), x.dtype)

    # Two functions, because XLA would otherwise compute what is under the windowed sum
    # once for every one of its terms.
    @compiled
    def backward_inner(dy, x):
        dy, wide = tf.cast(dy, tf.float32), tf.cast(x, tf.float32)
        root = inverse_root(wide)
        return dy * wide * _power(root, beta) * root * root

    @compiled
    def backward_outer(dy, x, inner):
        dy, wide = tf.cast(dy, tf.float32), tf.cast(x, tf.float32)
        # Over the windows that hold a channel: the mirrored one.
        shared = _windowed_sum(inner, after, before)
        shared = (2 * formula.alpha * beta) * wide * shared
        return tf.cast(dy * _power(inverse_root(wide), beta) - shared, x.dtype)

    @tf.custom_gradient
    def normalise(x):
        def gradient(dy):
            return backward_outer(dy, x, backward_inner(dy, x))

        return forward(x), gradient

    return normalise


def _native(formula: Formula) -> Callable[[tf.Tensor], tf.Tensor]:
    if formula.size % 2 == 0:
        raise UserError(
            "TensorFlow's own operation has windows of odd size only. Received: "
            f"size={formula.size}"
        )

    def normalise(x):
        # (rows, groups, channels, columns) -> (rows, groups, columns, channels)
        last = tf.transpose(tf.cast(x, tf.float32), (0, 1, 3, 2))
        y = tf.nn.local_response_normalization(
            last, formula.size // 2, formula.k, formula.alpha, formula.beta
        )
        return tf.cast(tf.transpose(y, (0, 1, 3, 2)), x.dtype)

    return normalise


def _windowed_sum(x: tf.Tensor, before: int, after: int) -> tf.Tensor:
    padded = tf.pad(x, ((0, 0), (0, 0), (before, after), (0, 0)))
    channels = x.shape[2]
    return tf.add_n([padded[:, :, i : i + channels] for i in range(before + after + 1)])


def _power(root: tf.Tensor, beta: float) -> tf.Tensor:
    """Computes d^-beta from d^-1/2."""
    # A general power costs more than all the rest of the normalisation.
    return root * tf.sqrt(root) if beta == 0.75 else tf.pow(root, 2 * beta)
