"""The network in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime

from keras_alexnet.benchmarks.comparison import Work, check_outputs
from keras_alexnet.benchmarks.networks import MEAN, SAMPLE, sample_images
from keras_alexnet.processor import cores


def inference(
    network: str, batch_size: int, expected: np.ndarray | None, graph: bytes
) -> Work:
    """Makes forward passes.

    Args:
        network: What classifies.
        batch_size: Images of a batch.
        expected: Our probabilities of `sample_images`.
        graph: The network in ONNX.

    Raises:
        ArithmeticError: The peer computes something else than we do.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(
        graph, options, providers=onnxruntime.get_available_providers()
    )

    def classify(images: np.ndarray) -> np.ndarray:
        return session.run(["probabilities"], {"images": images})[0]

    sample, images = (
        (sample_images(network, count) + MEAN).astype("uint8")
        for count in (SAMPLE, batch_size)
    )
    if expected is not None:
        check_outputs(classify(sample), expected, "float32")
    return lambda count: [classify(images) for _ in range(count)]
