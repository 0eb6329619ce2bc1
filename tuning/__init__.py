"""Searching for training settings, with Keras Tuner."""

if not __name__.startswith("keras_alexnet."):
    raise ImportError(
        "This folder is installed inside the package: "
        "write `from keras_alexnet import tuning`, not `import tuning`."
    )

from keras_alexnet.tuning.hypermodel import AlexNetHyperModel
from keras_alexnet.tuning.parameters import Choice, Range
from keras_alexnet.tuning.search import SearchResult, search
from keras_alexnet.tuning.space import SearchSpace, get_preset, get_space
from keras_alexnet.tuning.trials import Trial

__all__ = [
    "AlexNetHyperModel",
    "Choice",
    "Range",
    "SearchResult",
    "SearchSpace",
    "Trial",
    "get_preset",
    "get_space",
    "search",
]
