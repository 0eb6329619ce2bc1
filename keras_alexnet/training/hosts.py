"""Several hosts that train one network: who is who, and how they agree."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Hosts:
    """This host's place among those that train together.

    Host 0 is the chief, which writes the files.
    """

    index: int
    count: int
    strategy: tf.distribute.Strategy

    @classmethod
    def of(cls, strategy: tf.distribute.Strategy) -> Hosts:
        """Returns this host's place among those of a strategy."""
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return cls(0, 1, strategy)
        return cls(*place_in_cluster(), strategy)

    @property
    def is_chief(self) -> bool:
        """Whether this host writes the files."""
        return self.index == 0

    @property
    def local_replicas(self) -> int:
        """Devices of this host."""
        return self.strategy.num_replicas_in_sync // self.count

    def own_name(self, name: str) -> str:
        """Returns the name of a file of which each host writes its own."""
        stem, dot, suffix = name.partition(".")
        return name if self.is_chief else f"{stem}-{self.index}{dot}{suffix}"

    def total(self, numbers: Sequence[int]) -> list[int]:
        """Adds up numbers over all hosts; returns when all have given theirs."""
        if self.count == 1:
            return list(numbers)
        return self._totals(tf.constant(numbers, tf.int64)).numpy().tolist()

    def wait_for_all(self) -> None:
        """Returns when all hosts have called it."""
        self.total([1])

    def is_same(self, number: int) -> bool:
        """Says whether all hosts have the same number."""
        (of_chief,) = self.total([number if self.is_chief else 0])
        return self.total([int(number != of_chief)]) == [0]

    @functools.cached_property
    def _totals(self) -> Callable[[tf.Tensor], tf.Tensor]:
        def on_replica(numbers):
            context = tf.distribute.get_replica_context()
            # Only the first device of each host gives the host's numbers.
            is_first = context.replica_id_in_sync_group % self.local_replicas == 0
            return context.all_reduce("SUM", numbers * tf.cast(is_first, tf.int64))

        @tf.function(autograph=False)
        def totals(numbers):
            of_replicas = self.strategy.run(on_replica, args=(numbers,))
            return self.strategy.experimental_local_results(of_replicas)[0]

        return totals


def place_in_cluster() -> tuple[int, int]:
    """Returns this host's number and that of hosts, by TF_CONFIG; else 0 and 1.

    Raises:
        ValueError: TF_CONFIG is not what TensorFlow expects, or gives this host another
            task than training.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return 0, 1
    try:
        config = json.loads(text)
        cluster = config["cluster"]
        own = config["task"]["type"], int(config["task"]["index"])
        tasks = [
            (kind, index)
            for kind in ("chief", "worker")
            for index in range(len(cluster.get(kind, ())))
        ]
        return tasks.index(own), len(tasks)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            "TF_CONFIG must hold {'cluster': {'worker': [addresses]}, 'task': {'type': "
            f"'worker', 'index': number}}}}. Received: {text!r} ({error!r})"
        ) from None
