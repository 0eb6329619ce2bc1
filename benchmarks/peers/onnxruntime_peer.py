"""The network in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime

from keras_alexnet.training.processor import cores


def inference(graph: bytes, images: np.ndarray) -> Callable[[], np.ndarray]:
    """Returns what computes the probabilities of a batch, our images.

    Args:
        graph: From `onnx_graph`.
        images: Channels last.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    providers = onnxruntime.get_available_providers()
    session = onnxruntime.InferenceSession(graph, options, providers=providers)
    first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return lambda: session.run(["probabilities"], {"images": first})[0]
