"""Other systems that run the same networks; not installed, but used in a checkout.

Each file but this needs one of them, and is imported where its candidates run.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping

from keras_alexnet.benchmarks.comparison import TENSORFLOW, Comparison, Work


def make(peer: str, function: str, **arguments: object) -> Work:
    """Makes a peer's work: calls a function of one of the files here."""
    module = importlib.import_module(f"{__name__}.{peer}_peer")
    return getattr(module, function)(**arguments)


def add(comparison: Comparison, common: Mapping[str, object]) -> None:
    """Adds all peers to a comparison.

    Args:
        comparison: What they are added to.
        common: Arguments of all: the function, `"training_step"` or `"inference"`; the
            network that they build, the batch size, and our probabilities of
            `sample_images`.
    """
    if importlib.util.find_spec("torch"):
        for dtype in ("bfloat16", "float32"):
            arguments = {"peer": "torch", "dtype": dtype, **common}
            comparison.add(f"PyTorch {dtype}", make, "PyTorch", **arguments)
    else:
        comparison.skipped["PyTorch"] = "it is not installed"
        print("PyTorch is left out: it is not installed", flush=True)
    textbook = {"peer": "textbook", **common}
    if common["function"] == "training_step":
        comparison.add("textbook float32", make, TENSORFLOW, xla=False, **textbook)
        comparison.add("textbook float32, XLA", make, TENSORFLOW, xla=True, **textbook)
        return
    comparison.add("textbook float32", make, TENSORFLOW, **textbook)
    for dtype in ("float32", "bfloat16"):
        arguments = {"peer": "openvino", "dtype": dtype, **common}
        comparison.add(f"OpenVINO {dtype}", make, "OpenVINO", **arguments)
    arguments = {"peer": "onnxruntime", **common}
    comparison.add("ONNX Runtime float32", make, "ONNX Runtime", **arguments)


def add_features(comparison: Comparison, **arguments: object) -> None:
    """Adds torchvision's features of files to a comparison."""
    arguments |= {"peer": "torchvision", "function": "features"}
    comparison.add("torchvision", make, "torchvision", **arguments)
