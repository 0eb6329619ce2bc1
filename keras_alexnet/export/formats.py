"""Formats by name, and the packages that they need."""

from __future__ import annotations

from keras_alexnet.export.artefact import Format, check_packages


def get_format(name: str, precision: str | None = None) -> Format:
    """Returns the format of a name.

    Args:
        name: `"savedmodel"`, `"keras"`, `"onnx"`, `"litert"` or `"openvino"`.
        precision: What it will be asked for, of which some need packages too.

    Raises:
        UserError: It needs a package that is not installed.
    """
    # Imported where they are asked for: each brings a runtime.
    if name == "onnx":
        check_packages("onnx", "onnx", "onnxruntime")
        from keras_alexnet.export.onnx import ONNX

        return ONNX
    if name == "openvino":
        check_packages("openvino", "onnx", "openvino")
        if precision == "int8":
            check_packages("openvino-int8", "nncf")
        from keras_alexnet.export.openvino import OPENVINO

        return OPENVINO
    if name == "litert":
        from keras_alexnet.export.litert import LITERT

        return LITERT
    if name == "keras":
        from keras_alexnet.export.keras_file import KERAS

        return KERAS
    from keras_alexnet.export.saved_model import SAVED_MODEL

    return SAVED_MODEL
