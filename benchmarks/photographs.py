"""Files to read, where there are no photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    """Writes JPEG files of smooth noise with grain, in two classes.

    Args:
        folder: Where to.
        count: How many.
        size: Width and height: 62 kB a file for 500 x 375, 82 kB for 512 x 512, as
            photographs have.

    Returns:
        Their names.
    """
    names = []
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
        grain = random.integers(-12, 13, smooth.shape)
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        path = folder / f"{number % 2}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)
        names.append(str(path))
    return names
