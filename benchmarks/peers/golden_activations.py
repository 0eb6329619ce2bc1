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
from torchvision import models, transforms


def main() -> None:
    """Prints the numbers."""
    if sys.argv[1].endswith(".safetensors"):
        from safetensors.torch import load_file as load
    else:
        load = torch.load
    weights = {
        key.removeprefix("features."): value
        for key, value in load(sys.argv[1]).items()
        if key.startswith("features.")
    }
    network = models.alexnet().features.eval()
    network.load_state_dict(weights)
    y, x, channel = np.ogrid[:256, :256, :3]
    pixels = ((y * x // 16 + 85 * channel) % 256).astype(np.uint8)
    prepare = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    values = prepare(Image.fromarray(pixels))[None]
    with torch.inference_mode():
        for layer in network:
            values = layer(values)
            if isinstance(layer, torch.nn.ReLU):
                maps = values[0].double().numpy()
                place = np.unravel_index(maps.argmax(), maps.shape)
                print(np.linalg.norm(maps), [*map(int, place)], maps[place])
    digest = hashlib.sha256()
    for number in (0, 3, 6, 8, 10):
        for kind in ("weight", "bias"):
            digest.update(weights[f"{number}.{kind}"].numpy().astype("<f4"))
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
