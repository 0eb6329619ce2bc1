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


def shuffled(
    place: tf.Tensor, count: int | tf.Tensor, seed: int, epoch: tf.Tensor
) -> tf.Tensor:
    """Returns what stands at a place of a shuffled sequence.

    Args:
        place: int64, from 0 to `count - 1`: one place or several.
        count: Length of the sequence.
        seed: Below 2**32.
        epoch: int64, from 0. Decides the order, with the seed.

    Returns:
        int64, of the shape of `place`: a permutation.
    """
    # Hashed: keys that count upwards give orders that resemble each other (over 2,000
    # epochs of 1,437 images, a distance between neighbours repeats six times as often
    # as by chance). Negative, unlike what seeds the augmentation.
    key = tf.random.stateless_uniform(
        (2,),
        tf.stack([tf.constant(seed, tf.int64), -1 - epoch]),
        minval=None,
        maxval=None,
        dtype=tf.int32,
        alg="philox",
    )
    return tf.random.experimental.index_shuffle(place, key, count - 1)


def numbers_at(examples: Split, positions: tf.Tensor, seed: int) -> tf.Tensor:
    """Numbers of the examples at consecutive positions, int64."""
    count = len(examples)
    epochs = positions // count
    # All places in the order of each epoch that the positions reach into: nearly always
    # one.
    orders = tf.map_fn(
        lambda epoch: shuffled(positions % count, count, seed, epoch),
        tf.range(epochs[0], epochs[-1] + 1),
    )
    return tf.gather(tf.transpose(orders), epochs - epochs[0], batch_dims=1)
