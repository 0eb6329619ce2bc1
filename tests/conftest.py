"""What all tests share: several CPU devices, and a clean slate before each test."""

import concurrent.futures
import os

# Before TensorFlow is imported, here and in the processes that tests start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As importing the package does; here Keras comes first.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# XLA compiles for longer than tests run what it compiled.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import keras
import pytest
import tensorflow as tf

from keras_alexnet.benchmarks import comparison
from keras_alexnet.cli import main

# Four devices on one processor, for tests of data parallelism. TensorFlow takes them
# only before it is first used.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 4,
)
# And two on one GPU, where there is one.
for gpu in tf.config.list_physical_devices("GPU")[:1]:
    tf.config.set_logical_device_configuration(
        gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=2048)] * 2
    )


@pytest.fixture(autouse=True)
def clean_slate():
    """Makes a test independent of the models and random numbers of those before it."""
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session(free_memory=False)


@pytest.fixture
def command(capsys):
    """Runs a command line; returns its exit code and what it printed."""

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([*map(str, arguments)])
        return stop.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def in_this_process(monkeypatch):
    """Lets benchmarks time their candidates here, not in processes of their own."""

    class Pool(concurrent.futures.Executor):
        def __init__(self, *_, **__):
            pass

        def submit(self, function, *arguments):
            future = concurrent.futures.Future()
            try:
                future.set_result(function(*arguments))
            except Exception as error:
                future.set_exception(error)
            return future

    monkeypatch.setattr(comparison, "ProcessPoolExecutor", Pool)
