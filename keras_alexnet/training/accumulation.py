"""Gradients of a large batch in the memory of a small one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_alexnet.errors import UserError

# (x, y, sample_weight) -> (loss, predictions, gradients)
Compute = Callable[[Any, Any, Any], tuple[tf.Tensor, tf.Tensor, list[tf.Tensor | None]]]


def averaged_over_parts(compute: Compute, parts: int) -> Compute:
    """Makes a function that computes a batch in parts, one after the other.

    Only one part's activations are in memory at a time. What is returned is what the
    whole batch would give, but for rounding: the mean of the losses and of the
    gradients, and all predictions.

    Args:
        compute: From `(x, y, sample_weight)` to loss, predictions and gradients, the
            loss a mean over the examples.
        parts: How many. The batch size must be a multiple.

    Returns:
        A function of the same form.
    """

    def of_parts(x, y, sample_weight):
        def each(function, structure):
            # None, where there are no weights, is a leaf to tf.nest.
            if structure is None:
                return None
            return tf.nest.map_structure(function, structure)

        batch = [each(lambda t: _cut(t, parts), one) for one in (x, y, sample_weight)]

        def part(index):
            return compute(*(each(lambda t: t[index], one) for one in batch))

        # The first one tells what the others add up to.
        loss, predictions, gradients = part(0)
        known = [index for index, g in enumerate(gradients) if g is not None]
        collected = tf.TensorArray(
            predictions.dtype, parts, element_shape=predictions.shape
        ).write(0, predictions)

        def add(index, loss, collected, sums):
            one_loss, predictions, gradients = part(index)
            sums = [total + gradients[i] for total, i in zip(sums, known, strict=True)]
            return index + 1, loss + one_loss, collected.write(index, predictions), sums

        _, loss, collected, sums = tf.while_loop(
            lambda index, *_: index < parts,
            add,
            (1, loss, collected, [tf.convert_to_tensor(gradients[i]) for i in known]),
            # At once, they would take as much memory as the whole batch.
            parallel_iterations=1,
        )
        for index, total in zip(known, sums, strict=True):
            gradients[index] = total / parts
        return loss / parts, collected.concat(), gradients

    return of_parts


def _cut(tensor: tf.Tensor, parts: int) -> tf.Tensor:
    """Reshapes `(batch, ...)` to `(parts, batch / parts, ...)`.

    Raises:
        ValueError: The batch cannot be cut into equal parts.
    """
    batch = tensor.shape[0]
    if batch is not None and batch % parts:
        raise UserError(
            f"A replica's batch of {batch} cannot be cut into {parts} equal parts."
        )
    shape = tf.concat([[parts, -1], tf.shape(tensor)[1:]], axis=0)
    size = None if batch is None else batch // parts
    return tf.ensure_shape(tf.reshape(tensor, shape), (parts, size, *tensor.shape[1:]))
