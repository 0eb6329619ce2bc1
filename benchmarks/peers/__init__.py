"""Other systems that run the same networks; not installed, but used in a checkout.

Each file but this needs one of them, and is imported where its candidates run.
"""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np

from keras_alexnet.benchmarks.comparison import TENSORFLOW, Comparison
from keras_alexnet.benchmarks.networks import Network
from keras_alexnet.benchmarks.workers import Work

# Arguments of `make`, beside network and batch size, of the textbook's training step.
TEXTBOOK = {"peer": "textbook_peer", "function": "training_step"}
TEXTBOOK |= {"expected": None, "xla": False}
COMPILED, LAYOUTS = (True, False), ("channels_last", "channels_first")


def make(peer: str, function: str, **arguments: object) -> Work:
    """Makes a peer's work: calls a function of one of the files here."""
    module = importlib.import_module(f"{__name__}.{peer}")
    return getattr(module, function)(**arguments)


def add_training(
    comparison: Comparison, network: Network, batch_size: int, expected: np.ndarray
) -> None:
    """Adds the training steps of all peers to a comparison.

    Args:
        comparison: What they are added to.
        network: What they build.
        batch_size: Images of a batch.
        expected: Our probabilities of `sample_images`.
    """
    arguments = {"function": "training_step", "network": network}
    arguments |= {"batch_size": batch_size, "expected": expected}
    _add_torch(comparison, arguments)
    for name, xla in (("textbook float32", False), ("textbook float32, XLA", True)):
        comparison.add(
            name, make, TENSORFLOW, peer="textbook_peer", xla=xla, **arguments
        )


def add_inference(
    comparison: Comparison, network: Network, batch_size: int, expected: np.ndarray
) -> None:
    """Adds the forward passes of all peers to a comparison; see `add_training`."""
    arguments = {"function": "inference", "network": network}
    arguments |= {"batch_size": batch_size, "expected": expected}
    _add_torch(comparison, arguments)
    comparison.add(
        "textbook float32", make, TENSORFLOW, peer="textbook_peer", **arguments
    )
    for dtype in ("float32", "bfloat16"):
        comparison.add(
            *(f"OpenVINO {dtype}", make, "OpenVINO"),
            **{"peer": "openvino_peer", "dtype": dtype, **arguments},
        )
    comparison.add(
        *("ONNX Runtime float32", make, "ONNX Runtime"),
        **{"peer": "onnxruntime_peer", **arguments},
    )


def add_features(comparison: Comparison, names: list[str], batch_size: int) -> None:
    """Adds torchvision's features of files to a comparison."""
    arguments = {"function": "features", "names": names, "batch_size": batch_size}
    comparison.add(
        "torchvision", make, "torchvision", peer="torchvision_peer", **arguments
    )


def _add_torch(comparison: Comparison, arguments: dict) -> None:
    if not importlib.util.find_spec("torch"):
        comparison.skipped["PyTorch"] = "it is not installed"
        print("PyTorch is left out: it is not installed", flush=True)
        return
    # What is expected to be the fastest comes first: time may run out.
    for compiled in COMPILED:
        for dtype in ("bfloat16", "float32"):
            for layout in LAYOUTS:
                kind = "compiled" if compiled else "eager"
                comparison.add(
                    *(f"PyTorch {kind} {dtype} {layout}", make, "PyTorch"),
                    **{"peer": "torch_peer", "compiled": compiled, "dtype": dtype},
                    **{"layout": layout, **arguments},
                )
