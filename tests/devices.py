"""Devices to test data parallelism on."""

import tensorflow as tf


def logical_cpus(replicas: int = 2) -> tf.distribute.Strategy:
    """A strategy over logical CPUs that can be made more than once in a process."""
    devices = [f"CPU:{index}" for index in range(replicas)]
    through_one = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=through_one)
