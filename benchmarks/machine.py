"""What a benchmark ran on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform

import tensorflow as tf

from keras_alexnet.processor import cores, first_processor
from keras_alexnet.startup import prepare_gpus
from keras_alexnet.training.precision import read_flags

LIBRARIES = (
    *("keras-alexnet", "tensorflow", "keras", "numpy"),
    *("torch", "openvino", "onnxruntime"),
)


def has_gpu() -> bool:
    """Says whether TensorFlow sees a GPU; it then takes memory only as it needs it."""
    prepare_gpus()
    return bool(tf.config.list_physical_devices("GPU"))


def machine() -> dict[str, object]:
    """Describes processor, GPUs and the versions of all that is compared."""
    processor, versions = first_processor(), {"python": platform.python_version()}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    flags = sorted(read_flags(processor))
    return {
        "versions": versions,
        "cpu": processor.get("model name") or platform.processor(),
        "cpu_flags": [one for one in flags if one.startswith(("avx", "amx", "fma"))],
        "cores": cores(),
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")
        ],
    }
