"""The network in PyTorch, eager and through torch.compile."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from keras_alexnet.benchmarks.comparison import check_outputs
from keras_alexnet.benchmarks.networks import (
    DROPOUT,
    LEARNING_RATE,
    LRN,
    MOMENTUM,
    WEIGHT_DECAY,
    Network,
    Weights,
    sample_images,
    weights_of,
)
from keras_alexnet.benchmarks.workers import Work
from keras_alexnet.processor import cores

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = {
    "channels_first": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


def training_step(
    network: Network,
    batch_size: int,
    expected: np.ndarray | None,
    compiled: bool,
    dtype: str,
    layout: str,
) -> Work:
    """Makes training steps, on a batch that is on the device.

    Args:
        network: What is trained.
        batch_size: Images of a batch.
        expected: Our probabilities of `sample_images`.
        compiled: Whether through torch.compile.
        dtype: `"float32"`, on GPUs with TF32, or `"bfloat16"` under autocast.
        layout: A key of `LAYOUTS`.

    Raises:
        ArithmeticError: The peer computes something else than we do.
    """
    module = _prepared(network, expected, dtype, layout)
    optimizer = torch.optim.SGD(
        module.parameters(),
        LEARNING_RATE,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    x = _noise(network, batch_size, layout)
    y = torch.randint(network.classes, (batch_size,), device=DEVICE)

    def loss_of(x, y):
        with _autocast(dtype):
            logits = module(x)
        return nn.functional.cross_entropy(logits.float(), y)

    compute = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def work(count: int) -> float:
        module.train()
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            loss = compute(x, y)
            loss.backward()
            optimizer.step()
        return loss.item()

    return work


def inference(
    network: Network,
    batch_size: int,
    expected: np.ndarray | None,
    compiled: bool,
    dtype: str,
    layout: str,
) -> Work:
    """Makes forward passes, on a batch that is on the device; see `training_step`."""
    module = _prepared(network, expected, dtype, layout)
    x = _noise(network, batch_size, layout)

    def probabilities(x):
        with _autocast(dtype):
            logits = module(x)
        return torch.softmax(logits.float(), -1)

    compute = torch.compile(probabilities, dynamic=False) if compiled else probabilities

    def work(count: int) -> float:
        with torch.inference_mode():
            for _ in range(count):
                outputs = compute(x)
            return outputs[0, 0].item()

    return work


def _prepared(
    network: Network, expected: np.ndarray | None, dtype: str, layout: str
) -> nn.Module:
    """Makes the network for evaluation, once it computes what we do."""
    torch.set_num_threads(cores())
    torch.backends.cudnn.benchmark = True
    # TF32 for products; for convolutions it is the default.
    torch.set_float32_matmul_precision("high")
    module = _module(network, weights_of(network)).eval()
    module = module.to(DEVICE, memory_format=LAYOUTS[layout])
    if expected is not None:
        sample = sample_images(network).transpose(0, 3, 1, 2)
        with torch.inference_mode(), _autocast(dtype):
            logits = module(_tensor(np.ascontiguousarray(sample), layout))
        outputs = torch.softmax(logits.float(), -1).cpu().numpy()
        on_gpu = DEVICE == "cuda" and dtype == "float32"
        check_outputs(outputs, expected, "TF32" if on_gpu else dtype)
    return module


def _autocast(dtype: str) -> torch.autocast:
    return torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16")


def _tensor(images: np.ndarray, layout: str) -> torch.Tensor:
    return torch.from_numpy(images).to(DEVICE, memory_format=LAYOUTS[layout])


def _noise(network: Network, batch_size: int, layout: str) -> torch.Tensor:
    shape = (batch_size, 3, network.image_size, network.image_size)
    images = 60 * torch.randn(shape, device=DEVICE)
    return images.contiguous(memory_format=LAYOUTS[layout])


def _module(network: Network, weights: Weights) -> nn.Module:
    """Writes the network with PyTorch's layers, and gives it our weights."""
    layers: list[nn.Module] = []

    def add(layer: nn.Module, kernel: np.ndarray, bias: np.ndarray) -> None:
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
            layer.bias.copy_(torch.from_numpy(bias))
        layers.append(layer)

    for number, conv in enumerate(network.convolutions, 1):
        kernel, bias = weights[f"conv{number}"]
        layer = nn.Conv2d(
            kernel.shape[2] * conv.groups,
            conv.filters,
            conv.kernel,
            conv.stride,
            conv.padding,
            groups=conv.groups,
        )
        # (height, width, in / groups, out) to (out, in / groups, height, width).
        add(layer, kernel.transpose(3, 2, 0, 1), bias)
        layers.append(nn.ReLU(inplace=True))
        if number in network.normalised:
            # PyTorch divides alpha by the size of the window.
            alpha = LRN["alpha"] * LRN["size"]
            layers.append(
                nn.LocalResponseNorm(LRN["size"], alpha, LRN["beta"], LRN["k"])
            )
        if number in network.pooled:
            layers.append(nn.MaxPool2d(3, 2))
    layers.append(nn.Flatten())
    for name in ("fc6", "fc7", "fc8"):
        kernel, bias = weights[name]
        if name == "fc6":
            # Ours flattens channels last, PyTorch flattens them first.
            channels = network.convolutions[-1].filters
            pixels = len(kernel) // channels
            kernel = kernel.reshape(pixels, channels, -1).transpose(1, 0, 2)
            kernel = kernel.reshape(pixels * channels, -1)
        if name in network.dropped:
            layers.append(nn.Dropout(DROPOUT))
        add(nn.Linear(*kernel.shape), kernel.T, bias)
        if name != "fc8":
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
