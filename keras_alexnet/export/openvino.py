"""OpenVINO export: its intermediate representation, made of the ONNX graph."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino

from keras_alexnet.export.artefact import Format
from keras_alexnet.export.comparison import Example, Run
from keras_alexnet.export.onnx import onnx_model
from keras_alexnet.model import AlexNet

FILE = "model.xml"
# What to compute in; without a hint, CPUs that can would take bfloat16. So they would
# where float16 is asked for: it is what weights are stored in here.
HINTS = {"float32": "f32", "float16": "f32", "bfloat16": "bf16", "int8": "f32"}
HINT = ["runtime_options", "INFERENCE_PRECISION_HINT"]


def open_openvino(folder: Path) -> Run:
    """Returns a function that runs `model.xml` on the CPU, as its hint says."""
    model = openvino.Core().read_model(folder / FILE)
    hint = {HINT[-1]: model.get_rt_info(HINT).astype(str)}
    compiled = openvino.Core().compile_model(model, "CPU", hint)
    return lambda pixels: compiled(pixels)["probabilities"]


def _write(
    model: AlexNet, folder: Path, precision: str, calibration: Sequence[Example]
) -> None:
    # Its reader of ONNX leaves antialiasing out, so that resizing is left to programs.
    graph = onnx_model(model, model.metadata.preprocessing, any_size=False)
    network = openvino.convert_model(io.BytesIO(graph.SerializeToString()))
    if precision == "int8":
        network = _quantized(network, calibration)
    network.set_rt_info(HINTS[precision], HINT)
    compress = precision in ("float16", "bfloat16")
    openvino.save_model(network, folder / FILE, compress_to_fp16=compress)


def _quantized(
    network: openvino.Model, calibration: Sequence[Example]
) -> openvino.Model:
    import nncf  # An extra of its own.

    nncf.set_log_level(logging.ERROR)
    pixels = [np.round(one.prepared)[None].astype("uint8") for one in calibration]
    return nncf.quantize(network, nncf.Dataset(pixels), subset_size=len(pixels))


FORMAT = Format(
    f"`{FILE}` and `model.bin` take `images`, uint8 RGB pixels as large as the "
    "network's input, `(batch, height, width, channels)`, and normalise them "
    "themselves. They return `probabilities`, `(batch, classes)`, and the five "
    "likeliest classes: `top_probabilities` and `top_classes`. What to compute in is "
    f"under `{'/'.join(HINT)}` of the model's `rt_info`.",
    ("float32", "float16", "bfloat16", "int8"),
    False,
    _write,
    open_openvino,
)
