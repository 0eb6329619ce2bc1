"""The network in PyTorch, through torch.compile and with channels last.

Eager execution and channels first were slower in all sizes (docs/performance.md).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from keras_alexnet.architectures import get_architecture
from keras_alexnet.benchmarks.comparison import Work, check_outputs
from keras_alexnet.benchmarks.networks import (
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    sample_images,
    weights_of,
)
from keras_alexnet.processor import cores

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def training_step(
    network: str, batch_size: int, expected: np.ndarray | None, dtype: str
) -> Work:
    """Makes training steps, on a batch that is on the device.

    Args:
        network: What is trained.
        batch_size: Images of a batch.
        expected: Our probabilities of `sample_images`.
        dtype: `"float32"`, on GPUs with TF32, or `"bfloat16"` under autocast.

    Raises:
        ArithmeticError: The peer computes something else than we do.
    """
    module = _prepared(network, expected, dtype)
    optimizer = torch.optim.SGD(
        module.parameters(),
        LEARNING_RATE,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    x = _noise(network, batch_size)
    classes = get_architecture(network).classes
    y = torch.randint(classes, (batch_size,), device=DEVICE)

    def loss_of(x, y):
        with _autocast(dtype):
            logits = module(x)
        return nn.functional.cross_entropy(logits.float(), y)

    compute = torch.compile(loss_of, dynamic=False)

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
    network: str, batch_size: int, expected: np.ndarray | None, dtype: str
) -> Work:
    """Makes forward passes, on a batch that is on the device; see `training_step`."""
    module = _prepared(network, expected, dtype)
    x = _noise(network, batch_size)

    def probabilities(x):
        with _autocast(dtype):
            logits = module(x)
        return torch.softmax(logits.float(), -1)

    compute = torch.compile(probabilities, dynamic=False)

    def work(count: int) -> float:
        with torch.inference_mode():
            for _ in range(count):
                outputs = compute(x)
            return outputs[0, 0].item()

    return work


def _prepared(network: str, expected: np.ndarray | None, dtype: str) -> nn.Module:
    """Makes the network for evaluation, once it computes what we do."""
    torch.set_num_threads(cores())
    torch.backends.cudnn.benchmark = True
    # TF32 for products; for convolutions it is the default.
    torch.set_float32_matmul_precision("high")
    module = _module(network).eval()
    module = module.to(DEVICE, memory_format=torch.channels_last)
    if expected is not None:
        sample = sample_images(network).transpose(0, 3, 1, 2)
        with torch.inference_mode(), _autocast(dtype):
            images = torch.from_numpy(np.ascontiguousarray(sample)).to(DEVICE)
            logits = module(images.contiguous(memory_format=torch.channels_last))
        outputs = torch.softmax(logits.float(), -1).cpu().numpy()
        on_gpu = DEVICE == "cuda" and dtype == "float32"
        check_outputs(outputs, expected, "TF32" if on_gpu else dtype)
    return module


def _autocast(dtype: str) -> torch.autocast:
    return torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16")


def _noise(network: str, batch_size: int) -> torch.Tensor:
    size = get_architecture(network).input_size
    images = 60 * torch.randn((batch_size, 3, size, size), device=DEVICE)
    return images.contiguous(memory_format=torch.channels_last)


def _module(network: str) -> nn.Module:
    """Writes the network with PyTorch's layers, and gives it our weights."""
    architecture, weights = get_architecture(network), weights_of(network)
    layers: list[nn.Module] = []
    channels, zeros = 3, 0

    def add(layer: nn.Module, kernel: np.ndarray, bias: np.ndarray) -> None:
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
            layer.bias.copy_(torch.from_numpy(bias))
        layers.append(layer)

    for spec in architecture.features + architecture.top:
        role, options = spec.role, spec.options
        if not spec.layer:
            continue
        if role == "pad":
            zeros = options["padding"]
        elif role == "conv":
            same = options["padding"] == "same"
            padding = options["kernel_size"] // 2 if same else zeros
            window = options["kernel_size"], options["strides"], padding
            filters, groups = options["filters"], options["groups"]
            layer = nn.Conv2d(channels, filters, *window, groups=groups)
            kernel, bias = weights[spec.name]
            # (height, width, in / groups, out) to (out, in / groups, height, width).
            add(layer, kernel.transpose(3, 2, 0, 1), bias)
            channels, zeros = filters, 0
        elif role == "activation":
            layers.append(nn.ReLU(inplace=True))
        elif role == "norm":
            # PyTorch divides alpha by the size of the window.
            size, alpha = options["size"], options["alpha"] * options["size"]
            layers.append(
                nn.LocalResponseNorm(size, alpha, options["beta"], options["k"])
            )
        elif role == "pool":
            layers.append(nn.MaxPool2d(options["pool_size"], options["strides"]))
        elif role == "flatten":
            layers.append(nn.Flatten())
        elif role == "dropout":
            layers.append(nn.Dropout(options["rate"]))
        elif role == "dense":
            kernel, bias = weights[spec.name]
            if spec.name == "fc6":
                # Ours flattens channels last, PyTorch flattens them first.
                kernel = kernel.reshape(-1, channels, kernel.shape[-1])
                kernel = kernel.transpose(1, 0, 2).reshape(-1, kernel.shape[-1])
            add(nn.Linear(*kernel.shape), kernel.T, bias)
    return nn.Sequential(*layers)
