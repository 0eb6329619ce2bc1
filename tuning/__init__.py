"""Searching for training settings with Keras Tuner."""

if not __name__.startswith("keras_alexnet."):
    raise ImportError(
        "This folder is installed inside the package: "
        "write `from keras_alexnet import tuning`, not `import tuning`."
    )

from keras_alexnet.tuning.hypermodel import AlexNetHyperModel

__all__ = ["AlexNetHyperModel"]
