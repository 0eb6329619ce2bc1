"""Devices: how many, of what kind, and whether XLA pays on them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.startup import prepare_gpus
from keras_alexnet.training.hosts import place_in_cluster

# The strategies of several devices that `make_strategy` returns.
MULTIPLE = tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy


def make_strategy(replicas: int | None = None) -> tf.distribute.Strategy:
    """Chooses the devices to train on.

    Args:
        replicas: Number of devices. By default all GPUs, or one CPU. Where there are
            no GPUs, more than one makes as many logical CPU devices, which share the
            processor: a way to try data parallelism, not to gain speed.

    Returns:
        A MultiWorkerMirroredStrategy where TF_CONFIG lists several hosts, which then
        must all call this; a MirroredStrategy for several devices; TensorFlow's default
        strategy for a single one.

    Raises:
        ValueError: There are not as many devices, or TF_CONFIG is wrong.
    """
    prepare_gpus()
    index, hosts = place_in_cluster()
    if hosts > 1:
        if replicas:
            raise UserError(
                "The number of replicas cannot be chosen where TF_CONFIG lists several "
                "hosts: each trains on all of its GPUs, or on its CPU."
            )
        print(f"Host {index} waits for all {hosts} hosts of TF_CONFIG.", flush=True)
        with _interruptible():
            return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU") if _has_gpus() else []
    if gpus:
        if replicas and replicas > len(gpus):
            raise UserError(
                f"{replicas} replicas need as many GPUs; this machine has {len(gpus)}."
            )
        devices = [gpu.name for gpu in gpus[:replicas]]
    else:
        devices = _logical_cpus(replicas or 1)
    if len(devices) == 1 and len(gpus) <= 1:
        return tf.distribute.get_strategy()
    # Logical CPUs share their memory, and TensorFlow's collectives for them fail where
    # a second strategy in the process reduces other shapes.
    through_one = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=through_one)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Lets Ctrl-C end the process while TensorFlow waits and Python cannot look."""
    try:
        previous = signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:  # Only the main thread receives signals.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _has_gpus() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def _logical_cpus(count: int) -> list[str]:
    if count > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        configured = tf.config.get_logical_device_configuration(cpu) or ()
        if len(configured) < count:
            try:
                tf.config.set_logical_device_configuration(
                    cpu, [tf.config.LogicalDeviceConfiguration()] * count
                )
            except RuntimeError:
                raise UserError(
                    f"{count} replicas on a CPU must be asked for before TensorFlow "
                    "first uses it, in a new process."
                ) from None
    return [device.name for device in tf.config.list_logical_devices("CPU")[:count]]


def use_xla(choice: str, deterministic: bool = False) -> tuple[bool, str]:
    """Decides whether XLA compiles the step, and says why."""
    if choice != "auto":
        return choice == "on", "as asked for"
    if not _has_gpus():
        # Several times, measured; see docs/performance.md.
        return False, "its convolutions are slow on CPUs"
    if deterministic:
        return False, "its gradient of max pooling is not deterministic"
    return True, "it fuses what lies between the matrix products on GPUs"


def make_deterministic(model: keras.Model, jit_compile: bool) -> None:
    """Makes TensorFlow's operations deterministic, at some cost on GPUs.

    Raises:
        ValueError: XLA compiles the model's step, and the model pools maxima, whose
            gradient XLA cannot compute deterministically.
    """
    pools = [x.name for x in model.layers if isinstance(x, keras.layers.MaxPooling2D)]
    if jit_compile and pools:
        raise UserError(
            f"XLA has no deterministic gradient of max pooling ({', '.join(pools)}): "
            "choose --xla off, another --pool, or --no-deterministic."
        )
    tf.config.experimental.enable_op_determinism()


def describe(strategy: tf.distribute.Strategy) -> list[str]:
    """Returns the names of the devices of this host that a strategy trains on."""
    if isinstance(strategy, MULTIPLE):
        devices = strategy.extended.worker_devices
    else:
        devices = [
            tf.config.list_logical_devices("GPU" if _has_gpus() else "CPU")[0].name
        ]
    return [device.split("device:")[-1] for device in devices]
