"""Other systems that run the same networks; not installed, but used in a checkout.

Each file but this needs one of them, and is imported where its candidates run.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from keras_alexnet.benchmarks.comparison import TENSORFLOW, Comparison, Work

DTYPES = ("bfloat16", "float32")


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

    def peer(name: str, file: str, process: str, **arguments: object) -> None:
        comparison.add(name, make, process, peer=file, **arguments, **common)

    for dtype in DTYPES:
        peer(f"PyTorch {dtype}", "torch", "PyTorch", dtype=dtype)
    if common["function"] == "training_step":
        peer("textbook float32", "textbook", TENSORFLOW, xla=False)
        peer("textbook float32, XLA", "textbook", TENSORFLOW, xla=True)
        return
    peer("textbook float32", "textbook", TENSORFLOW)
    with comparison.optional("the ONNX graph"):
        graph = comparison.call(TENSORFLOW, _onnx_graph, network=common["network"])
        for dtype in DTYPES:
            peer(f"OpenVINO {dtype}", "openvino", "OpenVINO", dtype=dtype, graph=graph)
        peer("ONNX Runtime float32", "onnxruntime", "ONNX Runtime", graph=graph)


def _onnx_graph(network: str) -> bytes:
    return make("textbook", "onnx_graph", network=network)


def add_features(comparison: Comparison, **arguments: object) -> None:
    """Adds torchvision's features of files to a comparison."""
    arguments |= {"peer": "torchvision", "function": "features"}
    comparison.add("torchvision", make, "torchvision", **arguments)
