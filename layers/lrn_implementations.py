"""Ways to compute local response normalisation, and which is which.

All work on activations of shape (rows, groups, channels of a tower, columns) and
compute in float32, float64 for float64. With d = k + alpha * the windowed sum of x^2,

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
from tensorflow.compiler.tf2xla.python import xla

from keras_alexnet.errors import UserError

IMPLEMENTATIONS = ("xla", "xla_fused", "windowed", "native")


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
            `"xla_fused"`: the same with a gradient of one loop, which reads and writes
            each activation once and computes the sums anew, for GPUs.
            `"windowed"`: the same by TensorFlow's separate operations. `"native"`:
            TensorFlow's own operation, for windows of odd size; differentiable once,
            in float32 for float64 too; an infinity makes NaN of its whole row on CPUs.
        formula: What to compute.

    Raises:
        ValueError: There is no such implementation, or it cannot compute the formula.
    """
    if name == "native":
        return _native(formula)
    if name == "windowed":
        return _windowed(formula)
    compiled = functools.partial(tf.function, jit_compile=True, autograph=False)
    if name == "xla":
        return _windowed(formula, compiled)
    if name == "xla_fused":
        return _fused(formula, compiled)
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
        return _normalised(_wide(x), formula, x.dtype)

    # Two functions, because XLA would otherwise compute what is under the windowed sum
    # once for every one of its terms.
    @compiled
    def backward_inner(dy, x):
        dy, wide = _wide(dy), _wide(x)
        root = inverse_root(wide)
        return dy * wide * _power(root, beta) * root * root

    @compiled
    def backward_outer(dy, x, inner):
        dy, wide = _wide(dy), _wide(x)
        # Over the windows that hold a channel: the mirrored one.
        shared = _windowed_sum(inner, after, before)
        shared = (2 * formula.alpha * beta) * wide * shared
        return tf.cast(dy * _power(inverse_root(wide), beta) - shared, x.dtype)

    return _with_gradient(
        forward, lambda dy, x: backward_outer(dy, x, backward_inner(dy, x))
    )


def _with_gradient(
    forward: Callable[[tf.Tensor], tf.Tensor],
    backward: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> Callable[[tf.Tensor], tf.Tensor]:
    @tf.custom_gradient
    def normalise(x):
        return forward(x), lambda dy: backward(dy, x)

    return normalise


def _normalised(wide: tf.Tensor, formula: Formula, dtype: tf.DType) -> tf.Tensor:
    """Computes the formula on activations of `_wide`, rounded once to `dtype`."""
    window = formula.size // 2, (formula.size - 1) // 2
    energy = _windowed_sum(tf.square(wide), *window)
    root = tf.math.rsqrt(formula.k + formula.alpha * energy)
    return tf.cast(wide * _power(root, formula.beta), dtype)


def _fused(
    formula: Formula, compiled: Callable[[Callable], Callable]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the normalisation whose gradient is one loop over the activations."""
    before, after = formula.size // 2, (formula.size - 1) // 2
    beta = formula.beta

    @compiled
    def forward(x):
        return _normalised(_wide(x), formula, x.dtype)

    @compiled
    def backward(dy, x):
        # Every operand is a slice of dy or x, never of a sum, which XLA would compute
        # again for each of the windows that it is in.
        channels = x.shape[2]

        def shifted(tensor, reach_below, reach_above):
            edges = (reach_below, reach_above)
            padded = tf.pad(tensor, ((0, 0), (0, 0), edges, (0, 0)))
            return {
                offset: _wide(
                    padded[:, :, reach_below + offset : reach_below + offset + channels]
                )
                for offset in range(-reach_below, reach_above + 1)
            }

        reach = before + after
        wide, outer = shifted(x, reach, reach), shifted(dy, after, before)
        squares = {offset: tf.square(value) for offset, value in wide.items()}
        shared = []
        for offset in range(-after, before + 1):
            window = range(offset - before, offset + after + 1)
            energy = tf.add_n([squares[index] for index in window])
            root = tf.math.rsqrt(formula.k + formula.alpha * energy)
            power = _power(root, beta)
            if offset == 0:
                direct = outer[0] * power
            shared.append(outer[offset] * wide[offset] * power * root * root)
        shared = (2 * formula.alpha * beta) * wide[0] * tf.add_n(shared)
        dx = tf.cast(direct - shared, x.dtype)
        # Or the sum for the bias of the convolution in front would compute it again.
        return _barrier(dx)

    return _with_gradient(forward, backward)


@tf.custom_gradient
def _barrier(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Keeps XLA from fusing what makes `x` with what uses it."""
    (x,) = xla.optimization_barrier(x)
    return x, lambda dy: dy


def _native(formula: Formula) -> Callable[[tf.Tensor], tf.Tensor]:
    if formula.size % 2 == 0:
        raise UserError(
            "TensorFlow's own operation has windows of odd size only. Received: "
            f"size={formula.size}"
        )

    def normalise(x):
        # (rows, groups, channels, columns) -> (rows, groups, columns, channels)
        # TensorFlow's has no float64.
        last = tf.transpose(tf.cast(x, tf.float32), (0, 1, 3, 2))
        y = tf.nn.local_response_normalization(
            last, formula.size // 2, formula.k, formula.alpha, formula.beta
        )
        return tf.cast(tf.transpose(y, (0, 1, 3, 2)), x.dtype)

    return normalise


def _wide(x: tf.Tensor) -> tf.Tensor:
    """Returns activations in the dtype that everything is computed in."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def _windowed_sum(x: tf.Tensor, before: int, after: int) -> tf.Tensor:
    padded = tf.pad(x, ((0, 0), (0, 0), (before, after), (0, 0)))
    channels = x.shape[2]
    return tf.add_n([padded[:, :, i : i + channels] for i in range(before + after + 1)])


def _power(root: tf.Tensor, beta: float) -> tf.Tensor:
    """Computes d^-beta from d^-1/2."""
    # A general power costs more than all the rest of the normalisation.
    return root * tf.sqrt(root) if beta == 0.75 else tf.pow(root, 2 * beta)
