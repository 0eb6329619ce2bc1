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


def add_training(comparison: Comparison, common: Mapping[str, object]) -> None:
    """Adds the training steps of all peers to a comparison.

    Args:
        comparison: What they are added to.
        common: Arguments of all: the network that they build, the batch size, and our
            probabilities of `sample_images`.
    """
    common = {**common, "function": "training_step"}
    _add_torch(comparison, common)
    for name, xla in (("textbook float32", False), ("textbook float32, XLA", True)):
        comparison.add(name, make, TENSORFLOW, peer="textbook", xla=xla, **common)


def add_inference(comparison: Comparison, common: Mapping[str, object]) -> None:
    """Adds the forward passes of all peers to a comparison; see `add_training`."""
    common = {**common, "function": "inference"}
    _add_torch(comparison, common)
    comparison.add("textbook float32", make, TENSORFLOW, peer="textbook", **common)
    for dtype in ("float32", "bfloat16"):
        name, arguments = f"OpenVINO {dtype}", {"peer": "openvino", "dtype": dtype}
        comparison.add(name, make, "OpenVINO", **arguments, **common)
    name = "ONNX Runtime float32"
    comparison.add(name, make, "ONNX Runtime", peer="onnxruntime", **common)


def _add_torch(comparison: Comparison, common: Mapping[str, object]) -> None:
    if not importlib.util.find_spec("torch"):
        comparison.skipped["PyTorch"] = "it is not installed"
        print("PyTorch is left out: it is not installed", flush=True)
        return
    for dtype in ("bfloat16", "float32"):
        name, arguments = f"PyTorch {dtype}", {"peer": "torch", "dtype": dtype}
        comparison.add(name, make, "PyTorch", **arguments, **common)
