"""Run a command in several processes."""

from __future__ import annotations

from keras_alexnet import cli
from keras_alexnet.training.launch import launch


def run(command: cli.Launch) -> int:
    """Runs a command in several processes."""
    return launch(command.hosts, command.command)
