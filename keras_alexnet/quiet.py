"""TensorFlow's start-up messages, kept from the terminal."""

from __future__ import annotations

import contextlib
import glob
import os


def import_tensorflow() -> None:
    """Imports TensorFlow without the page that it writes about its own start-up.

    On a machine with GPUs it is written all the same: what it says of them may matter.
    """
    if glob.glob("/dev/nvidia*") or glob.glob("/dev/dxg"):
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with contextlib.ExitStack() as cleanup:
        with contextlib.suppress(OSError):  # There may be no standard error.
            kept = os.dup(2)
            cleanup.callback(os.close, kept)
            cleanup.callback(os.dup2, kept, 2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            cleanup.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
        import tensorflow as tf

        # Looks for GPUs, and says that there are none.
        tf.config.list_physical_devices()
