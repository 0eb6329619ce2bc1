"""Reading what may be damaged, without a price for what is not.

TensorFlow's graphs cannot catch errors, but its data sets can pass over them. So each
batch is a data set of its own, computed in parallel: where elements of it are missing
at the end, and only there, Python looks after them. All others stay in their places.
(A data set for each image would do the same, but costs a tenth of decoding it; so does
finding the gaps in one long data set.) They are interleaved, because an iterator keeps
the functions of the data sets that it goes through; to prepare these anew would cost 35
ms for each batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_alexnet.data.dataset import Split
from keras_alexnet.data.skipped import reason
from keras_alexnet.processor import cores

# So that processors have work while one batch ends and the next begins: on two of them,
# four batches of one thread each give a fifth to a quarter more images per second than
# two batches of two threads, which begin and end together.
BATCHES_AT_ONCE = 4


def read_or_skip(
    items: tf.data.Dataset,
    function: Callable[..., tuple[tf.Tensor, ...]],
    *,
    examples: Split,
    number: Callable[..., tf.Tensor],
    blank: tuple[tf.Tensor, ...],
) -> tf.data.Dataset:
    """Computes batches, and names the examples that are damaged.

    A fault may pass, such as a file server's: each example is tried a second time
    before it is named.

    Args:
        items: Batches of what stands for the examples, such as their positions.
        function: Of one item; computes, in a TensorFlow graph, what the example gives.
        examples: Where the examples come from, and where damaged ones are named.
        number: Of one item; the number of its example.
        blank: What takes the place of a damaged example: of the shapes and dtypes that
            the function returns.

    Returns:
        Batches of what the function returns, in the order of the items.
    """
    blank = tuple(np.asarray(part) for part in blank)
    dtypes = [tf.as_dtype(part.dtype) for part in blank]
    again = tf.function(function, autograph=False)

    def second_attempt(*item: tf.Tensor) -> tuple[np.ndarray, ...]:
        try:
            return tuple(part.numpy() for part in again(*item))
        except tf.errors.OpError as error:
            name = examples.name(int(number(*item)))
            # TensorFlow's messages about files begin with their names.
            examples.skipped.add(name, reason(error).removeprefix(f"{name}; "))
            return tuple(part[()] for part in blank)

    def second_attempts(*items: tf.Tensor) -> tuple[np.ndarray, ...]:
        parts = zip(*map(second_attempt, *map(tf.unstack, items)), strict=True)
        # Of the same dtypes: NumPy's own for bytes would cut off zeros.
        return tuple(
            np.array(part, like.dtype) for part, like in zip(parts, blank, strict=True)
        )

    def complete(items: tuple, found: tf.Tensor, parts: tuple) -> tuple[tf.Tensor, ...]:
        """Adds the elements whose places are not among those found."""
        places = tf.range(tf.shape(items[0], tf.int64)[0])
        missing = tf.sparse.to_dense(tf.sets.difference(places[None], found[None]))[0]
        lost = [tf.gather(part, missing) for part in items]
        rest = tf.py_function(second_attempts, lost, dtypes)
        order = tf.argsort(tf.concat([found, missing], axis=0))
        return tuple(
            tf.gather(tf.concat([part, tf.reshape(more, (-1, *like.shape))], 0), order)
            for part, more, like in zip(parts, rest, blank, strict=True)
        )

    # What is left of a batch of which everything is damaged.
    nothing = (
        tf.zeros((0,), tf.int64),
        tuple(
            tf.zeros((0, *part.shape), dtype)
            for part, dtype in zip(blank, dtypes, strict=True)
        ),
    )

    # Autograph takes a second of every start, and there is nothing for it to do.
    @tf.autograph.experimental.do_not_convert
    def batch(*items: tf.Tensor) -> tf.data.Dataset:
        size = tf.shape(items[0], tf.int64)[0]

        def whole(found: tf.Tensor, parts: tuple) -> tuple[tf.Tensor, ...]:
            parts = tf.cond(
                tf.size(found, tf.int64) == size,
                lambda: parts,
                lambda: complete(items, found, parts),
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
                num_parallel_calls=_threads(),
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


def _threads() -> int:
    """How many threads compute a batch: all together, two for each processor."""
    return -(-2 * cores() // BATCHES_AT_ONCE)
