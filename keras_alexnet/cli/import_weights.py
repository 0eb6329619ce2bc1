"""Turn a published file of weights into a model."""

from __future__ import annotations

from keras_alexnet import cli
from keras_alexnet.weights.importing import import_weights


def run(command: cli.ImportWeights) -> int:
    """Saves published weights as a model."""
    options = {"mean": command.mean, "convert": command.convert}
    print(
        import_weights(
            command.file, command.out, architecture=command.architecture, **options
        )
    )
    return 0
