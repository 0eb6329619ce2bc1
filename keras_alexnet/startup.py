"""TensorFlow's start-up: a quiet import, and GPUs prepared before their first use."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import sys
import time
from collections.abc import Iterator

from keras_alexnet.errors import UserError

# When the process began, but for Python's own start.
STARTED = time.monotonic()
GPU_MEMORY = "KERAS_ALEXNET_GPU_MEMORY"


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up messages, and prepares the GPUs.

    Where this machine has a GPU that TensorFlow cannot use, one line on standard error
    says why and what to install.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silent_stderr():
        import tensorflow as tf

        # Looks for GPUs, and says that there are none.
        tf.config.list_physical_devices()
    if problem := why_no_gpu():
        print(f"keras-alexnet: {problem}", file=sys.stderr)
    prepare_gpus()


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Drops what is written to standard error, by libraries and by new processes."""
    with contextlib.ExitStack() as cleanup:
        with contextlib.suppress(OSError):  # There may be no standard error.
            kept = os.dup(2)
            cleanup.callback(os.close, kept)
            cleanup.callback(os.dup2, kept, 2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            cleanup.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
        yield


def prepare_gpus() -> None:
    """Lets TensorFlow take the memory of GPUs as it needs it, not all at once.

    Has no effect where the program has configured its GPUs or has used them already.
    The environment variable `KERAS_ALEXNET_GPU_MEMORY` limits the memory that this
    process takes of each GPU, in GiB; processes that it starts inherit the limit.

    Raises:
        UserError: The limit is not a positive number.
    """
    import tensorflow as tf

    limit = os.environ.get(GPU_MEMORY)
    try:
        mebibytes = limit and int(float(limit) * 1024)
    except ValueError:
        mebibytes = 0
    if limit and mebibytes <= 0:
        raise UserError(
            f"--gpu-memory, or {GPU_MEMORY}, must be a positive number of GiB. "
            f"Received: {limit}"
        )
    for gpu in tf.config.list_physical_devices("GPU"):
        if tf.config.get_logical_device_configuration(gpu):
            continue
        # A RuntimeError: TensorFlow is in use already.
        with contextlib.suppress(RuntimeError):
            if mebibytes:
                tf.config.set_logical_device_configuration(
                    gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=mebibytes)]
                )
            else:
                tf.config.experimental.set_memory_growth(gpu, True)


def why_no_gpu() -> str | None:
    """Returns why TensorFlow cannot use the NVIDIA GPU of this machine, and what helps.

    None where it can, where there is no such GPU, and where `CUDA_VISIBLE_DEVICES`
    hides it.
    """
    import tensorflow as tf

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = glob.glob("/dev/nvidia[0-9]*") or glob.glob("/dev/dxg")
    if not present or visible in ("", "-1") or tf.config.list_physical_devices("GPU"):
        return None
    if not tf.test.is_built_with_cuda():
        reason = "this TensorFlow is built without CUDA"
    else:
        try:
            ctypes.CDLL("libcuda.so.1")
            reason = "CUDA libraries are missing or of another version"
        except OSError:
            return (
                "This machine has a GPU that TensorFlow cannot use: the NVIDIA "
                "driver's libcuda.so.1 cannot be loaded. Install the driver."
            )
    return (
        f"This machine has a GPU that TensorFlow cannot use: {reason}. "
        'Install what it needs: pip install "keras-alexnet[gpu]"'
    )
