"""Devices: whether there is a GPU, and TensorFlow's settings for fair timing on it."""

from __future__ import annotations

import tensorflow as tf


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU; it then takes memory only as it needs it."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Peers in other processes need the rest. Too late where it is in use already.
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except (RuntimeError, ValueError):
            break
    return bool(gpus)


def set_tf32(enabled: bool) -> None:
    """Says whether float32 products on GPUs may round their factors to 10 bits.

    TensorFlow remembers the algorithm that it chose for a convolution: both settings
    need processes of their own.
    """
    tf.config.experimental.enable_tensor_float_32_execution(enabled)
