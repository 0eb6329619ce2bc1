"""Which example stands where: pure functions of the position in training.

The position of an example is one integer, step * batch size + place in the batch,
counted on from epoch to epoch.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_alexnet.data.dataset import Split
from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Shard:
    """The part of every batch that a host takes.

    All replicas of all hosts stand in one row, and a batch is dealt out along it: the
    replica r of host h has the number g = h * replicas + r, and of each batch the
    positions from g * n up to (g + 1) * n, n being the size of a replica's batch.

    Attributes:
        host: Number of this host.
        hosts: How many there are.
        replicas: How many devices each of them trains on.
    """

    host: int = 0
    hosts: int = 1
    replicas: int = 1

    def per_replica(self, batch_size: int) -> int:
        """Returns the size of a replica's batch.

        Raises:
            ValueError: The batch cannot be shared equally.
        """
        everyone = self.hosts * self.replicas
        if batch_size % everyone:
            raise UserError(
                f"A batch of {batch_size} cannot be shared equally by {everyone} "
                f"devices: choose a multiple of {everyone}."
            )
        return batch_size // everyone

    def positions(
        self, batch_size: int, first_step: int, last_step: int
    ) -> tf.data.Dataset:
        """Returns the positions of this host from a step up to another, in order."""
        own = self.per_replica(batch_size) * self.replicas
        counted = tf.data.Dataset.range(first_step * own, last_step * own)
        if self.hosts == 1:
            return counted
        return counted.map(lambda k: k // own * batch_size + self.host * own + k % own)

    def start(self, batch_size: int, first_step: int, ordinal: tf.Tensor) -> tf.Tensor:
        """Returns the position at which one of this host's batches begins.

        The ordinal is int64, the number of the batch, counted from the first.
        """
        step = first_step + ordinal // self.replicas
        place = self.host * self.replicas + ordinal % self.replicas
        return step * batch_size + place * self.per_replica(batch_size)

    def holds(self, position: tf.Tensor, batch_size: int) -> tf.Tensor:
        """Says whether a position is one of this host's."""
        own = self.per_replica(batch_size) * self.replicas
        return position % batch_size // own == self.host


def shuffled(
    place: tf.Tensor, count: int | tf.Tensor, seed: int, epoch: tf.Tensor, block=0
) -> tf.Tensor:
    """Returns what stands at a place of a shuffled sequence.

    Args:
        place: int64, from 0 to `count - 1`: one place or several.
        count: Length of the sequence.
        seed: Below 2**32.
        epoch: int64, from 0. Decides the order, with the seed and the block.
        block: Number of the sequence within the epoch, below 2**31.

    Returns:
        int64, of the shape of `place`: a permutation.
    """
    # Hashed: keys that count upwards give orders that resemble each other (over 2,000
    # epochs of 1,437 images, a distance between neighbours repeats six times as often
    # as by chance). Negative, unlike what seeds the augmentation.
    key = tf.random.stateless_uniform(
        (2,),
        tf.stack([seed + tf.cast(block, tf.int64) * 2**32, -1 - epoch]),
        minval=None,
        maxval=None,
        dtype=tf.int32,
        alg="philox",
    )
    return tf.random.experimental.index_shuffle(place, key, count - 1)


def numbers_at(examples: Split, positions: tf.Tensor, seed: int) -> tf.Tensor:
    """Numbers of the examples, not of a stream, at consecutive positions, int64."""
    count = len(examples)
    epochs = positions // count
    # All places in the order of each epoch that the positions reach into: nearly always
    # one.
    orders = tf.map_fn(
        lambda epoch: shuffled(positions % count, count, seed, epoch),
        tf.range(epochs[0], epochs[-1] + 1),
    )
    return tf.gather(tf.transpose(orders), epochs - epochs[0], batch_dims=1)


def from_stream(
    examples: Split,
    seed: int,
    batch_size: int,
    first_step: int,
    last_step: int,
    shard: Shard,
) -> tf.data.Dataset:
    """Returns what stands at the positions of training where the images are a stream.

    The stream is cut into blocks of `examples.window`, and each block is shuffled: so
    what stands at a position depends on nothing but the position, and of what comes
    before the first step only the part of one block is held. But images further apart
    than a window never meet: where the stream is sorted by class, a window should be
    several times as long as a class. Each host reads all of the stream, and decodes
    its shard.

    Returns:
        For each position, the position, the number of the example, and what the stream
        holds of it.
    """
    count, window = len(examples), min(examples.window, len(examples))
    blocks = -(-count // window)
    epoch, place = divmod(first_step * batch_size, count)
    first_block = place // window

    def shuffle(number: tf.Tensor, *records: tf.Tensor) -> tuple[tf.Tensor, ...]:
        epoch, block = number // blocks, number % blocks
        size = tf.minimum(tf.constant(window, tf.int64), count - block * window)
        places = tf.range(size)
        chosen = shuffled(places, size, seed, epoch, block)
        begin = block * window
        positions = epoch * count + begin + places
        return positions, begin + chosen, *(tf.gather(part, chosen) for part in records)

    begun = examples.stream(first_block * window).batch(window)
    return (
        begun.concatenate(examples.stream(0).batch(window).repeat())
        .enumerate(epoch * blocks + first_block)
        .map(lambda number, records: shuffle(number, *records))
        .unbatch()
        .skip(place % window)
        .take((last_step - first_step) * batch_size)
        .filter(lambda position, *_: shard.holds(position, batch_size))
    )
