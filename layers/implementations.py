"""Which implementation of an operation runs where: one table, filled by measurement.

Every implementation computes the same numbers but for rounding. On CPUs the table says
what was fastest (docs/performance.md) of what treats infinities as the formula does;
on GPUs what was fastest on an H200 in bfloat16, or what is safe where nothing was
measured.
`keras-alexnet benchmark` measures them all and says which entries it would change on
the device at hand.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import tensorflow as tf

# By operation, device, and whether XLA may compile a part of the graph.
CHOICES = {
    ("lrn", "CPU", "compiled"): "xla",
    ("lrn", "CPU", "plain"): "windowed",
    ("lrn", "GPU", "compiled"): "xla_fused",
    ("lrn", "GPU", "plain"): "windowed",
    ("momentum", "CPU", "compiled"): "in_place",
    ("momentum", "CPU", "plain"): "in_place",
    ("momentum", "GPU", "compiled"): "xla",
    ("momentum", "GPU", "plain"): "in_place",
    ("max_pool", "CPU", "compiled"): "native",
    ("max_pool", "CPU", "plain"): "native",
    ("max_pool", "GPU", "compiled"): "argmax",
    ("max_pool", "GPU", "plain"): "native",
    ("strided_conv", "CPU", "compiled"): "direct",
    ("strided_conv", "CPU", "plain"): "direct",
    ("strided_conv", "GPU", "compiled"): "space_to_depth",
    ("strided_conv", "GPU", "plain"): "space_to_depth",
    ("grouped_conv", "CPU", "compiled"): "split",
    ("grouped_conv", "CPU", "plain"): "split",
    ("grouped_conv", "GPU", "compiled"): "split",
    ("grouped_conv", "GPU", "plain"): "split",
}

_compiles = contextvars.ContextVar("compiles", default=False)


def choose(operation: str, x: tf.Tensor, training: bool = False) -> str:
    """Returns the name of the implementation to run.

    Args:
        operation: The first part of a key of `CHOICES`.
        x: The operation's input, which says where it will run.
        training: Whether gradients will be taken. XLA may compile then, and in
            inference only within `compiling`: a compiled function would stay in
            exported models, and be compiled again for each batch size.
    """
    kind = "compiled" if training or _compiles.get() else "plain"
    return CHOICES[operation, device_kind(x), kind]


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Lets XLA compile parts of what is traced here, in inference too."""
    token = _compiles.set(True)
    try:
        yield
    finally:
        _compiles.reset(token)


def device_kind(x: tf.Tensor) -> str:
    """Returns `"GPU"` or `"CPU"`: where an operation on `x` will run."""
    # Tensors of a graph may not have been placed: TensorFlow prefers a GPU then.
    device = tf.DeviceSpec.from_string(x.device).device_type if x.device else None
    if device in ("CPU", "GPU"):
        return device
    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


@functools.cache
def has_onednn(dtype: tf.DType = tf.float32) -> bool:
    """Says whether TensorFlow convolves a dtype with oneDNN on this CPU.

    `TF_ENABLE_ONEDNN_OPTS` says so where it is set; else TensorFlow decides by the
    processor: 2.21 does without on those that lack AVX-512. For bfloat16 oneDNN needs
    AVX-512 in any case. TensorFlow does not say what it decided, so the operation that
    only oneDNN has on CPUs is tried.

    Args:
        dtype: Of image and kernel.
    """
    with tf.init_scope(), tf.device("CPU"):
        one = tf.ones((1, 1, 1, 1), dtype)
        try:
            tf.nn.conv2d(one, one, 1, "VALID", data_format="NCHW")
        except (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError):
            return False
    return True
