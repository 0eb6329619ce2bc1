"""Published weights: readers, one module per format, and their way into a model.

No reader runs anything that a file contains. `read_weights()` returns plain arrays;
`load_weights_into()` puts them into a model.
"""

from keras_alexnet.weights.assignment import LoadReport, load_weights_into
from keras_alexnet.weights.reading import read_mean, read_weights
from keras_alexnet.weights.recognition import Network, network_of, recognise
from keras_alexnet.weights.weight_file import (
    LAYER_NAMES,
    LayerWeights,
    WeightFile,
    WeightFileError,
)

__all__ = [
    "LAYER_NAMES",
    "LayerWeights",
    "LoadReport",
    "Network",
    "WeightFile",
    "WeightFileError",
    "load_weights_into",
    "network_of",
    "read_mean",
    "read_weights",
    "recognise",
]
