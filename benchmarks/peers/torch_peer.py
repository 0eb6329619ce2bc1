"""The network in PyTorch, eager and through torch.compile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from keras_alexnet.benchmarks.contest import check_outputs
from keras_alexnet.benchmarks.networks import (
    DROPOUT,
    LEARNING_RATE,
    LRN,
    MOMENTUM,
    WEIGHT_DECAY,
    Network,
    Weights,
    images_and_labels,
)
from keras_alexnet.training.processor import cores

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = {
    "channels_first": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


@dataclasses.dataclass(frozen=True)
class Mode:
    """How PyTorch runs the network.

    Attributes:
        compiled: Whether through torch.compile.
        dtype: `"float32"`, or `"bfloat16"` under autocast.
        layout: A key of `LAYOUTS`.
    """

    compiled: bool
    dtype: str
    layout: str

    def __str__(self) -> str:
        kind = "compile" if self.compiled else "eager"
        return f"torch {kind} {self.dtype} {self.layout}"


class Peer:
    """The network with our weights, once in each layout.

    Args:
        network: What to build.
        weights: Ours.
        expected: Our outputs for the first of `images_and_labels`; the peer's are
            compared with them.
    """

    def __init__(self, network: Network, weights: Weights, expected: np.ndarray):
        torch.set_num_threads(cores())
        images, _ = images_and_labels(network, len(expected))
        self._sample = images[: len(expected)]
        self._expected = expected
        self._modules = {
            layout: _module(network, weights).to(DEVICE, memory_format=memory_format)
            for layout, memory_format in LAYOUTS.items()
        }
        self._initial = {
            name: value.clone()
            for name, value in self._modules["channels_first"].state_dict().items()
        }
        self._optimizers: dict[str, torch.optim.Optimizer] = {}

    @staticmethod
    def modes(compiled: bool) -> Iterator[Mode]:
        """Lists all modes, those of torch.compile on request: compiling takes long."""
        for compile_it in (False, True) if compiled else (False,):
            for dtype in ("float32", "bfloat16"):
                for layout in LAYOUTS:
                    yield Mode(compile_it, dtype, layout)

    def training_step(
        self, mode: Mode, images: np.ndarray, labels: np.ndarray
    ) -> Callable[[], object]:
        """Returns what trains on a batch, our images and labels, once.

        Raises:
            ValueError: The peer computes something else than we do.
        """
        module = self._modules[mode.layout]
        # Other modes may have trained it.
        module.load_state_dict(self._initial)
        check_outputs(self._outputs(module, mode), self._expected, mode.dtype)
        # Shared by all modes of a layout, as the weights are.
        optimizer = self._optimizers.setdefault(
            mode.layout,
            torch.optim.SGD(
                module.parameters(),
                LEARNING_RATE,
                momentum=MOMENTUM,
                weight_decay=WEIGHT_DECAY,
                fused=True,
            ),
        )
        x = _tensor(images, mode)
        y = torch.from_numpy(labels.astype(np.int64)).to(DEVICE)

        def loss_of(x, y):
            with _autocast(mode):
                logits = module(x)
            return nn.functional.cross_entropy(logits.float(), y)

        compute = torch.compile(loss_of, dynamic=False) if mode.compiled else loss_of

        def step() -> float:
            module.train()
            optimizer.zero_grad(set_to_none=True)
            loss = compute(x, y)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    def inference(self, mode: Mode, images: np.ndarray) -> Callable[[], np.ndarray]:
        """Returns what computes the probabilities of a batch, our images.

        Raises:
            ValueError: The peer computes something else than we do.
        """
        module = self._modules[mode.layout]
        x = _tensor(images, mode)

        def probabilities(x):
            with _autocast(mode):
                logits = module(x)
            return torch.softmax(logits.float(), -1)

        compute = (
            torch.compile(probabilities, dynamic=False)
            if mode.compiled
            else probabilities
        )

        def outputs() -> np.ndarray:
            module.eval()
            with torch.inference_mode():
                return compute(x).cpu().numpy()

        common = min(len(images), len(self._expected))
        check_outputs(outputs()[:common], self._expected[:common], mode.dtype)
        return outputs

    def _outputs(self, module: nn.Module, mode: Mode) -> np.ndarray:
        module.eval()
        with torch.inference_mode(), _autocast(mode):
            logits = module(_tensor(self._sample, mode))
        return torch.softmax(logits.float(), -1).cpu().numpy()


def _autocast(mode: Mode) -> torch.autocast:
    return torch.autocast(DEVICE, torch.bfloat16, enabled=mode.dtype == "bfloat16")


def _tensor(images: np.ndarray, mode: Mode) -> torch.Tensor:
    first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    tensor = torch.from_numpy(first)
    return tensor.to(DEVICE, memory_format=LAYOUTS[mode.layout])


def _module(network: Network, weights: Weights) -> nn.Module:
    """Writes the network with PyTorch's layers, and gives it our weights."""
    layers: list[nn.Module] = []
    channels, size = 3, network.image_size

    def add(layer: nn.Module, kernel: np.ndarray, bias: np.ndarray) -> None:
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
            layer.bias.copy_(torch.from_numpy(bias))
        layers.append(layer)

    for number, conv in enumerate(network.convolutions, 1):
        layer = nn.Conv2d(
            channels,
            conv.filters,
            conv.kernel,
            conv.stride,
            conv.padding,
            groups=conv.groups,
        )
        kernel, bias = weights[f"conv{number}"]
        # (height, width, in / groups, out) to (out, in / groups, height, width).
        add(layer, kernel.transpose(3, 2, 0, 1), bias)
        layers.append(nn.ReLU(inplace=True))
        channels = conv.filters
        size = (size + 2 * conv.padding - conv.kernel) // conv.stride + 1
        if number in network.normalised:
            # PyTorch divides alpha by the size of the window.
            alpha = LRN["alpha"] * LRN["size"]
            layers.append(
                nn.LocalResponseNorm(LRN["size"], alpha, LRN["beta"], LRN["k"])
            )
        if number in network.pooled:
            layers.append(nn.MaxPool2d(3, 2))
            size = (size - 3) // 2 + 1
    layers.append(nn.Flatten())
    for name in ("fc6", "fc7", "fc8"):
        kernel, bias = weights[name]
        if name == "fc6":
            # Ours flattens channels last, PyTorch flattens them first.
            kernel = kernel.reshape(size, size, channels, -1)
            kernel = kernel.transpose(2, 0, 1, 3).reshape(size * size * channels, -1)
        add(nn.Linear(*kernel.shape), kernel.T, bias)
        if name != "fc8":
            layers += [nn.ReLU(inplace=True), nn.Dropout(DROPOUT)]
    return nn.Sequential(*layers)
