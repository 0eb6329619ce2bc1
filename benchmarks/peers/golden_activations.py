"""Golden activations of torchvision's convolutions, for `keras_alexnet.verification`.

    python benchmarks/peers/golden_activations.py alexnet-owt-7be5be79.pth

PyTorch and torchvision compute them, without this package; prints for each ReLU the
norm of what comes out and its largest value with channel, row and column, and the
digest of the convolutions.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import torch
from PIL import Image
from torchvision import models


def main() -> None:
    """Prints the numbers."""
    network = models.alexnet().eval()
    network.load_state_dict(torch.load(sys.argv[1]))
    y, x, channel = np.ogrid[:256, :256, :3]
    pixels = ((y * x // 16 + 85 * channel) % 256).astype(np.uint8)
    prepare = models.AlexNet_Weights.IMAGENET1K_V1.transforms()
    values = prepare(Image.fromarray(pixels))[None]
    with torch.inference_mode():
        for layer in network.features:
            values = layer(values)
            if isinstance(layer, torch.nn.ReLU):
                maps = values[0].double().numpy()
                place = np.unravel_index(maps.argmax(), maps.shape)
                print(np.linalg.norm(maps), [*map(int, place)], maps[place])
    digest = hashlib.sha256()
    for parameter in network.features.parameters():
        digest.update(parameter.detach().numpy().astype("<f4"))
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
