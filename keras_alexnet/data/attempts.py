"""Error-tolerant batch reader: damaged images become zero-weight examples.

Good ones cost nothing more. TensorFlow's graphs cannot catch errors, but its data sets
can pass over them. So each batch is a data set of its own, computed in parallel; Python
looks after the elements that are missing at its end. (A data set for each image would
cost a tenth of decoding it.) They are interleaved, because an iterator keeps the
functions of its data sets; to prepare these anew would cost 35 ms for each batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_alexnet.data.dataset import Split
from keras_alexnet.data.skipped import reason
from keras_alexnet.images.limits import checked
from keras_alexnet.processor import cores

# So that processors have work while one batch ends and the next begins: on two of them,
# four batches of one thread each give a fifth to a quarter more images per second than
# two batches of two threads, which begin and end together.
BATCHES_AT_ONCE = 4


def read_or_skip(
    items: tf.data.Dataset,
    function: Callable[..., tuple[tf.Tensor, ...]],
    examples: Split,
    blank: tuple[tf.Tensor | np.ndarray, ...],
) -> tf.data.Dataset:
    """Computes batches, and names the examples that are damaged.

    A fault may pass, such as a file server's: each example is tried a second time
    before it is named.

    Args:
        items: Batches of what stands for the examples; the number of each comes first.
        function: Of one item; computes, in a TensorFlow graph, what the example gives.
        examples: Where the examples come from, and where damaged ones are named.
        blank: What takes the place of a damaged example: of the shapes and dtypes that
            the function returns.

    Returns:
        Batches of what the function returns, in the order of the items.
    """
    blank = tuple(np.asarray(part) for part in blank)
    retry = _second_attempts(function, examples, blank)
    # What is left of a batch of which everything is damaged.
    nothing = tuple(tf.zeros((0, *part.shape), part.dtype) for part in blank)
    nothing = (tf.zeros((0,), tf.int64), nothing)

    # Autograph takes a second of every start, and there is nothing for it to do.
    @tf.autograph.experimental.do_not_convert
    def batch(*items: tf.Tensor) -> tf.data.Dataset:
        size = tf.shape(items[0], tf.int64)[0]

        def whole(found: tf.Tensor, parts: tuple) -> tuple[tf.Tensor, ...]:
            parts = tf.cond(
                tf.size(found, tf.int64) == size,
                lambda: parts,
                lambda: _complete(items, found, parts, retry),
            )
            return tuple(
                tf.ensure_shape(part, (items[0].shape[0], *like.shape))
                for part, like in zip(parts, blank, strict=True)
            )

        return (
            tf.data.Dataset.from_tensor_slices(items)
            .enumerate()
            .map(
                lambda place, item: (place, function(*item)),
                # All together, two threads for each processor.
                num_parallel_calls=-(-2 * cores() // BATCHES_AT_ONCE),
            )
            .ignore_errors()
            .batch(size)
            .concatenate(tf.data.Dataset.from_tensors(nothing))
            .take(1)
            .map(whole)
        )

    return items.interleave(
        batch, cycle_length=BATCHES_AT_ONCE, num_parallel_calls=BATCHES_AT_ONCE
    )


def _second_attempts(
    function: Callable[..., tuple[tf.Tensor, ...]],
    examples: Split,
    blank: tuple[np.ndarray, ...],
) -> Callable[[list[tf.Tensor]], list[tf.Tensor]]:
    """Returns what tries items again, in Python called from a graph."""
    again = tf.function(function, autograph=False)

    def attempt(*item: tf.Tensor) -> tuple[np.ndarray, ...]:
        try:
            return tuple(part.numpy() for part in again(*item))
        except tf.errors.OpError as error:
            number = int(item[0])
            name = examples.name(number)
            # TensorFlow's messages about files begin with their names.
            why = _reason(error, examples, number).removeprefix(f"{name}; ")
            examples.skipped.add(name, why)
            return tuple(part[()] for part in blank)

    def attempts(*items: tf.Tensor) -> tuple[np.ndarray, ...]:
        parts = zip(*map(attempt, *map(tf.unstack, items)), strict=True)
        # Of the same dtypes: NumPy's own for bytes would cut off zeros.
        return tuple(
            np.array(part, like.dtype) for part, like in zip(parts, blank, strict=True)
        )

    def retry(items: list[tf.Tensor]) -> list[tf.Tensor]:
        parts = tf.py_function(attempts, items, [part.dtype for part in blank])
        return [
            tf.reshape(part, (-1, *like.shape))
            for part, like in zip(parts, blank, strict=True)
        ]

    return retry


def _reason(error: tf.errors.OpError, examples: Split, number: int) -> str:
    """Returns why an example cannot be used; of a JPEG file, whether it is too large.

    A graph only passes on that libjpeg refuses it.
    """
    if "JPEG" in error.message:
        with contextlib.suppress(tf.errors.OpError):
            encoded = examples.file(number)
            try:
                checked(encoded)
            except tf.errors.InvalidArgumentError as closer:
                error = closer
    return reason(error)


def _complete(
    items: tuple, found: tf.Tensor, parts: tuple, retry: Callable
) -> tuple[tf.Tensor, ...]:
    """Adds the elements of a batch whose places are not among those found."""
    places = tf.range(tf.shape(items[0], tf.int64)[0])
    missing = tf.sparse.to_dense(tf.sets.difference(places[None], found[None]))[0]
    rest = retry([tf.gather(part, missing) for part in items])
    order = tf.argsort(tf.concat([found, missing], axis=0))
    return tuple(
        tf.gather(tf.concat([part, more], 0), order)
        for part, more in zip(parts, rest, strict=True)
    )
