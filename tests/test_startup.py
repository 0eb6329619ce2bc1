"""GPUs are prepared before their first use; one that cannot be used is explained."""

import ctypes

import pytest
import tensorflow as tf

from keras_alexnet import startup
from keras_alexnet.errors import UserError


@pytest.fixture
def gpu_in_the_machine(monkeypatch):
    monkeypatch.setattr(startup.glob, "glob", lambda pattern: ["/dev/nvidia0"])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: True)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_gpu_that_cannot_be_used_is_explained(gpu_in_the_machine, monkeypatch):
    assert 'pip install "keras-alexnet[gpu]"' in startup.why_no_gpu()
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: False)
    assert "built without CUDA" in startup.why_no_gpu()


def test_a_missing_driver_is_named(gpu_in_the_machine, monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert "driver's libcuda.so.1 cannot be loaded" in startup.why_no_gpu()


def test_nothing_is_said_where_a_gpu_works_is_hidden_or_is_not_there(
    gpu_in_the_machine, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert startup.why_no_gpu() is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["one"])
    assert startup.why_no_gpu() is None
    monkeypatch.setattr(startup.glob, "glob", lambda pattern: [])
    assert startup.why_no_gpu() is None


@pytest.mark.parametrize("limit, mebibytes", [(None, None), ("1.5", 1536)])
def test_memory_is_taken_as_needed_or_up_to_a_limit(limit, mebibytes, monkeypatch):
    grown, limited = [], []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    monkeypatch.setattr(
        tf.config, "get_logical_device_configuration", lambda device: None
    )
    monkeypatch.setattr(
        tf.config,
        "set_logical_device_configuration",
        lambda device, parts: limited.append(parts[0].memory_limit),
    )
    monkeypatch.setattr(
        tf.config.experimental,
        "set_memory_growth",
        lambda device, growth: grown.append(growth),
    )
    monkeypatch.delenv(startup.GPU_MEMORY, raising=False)
    if limit:
        monkeypatch.setenv(startup.GPU_MEMORY, limit)
    startup.prepare_gpus()
    assert (grown, limited) == (([], [mebibytes]) if limit else ([True], []))


@pytest.mark.parametrize("limit", ["much", "0", "-1", "nan"])
def test_a_limit_that_is_no_amount_is_refused(limit, monkeypatch):
    monkeypatch.setenv(startup.GPU_MEMORY, limit)
    with pytest.raises(UserError, match="positive number of GiB. Received"):
        startup.prepare_gpus()
