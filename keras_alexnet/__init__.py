"""AlexNet for Keras 3 on TensorFlow: exact, fast, on any number of devices.

Public names are imported when they are first used, so that `import keras_alexnet` and
the command line's help cost nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from keras_alexnet._version import __version__

if TYPE_CHECKING:
    from keras_alexnet.architectures import Architecture as Architecture
    from keras_alexnet.architectures import LayerSpec as LayerSpec
    from keras_alexnet.architectures import get_architecture as get_architecture
    from keras_alexnet.architectures import list_architectures as list_architectures
    from keras_alexnet.builder import build as build
    from keras_alexnet.features import feature_extractor as feature_extractor
    from keras_alexnet.features.lpips import LPIPS as LPIPS
    from keras_alexnet.images.preprocessing import Preprocessing as Preprocessing
    from keras_alexnet.images.preprocessing import preprocess_input as preprocess_input
    from keras_alexnet.model import AlexNet as AlexNet
    from keras_alexnet.networks import load_model as load_model
    from keras_alexnet.networks import open_network as open_network
    from keras_alexnet.registry import get_layer as get_layer
    from keras_alexnet.registry import list_layers as list_layers
    from keras_alexnet.registry import register_layer as register_layer
    from keras_alexnet.training.config import TrainConfig as TrainConfig
    from keras_alexnet.training.config import get_recipe as get_recipe
    from keras_alexnet.training.train import TrainResult as TrainResult
    from keras_alexnet.training.train import train as train
    from keras_alexnet.weights.catalog import fetch_weights as fetch_weights
    from keras_alexnet.weights.catalog import list_weights as list_weights
    from keras_alexnet.weights.labels import decode_predictions as decode_predictions

_HOME = {
    "AlexNet": "model",
    "Architecture": "architectures",
    "LayerSpec": "architectures",
    "build": "builder",
    "decode_predictions": "weights.labels",
    "feature_extractor": "features",
    "fetch_weights": "weights.catalog",
    "get_architecture": "architectures",
    "get_layer": "registry",
    "get_recipe": "training.config",
    "list_architectures": "architectures",
    "list_layers": "registry",
    "list_weights": "weights.catalog",
    "load_model": "networks",
    "LPIPS": "features.lpips",
    "open_network": "networks",
    "preprocess_input": "images.preprocessing",
    "Preprocessing": "images.preprocessing",
    "register_layer": "registry",
    "train": "training.train",
    "TrainConfig": "training.config",
    "TrainResult": "training.train",
}

__all__ = ["__version__", *_HOME]


_backend = os.environ.get("KERAS_BACKEND", "tensorflow")
if "keras" in sys.modules:
    _backend = sys.modules["keras"].config.backend()
if _backend != "tensorflow":
    raise ImportError(
        "keras_alexnet works with Keras on TensorFlow only. Set KERAS_BACKEND to "
        f"tensorflow before Keras is imported. Received: {_backend}"
    )
# TensorFlow leaves oneDNN off on processors without AVX-512, where it trains 1.6 times
# as fast (docs/performance.md). Without effect once TensorFlow has been imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if "keras" in sys.modules:
    # `keras.models.load_model` finds the classes that have been imported.
    for _module in ("layers", "model", "training.optimizer"):
        importlib.import_module(f"keras_alexnet.{_module}")


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"keras_alexnet.{_HOME[name]}"), name)
    if name in ("benchmarks", "layers", "tuning", "weights"):
        return importlib.import_module(f"keras_alexnet.{name}")
    if name == "explain":
        return importlib.import_module("keras_alexnet.inspect.explain")
    raise AttributeError(f"module 'keras_alexnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
