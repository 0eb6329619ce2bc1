"""The table of implementations: every entry exists, and exports stay uncompiled."""

import pytest
import tensorflow as tf

from keras_alexnet.layers import grouped_conv, lrn_implementations, pooling
from keras_alexnet.layers.implementations import (
    CHOICES,
    choose,
    compiling,
    device_kind,
)

KNOWN = {
    "lrn": lrn_implementations.IMPLEMENTATIONS,
    "grouped_conv": grouped_conv.IMPLEMENTATIONS,
    "strided_conv": grouped_conv.STRIDED_IMPLEMENTATIONS,
    "max_pool": pooling.IMPLEMENTATIONS,
    "momentum": ("in_place", "xla"),
}


@pytest.mark.parametrize("entry", CHOICES, ids=" ".join)
def test_every_entry_names_an_implementation(entry):
    operation, device, kind = entry
    assert CHOICES[entry] in KNOWN[operation]
    assert device in ("CPU", "GPU") and kind in ("compiled", "plain")
    # What an export is traced with must hold no compiled function.
    assert kind == "compiled" or CHOICES[entry] not in ("xla", "xla_fused", "argmax")


def test_compiled_functions_are_for_training_or_where_they_are_asked_for():
    x = tf.zeros(1)
    assert choose("lrn", x, training=True) == "xla"
    assert choose("lrn", x, training=False) == "windowed"
    with compiling():
        assert choose("lrn", x, training=False) == "xla"
    assert choose("lrn", x, training=False) == "windowed"


def test_an_operation_runs_where_its_input_is():
    with tf.device("CPU:0"):
        assert device_kind(tf.zeros(1)) == "CPU"
    graph = tf.Graph()
    with graph.as_default(), graph.device("/device:GPU:0"):
        assert device_kind(tf.zeros(1)) == "GPU"


@pytest.mark.parametrize("gpus, expected", [([], "CPU"), (["one"], "GPU")])
def test_a_tensor_without_a_place_runs_on_a_gpu_where_there_is_one(
    gpus, expected, monkeypatch
):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    with tf.Graph().as_default():
        assert device_kind(tf.zeros(1)) == expected
