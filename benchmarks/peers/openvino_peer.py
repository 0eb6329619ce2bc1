"""The network in OpenVINO."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino
from openvino import properties

from keras_alexnet.benchmarks.comparison import Work, check_outputs
from keras_alexnet.benchmarks.networks import MEAN, SAMPLE, sample_images
from keras_alexnet.processor import cores

PRECISIONS = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}


def inference(
    network: str,
    batch_size: int,
    expected: np.ndarray | None,
    graph: bytes,
    dtype: str,
) -> Work:
    """Makes forward passes; see `onnxruntime_peer`.

    Raises:
        ArithmeticError: The peer computes something else than we do.
    """
    core = openvino.Core()
    settings = {
        properties.hint.inference_precision(): PRECISIONS[dtype],
        properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
        properties.inference_num_threads(): cores(),
    }

    def compiled(images: np.ndarray) -> Callable[[], np.ndarray]:
        model = core.read_model(graph)
        # What is known before it is compiled can be chosen better.
        model.reshape(images.shape)
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        return lambda: request.infer({"images": images})["probabilities"]

    sample, images = (
        (sample_images(network, count) + MEAN).astype("uint8")
        for count in (SAMPLE, batch_size)
    )
    if expected is not None:
        check_outputs(compiled(sample)(), expected, dtype)
    classify = compiled(images)
    return lambda count: [classify() for _ in range(count)]
