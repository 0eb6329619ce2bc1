"""What a benchmark ran on."""

from __future__ import annotations

import importlib.metadata
import platform

import tensorflow as tf

from keras_alexnet.processor import cores, first_processor
from keras_alexnet.startup import prepare_gpus
from keras_alexnet.training.precision import read_flags

LIBRARIES = (
    "keras-alexnet",
    "tensorflow",
    "keras",
    "numpy",
    "torch",
    "openvino",
    "onnxruntime",
)


def has_gpu() -> bool:
    """Says whether TensorFlow sees a GPU; it then takes memory only as it needs it."""
    prepare_gpus()
    return bool(tf.config.list_physical_devices("GPU"))


def machine() -> dict[str, object]:
    """Describes processor, GPUs and the versions of all that is compared."""
    processor = first_processor()
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "cpu": processor.get("model name") or platform.processor(),
        "cpu_flags": [
            flag
            for flag in sorted(read_flags(processor))
            if flag.startswith(("avx", "amx", "fma"))
        ],
        "cores": cores(),
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")
        ],
    }


def _versions() -> dict[str, str]:
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
