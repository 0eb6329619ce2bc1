"""What a benchmark ran on."""

from __future__ import annotations

import importlib.metadata
import platform

import tensorflow as tf

from keras_alexnet.processor import cores, first_processor
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


def machine() -> dict[str, object]:
    """Describes processor, threads and the versions of all that is compared."""
    threading, processor = tf.config.threading, first_processor()
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
        "threads": {
            # 0 is TensorFlow's own choice.
            "tensorflow_intra_op": threading.get_intra_op_parallelism_threads(),
            "tensorflow_inter_op": threading.get_inter_op_parallelism_threads(),
            "peers": cores(),
        },
    }


def _versions() -> dict[str, str]:
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
