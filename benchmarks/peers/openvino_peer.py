"""The network in OpenVINO."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino
from openvino import properties

from keras_alexnet.training.processor import cores

PRECISIONS = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}


def inference(graph: bytes, images: np.ndarray, dtype: str) -> Callable[[], np.ndarray]:
    """Returns what computes the probabilities of a batch, our images.

    Args:
        graph: From `onnx_graph`.
        images: Channels last.
        dtype: `"float32"` or `"bfloat16"`.
    """
    core = openvino.Core()
    model = core.read_model(graph)
    first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    # What is known before it is compiled can be chosen better.
    model.reshape(first.shape)
    compiled = core.compile_model(
        model,
        "CPU",
        {
            properties.hint.inference_precision(): PRECISIONS[dtype],
            properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
            properties.inference_num_threads(): cores(),
        },
    )
    request = compiled.create_infer_request()
    return lambda: request.infer({"images": first})["probabilities"]
