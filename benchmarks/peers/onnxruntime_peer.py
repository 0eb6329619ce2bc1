"""The network in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime

from keras_alexnet.benchmarks.comparison import Work, check_outputs
from keras_alexnet.benchmarks.networks import SAMPLE, Network, weights_of
from keras_alexnet.benchmarks.peers.onnx_graph import channels_first, onnx_graph
from keras_alexnet.processor import cores


def inference(network: Network, batch_size: int, expected: np.ndarray | None) -> Work:
    """Makes forward passes.

    Args:
        network: What classifies.
        batch_size: Images of a batch.
        expected: Our probabilities of `sample_images`.

    Raises:
        ArithmeticError: The peer computes something else than we do.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(
        onnx_graph(network, weights_of(network)).SerializeToString(),
        options,
        providers=onnxruntime.get_available_providers(),
    )

    def classify(images: np.ndarray) -> np.ndarray:
        return session.run(["probabilities"], {"images": images})[0]

    if expected is not None:
        check_outputs(classify(channels_first(network, SAMPLE)), expected, "float32")
    images = channels_first(network, batch_size)
    return lambda count: [classify(images) for _ in range(count)]
