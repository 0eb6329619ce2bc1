"""Formats by name, and the packages that they need."""

from __future__ import annotations

import importlib

from keras_alexnet.errors import check_packages
from keras_alexnet.export.artefact import Format

# Format -> module, which brings a runtime, and packages, which an extra brings.
_FORMATS = {
    "savedmodel": ("saved_model", ()),
    "keras": ("keras_file", ()),
    "litert": ("litert", ()),
    "onnx": ("onnx", ("onnx", "onnxruntime")),
    "openvino": ("openvino", ("onnx", "openvino")),
}


def get_format(name: str, precision: str | None = None) -> Format:
    """Returns the format of a name.

    Args:
        name: `"savedmodel"`, `"keras"`, `"onnx"`, `"litert"` or `"openvino"`.
        precision: What it will be asked for, of which some need packages too.

    Raises:
        UserError: It needs a package that is not installed.
    """
    module, packages = _FORMATS[name]
    check_packages(name, *packages)
    if (name, precision) == ("openvino", "int8"):
        check_packages("openvino-int8", "nncf")
    return importlib.import_module(f"keras_alexnet.export.{module}").FORMAT
