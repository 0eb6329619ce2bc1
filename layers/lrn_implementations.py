"""Ways to compute local response normalisation, and which is which.

All work on activations of shape (rows, groups, channels of a tower, columns) and
compute in float32, float64 for float64. With d = k + alpha * the windowed sum of x^2,

    y = x d^-beta
    dx = dy d^-beta - 2 alpha beta x * (the mirrored windowed sum of dy x d^(-beta - 1))

is how both directions are written. What limits them is memory traffic: the gradient
computes d anew, because keeping it takes longer.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from keras_alexnet.errors import UserError

IMPLEMENTATIONS = ("xla", "xla_fused", "windowed")


@dataclasses.dataclass(frozen=True)
class Formula:
    """x / (k + alpha * windowed sum of squares) ^ beta, with these numbers.

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

    @property
    def window(self) -> tuple[int, int]:
        """How many channels a window has below its own, and how many above."""
        return self.size // 2, (self.size - 1) // 2

    def root(self, wide: tf.Tensor) -> tf.Tensor:
        """Computes d^-1/2 of activations of `_wide`."""
        energy = _windowed_sum(tf.square(wide), *self.window)
        return tf.math.rsqrt(self.k + self.alpha * energy)

    def compute(self, x: tf.Tensor) -> tf.Tensor:
        """Computes the formula on (rows, groups, channels, columns), rounded once."""
        wide = _wide(x)
        return tf.cast(wide * _power(self.root(wide), self.beta), x.dtype)

    def normalise(
        self,
        x: tf.Tensor,
        implementation: str,
        *,
        groups: int = 1,
        channels_last: bool = True,
    ) -> tf.Tensor:
        """Normalises activations; differentiable any number of times.

        Args:
            x: Activations, rank two or more, any floating dtype.
            implementation: One of `IMPLEMENTATIONS`.
            groups: Parts of the channels that windows do not cross.
            channels_last: Whether channels are on the last axis, or else on axis 1.

        Returns:
            The shape and dtype of `x`; computed in float32, or in float64 for float64.

        Raises:
            ValueError: `x` holds integers, or there is no such implementation.
        """
        if not x.dtype.is_floating:
            raise UserError(
                "Local response normalisation is for floating-point activations. "
                f"Received: {x.dtype.name}"
            )
        tower = x.shape[-1 if channels_last else 1] // groups
        rows = -1 if channels_last else tf.shape(x)[0]
        columns = 1 if channels_last else -1
        y = get(implementation, self)(tf.reshape(x, (rows, groups, tower, columns)))
        return tf.reshape(y, tf.shape(x))


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
            `"windowed"`: the same by TensorFlow's separate operations.
        formula: What to compute.

    Raises:
        ValueError: There is no such implementation.
    """
    if name not in IMPLEMENTATIONS:
        raise UserError(
            f"implementation must be one of {', '.join(IMPLEMENTATIONS)}. "
            f"Received: {name}"
        )

    def loop(function: Callable) -> Callable:
        """Compiles a function that is one loop over the activations."""
        if name == "windowed":
            return function
        return tf.function(function, jit_compile=True, autograph=False)

    forward = loop(formula.compute)
    if name == "xla_fused":
        backward = loop(functools.partial(_fused_gradient, formula))
    else:
        # Two functions, because XLA would otherwise compute what is under the windowed
        # sum once for every one of its terms.
        inner = loop(functools.partial(_inner_gradient, formula))
        outer = loop(functools.partial(_outer_gradient, formula))

        def backward(dy, x):
            return outer(dy, x, inner(dy, x))

    @tf.custom_gradient
    def normalise(x):
        return forward(x), lambda dy: backward(dy, x)

    return normalise


def _inner_gradient(formula: Formula, dy: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Computes what the gradient adds up over windows."""
    dy, wide = _wide(dy), _wide(x)
    root = formula.root(wide)
    return dy * wide * _power(root, formula.beta) * root * root


def _outer_gradient(
    formula: Formula, dy: tf.Tensor, x: tf.Tensor, inner: tf.Tensor
) -> tf.Tensor:
    dy, wide = _wide(dy), _wide(x)
    # Over the windows that hold a channel: the mirrored one.
    shared = _windowed_sum(inner, *formula.window[::-1])
    shared = (2 * formula.alpha * formula.beta) * wide * shared
    return tf.cast(dy * _power(formula.root(wide), formula.beta) - shared, x.dtype)


def _fused_gradient(formula: Formula, dy: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Computes the gradient in one loop over the activations.

    Every operand is a slice of dy or x, never of a sum, which XLA would compute again
    for each of the windows that it is in.
    """
    (before, after), channels = formula.window, x.shape[2]

    def shifted(tensor, below, above):
        padded = tf.pad(tensor, ((0, 0), (0, 0), (below, above), (0, 0)))
        return {
            offset: _wide(padded[:, :, below + offset : below + offset + channels])
            for offset in range(-below, above + 1)
        }

    reach = before + after
    wide, outer = shifted(x, reach, reach), shifted(dy, after, before)
    squares = {offset: tf.square(value) for offset, value in wide.items()}
    shared = []
    for offset in range(-after, before + 1):
        window = range(offset - before, offset + after + 1)
        energy = tf.add_n([squares[index] for index in window])
        root = tf.math.rsqrt(formula.k + formula.alpha * energy)
        power = _power(root, formula.beta)
        if offset == 0:
            direct = outer[0] * power
        shared.append(outer[offset] * wide[offset] * power * root * root)
    shared = (2 * formula.alpha * formula.beta) * wide[0] * tf.add_n(shared)
    # Or the sum for the bias of the convolution in front would compute it again.
    return _barrier(tf.cast(direct - shared, x.dtype))


@tf.custom_gradient
def _barrier(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Keeps XLA from fusing what makes `x` with what uses it."""
    (x,) = xla.optimization_barrier(x)
    return x, lambda dy: dy


def _wide(x: tf.Tensor) -> tf.Tensor:
    """Returns activations in the dtype that everything is computed in."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def _windowed_sum(x: tf.Tensor, before: int, after: int) -> tf.Tensor:
    padded = tf.pad(x, ((0, 0), (0, 0), (before, after), (0, 0)))
    channels = x.shape[2]
    return tf.add_n([padded[:, :, i : i + channels] for i in range(before + after + 1)])


def inverse_power(base: tf.Tensor, beta: float) -> tf.Tensor:
    """Computes base^-beta."""
    return _power(tf.math.rsqrt(base), beta)


def _power(root: tf.Tensor, beta: float) -> tf.Tensor:
    """Computes d^-beta from d^-1/2."""
    # A general power costs more than all the rest of the normalisation.
    return root * tf.sqrt(root) if beta == 0.75 else tf.pow(root, 2 * beta)
