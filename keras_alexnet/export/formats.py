"""Formats by name, and the packages that they need."""

from __future__ import annotations

from keras_alexnet.export.artefact import Format, check_packages


def get_format(name: str) -> Format:
    """Returns the format of a name.

    Args:
        name: `"savedmodel"` or `"onnx"`.

    Raises:
        UserError: It needs a package that is not installed.
    """
    # Imported where they are asked for: each brings a runtime.
    if name == "onnx":
        check_packages("onnx", "onnx", "onnxruntime")
        from keras_alexnet.export.onnx import ONNX

        return ONNX
    from keras_alexnet.export.saved_model import SAVED_MODEL

    return SAVED_MODEL
