"""Features of files as people write them with torchvision and a DataLoader."""

from __future__ import annotations

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import models

from keras_alexnet.benchmarks.comparison import Work
from keras_alexnet.processor import cores

WORKERS = 2


class Photographs(Dataset):
    """Files, through the transform that torchvision publishes with its weights."""

    def __init__(self, names: list[str]):
        self.names = names
        self.transform = models.AlexNet_Weights.IMAGENET1K_V1.transforms()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.names[index]) as image:
            return self.transform(image.convert("RGB"))


def features(names: list[str], batch_size: int) -> Work:
    """Makes passes over the files, up to the linear fc7."""
    torch.set_num_threads(cores())
    network = models.alexnet().eval()
    layers = [network.features, network.avgpool, torch.nn.Flatten(1)]
    network = torch.nn.Sequential(*layers, *list(network.classifier)[:5])

    def work(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                loader = DataLoader(Photographs(names), batch_size, num_workers=WORKERS)
                found = sum(len(network(images).numpy()) for images in loader)
                assert found == len(names)

    return work
