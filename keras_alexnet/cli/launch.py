"""`keras-alexnet launch`: run a command in several processes."""

from __future__ import annotations

import dataclasses

import tyro


@dataclasses.dataclass(frozen=True)
class Launch:
    """Run a command in several processes on this machine, as if on several hosts.

    `keras-alexnet launch --hosts 2 -- train --run-dir runs/two`. On a cluster, run the
    same `train` command on each host, with TF_CONFIG set and a run directory that all
    share.
    """

    command: tyro.conf.Positional[tuple[str, ...]]
    """The command and its options, after two dashes."""
    hosts: int = 2
    """How many processes."""

    def run(self) -> int:
        """Runs a command in several processes."""
        from keras_alexnet.training.launch import launch

        return launch(self.hosts, self.command)
