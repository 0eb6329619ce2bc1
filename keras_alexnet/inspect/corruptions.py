"""Corruptions of ImageNet-C and CIFAR-10-C: noise, blur, brightness, compression.

Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261. Formulas and severities
are those of https://github.com/hendrycks/robustness, make_imagenet_c.py and
make_cifar_c.py. Left out is what needs files of its own (frost), OpenCV or ImageMagick
(motion blur, snow, elastic transform), or a loop over all pixels (glass blur), and fog.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage, signal

from keras_alexnet.errors import UserError, unknown
from keras_alexnet.inspect.robustness import SEVERITIES, Change

# ImageNet-C's are for images of 224 pixels, CIFAR-10-C's for those of 32.
LARGEST_OF_CIFAR = 64


def corrupt(image: np.ndarray, name: str, severity: int, seed: Any = 0) -> np.ndarray:
    """Returns an image under a corruption.

    Args:
        image: `(height, width, channels)`, 0-255, rounded to whole numbers first.
            Images of at most 64 pixels have the severities of CIFAR-10-C, others those
            of ImageNet-C.
        name: Of the corruption, see `CORRUPTIONS`.
        severity: 1 to 5.
        seed: Decides the noise: an integer, or several.

    Returns:
        uint8, of the shape of `image`.

    Raises:
        ValueError: There is no such corruption or severity.
    """
    if name not in CORRUPTIONS:
        raise UserError(unknown(name, "corruption", CORRUPTIONS))
    if severity not in SEVERITIES:
        raise UserError(f"severity must be from 1 to 5. Received: {severity}")
    function, *severities = CORRUPTIONS[name]
    constant = severities[max(image.shape[:2]) <= LARGEST_OF_CIFAR][severity - 1]
    pixels = np.clip(np.round(image), 0, 255) / 255
    found = function(pixels, constant, np.random.default_rng(seed))
    return (np.clip(found, 0, 1) * 255).astype(np.uint8)


def _gaussian_noise(x: np.ndarray, deviation: float, random: np.random.Generator):
    return x + random.normal(size=x.shape, scale=deviation)


def _shot_noise(x: np.ndarray, photons: float, random: np.random.Generator):
    return random.poisson(x * photons) / photons


def _impulse_noise(x: np.ndarray, amount: float, random: np.random.Generator):
    hit = random.random(x.shape) < amount
    return np.where(hit, random.random(x.shape) < 0.5, x)


def _defocus_blur(x: np.ndarray, disk: tuple[float, float], _: Any):
    radius, alias = disk
    reach = max(8, int(radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    smooth = 1 if radius <= 8 else 2
    kernel = ndimage.gaussian_filter(
        kernel / kernel.sum(), alias, radius=smooth, mode="mirror"
    )
    around = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), "reflect")
    return signal.fftconvolve(around, kernel[..., None], "valid", axes=(0, 1))


def _zoom_blur(x: np.ndarray, factors: tuple[float, float], _: Any):
    end, step = factors
    zooms = np.arange(1, end, step)
    height, width = x.shape[:2]
    total = x.astype(np.float32)
    for zoom in zooms:
        inner = [int(np.ceil(side / zoom)) for side in (height, width)]
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        part = x[top : top + inner[0], left : left + inner[1]].astype(np.float32)
        part = ndimage.zoom(part, (zoom, zoom, 1), order=1)
        top, left = (part.shape[0] - height) // 2, (part.shape[1] - width) // 2
        total += part[top : top + height, left : left + width]
    return total / (len(zooms) + 1)


def _brightness(x: np.ndarray, more: float, _: Any):
    # More of the value in HSV: hue and saturation stay, so colours are multiplied.
    value = x.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        brighter = x * (np.clip(value + more, 0, 1) / value)
    return np.where(value > 0, brighter, more)


def _contrast(x: np.ndarray, factor: float, _: Any):
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * factor + mean


def _pixelate(x: np.ndarray, factor: float, _: Any):
    picture = _picture(x)
    small = [int(side * factor) for side in picture.size]
    return _pixels(picture.resize(small, Image.BOX).resize(picture.size, Image.BOX), x)


def _jpeg(x: np.ndarray, quality: int, _: Any):
    file = io.BytesIO()
    _picture(x).save(file, "JPEG", quality=quality)
    return _pixels(Image.open(file), x)


def _picture(x: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(x * 255).astype(np.uint8).squeeze())


def _pixels(picture: Image.Image, like: np.ndarray) -> np.ndarray:
    # A little more than whole numbers, which are cut off behind the point.
    return (np.asarray(picture).reshape(like.shape) + 1e-6) / 255


# A function of pixels from 0 to 1, a constant and random numbers; and its constants at
# the five severities of ImageNet-C, and of CIFAR-10-C.
CORRUPTIONS: dict[str, tuple[Callable[..., np.ndarray], tuple, tuple]] = {
    "gaussian-noise": (
        _gaussian_noise,
        (0.08, 0.12, 0.18, 0.26, 0.38),
        (0.04, 0.06, 0.08, 0.09, 0.10),
    ),
    "shot-noise": (_shot_noise, (60, 25, 12, 5, 3), (500, 250, 100, 75, 50)),
    "impulse-noise": (
        _impulse_noise,
        (0.03, 0.06, 0.09, 0.17, 0.27),
        (0.01, 0.02, 0.03, 0.05, 0.07),
    ),
    "defocus-blur": (
        _defocus_blur,
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    "zoom-blur": (
        _zoom_blur,
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    ),
    "brightness": (
        _brightness,
        (0.1, 0.2, 0.3, 0.4, 0.5),
        (0.05, 0.1, 0.15, 0.2, 0.3),
    ),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25), (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg": (_jpeg, (25, 18, 15, 10, 7), (80, 65, 58, 50, 40)),
}


def corruptions(names: Iterable[str], seed: int = 0) -> dict[tuple[str, int], Change]:
    """Returns corruptions at all severities, as changes for `robustness.accuracies`.

    Args:
        names: See `CORRUPTIONS`.
        seed: Decides the noise, with the number of the image.
    """

    def change(name: str, severity: int) -> Change:
        number = list(CORRUPTIONS).index(name)

        def changed(pixels: np.ndarray, _: np.ndarray, first: int) -> np.ndarray:
            def one(index: int) -> np.ndarray:
                keys = (seed, number, severity, first + index)
                return corrupt(pixels[index], name, severity, keys)

            with ThreadPoolExecutor() as pool:
                return np.stack(list(pool.map(one, range(len(pixels)))))

        return changed

    return {(n, s): change(n, s) for n in names for s in SEVERITIES}
