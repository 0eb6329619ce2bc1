"""Tests that need a GPU: skipped, named and counted where there is none.

With KERAS_ALEXNET_GPU_TESTS_ON_CPU=1 they are rehearsed on a CPU.
"""

import os
from pathlib import Path

import pytest
import tensorflow as tf

HERE = Path(__file__).parent
REHEARSAL = "KERAS_ALEXNET_GPU_TESTS_ON_CPU" in os.environ


def pytest_collection_modifyitems(items):
    gpus = tf.config.list_physical_devices("GPU")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not gpus and not REHEARSAL:
                item.add_marker(pytest.mark.skip(reason="no GPU"))


# Of the module's scope, so that it is there before what a module's tests share.
@pytest.fixture(autouse=True, scope="module")
def full_float32():
    """Computes float32 products in float32, not in TF32."""
    tf.config.experimental.enable_tensor_float_32_execution(False)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(True)
