"""Devices: how many, of what kind, and whether XLA pays on them."""

from __future__ import annotations

import tensorflow as tf


def make_strategy(replicas: int | None = None) -> tf.distribute.Strategy:
    """Chooses the devices to train on.

    Args:
        replicas: Number of devices. By default all GPUs, or one CPU. Where there are
            no GPUs, more than one makes as many logical CPU devices, which share the
            processor: a way to try data parallelism, not to gain speed.

    Returns:
        A MirroredStrategy, or TensorFlow's default strategy for a single device.

    Raises:
        ValueError: There are not as many devices.
    """
    gpus = tf.config.list_logical_devices("GPU") if _has_gpus() else []
    if gpus:
        if replicas and replicas > len(gpus):
            raise ValueError(
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
                raise ValueError(
                    f"{count} replicas on a CPU must be asked for before TensorFlow "
                    "first uses it, in a new process."
                ) from None
    return [device.name for device in tf.config.list_logical_devices("CPU")[:count]]


def use_xla(choice: str) -> bool:
    """Decides whether XLA compiles the step.

    Args:
        choice: `"on"`, `"off"`, or `"auto"`: on GPUs, where it fuses what lies between
            the matrix products; not on CPUs, where its convolutions take several times
            as long as TensorFlow's own.
    """
    return choice == "on" or (choice == "auto" and _has_gpus())


def describe(strategy: tf.distribute.Strategy) -> list[str]:
    """Returns the names of the devices that a strategy trains on."""
    if isinstance(strategy, tf.distribute.MirroredStrategy):
        devices = strategy.extended.worker_devices
    else:
        devices = [
            tf.config.list_logical_devices("GPU" if _has_gpus() else "CPU")[0].name
        ]
    return [device.split("device:")[-1] for device in devices]
