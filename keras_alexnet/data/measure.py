"""What is measured of training images: their mean, and the axes of their colours."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from keras_alexnet.data.dataset import Split
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.errors import UserError
from keras_alexnet.images.mean_image import MeanImage
from keras_alexnet.images.preprocessing import Preprocessing

# Of ILSVRC-2012, shipped with cuda-convnet2 (make-data/input_meta, color_pca): the
# directions of the axes, RGB, and the standard deviations along them in grey levels.
_PUBLISHED_DIRECTIONS = (
    (-0.563510, -0.576184, -0.592003),
    (-0.712579, -0.023542, 0.701196),
    (0.417955, -0.816981, 0.397311),
)
_PUBLISHED_DEVIATIONS = (121.7801, 37.0939, 19.7208)


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What is measured of training images, resized, on a scale of 0-255.

    Attributes:
        images: How many were measured.
        mean: The mean pixel, one number per channel.
        color_axes: The principal axes of their colours, one a row, each as long as the
            standard deviation along it, the longest first.
        mean_image: The mean pixel by pixel.
    """

    images: int
    mean: tuple[float, ...]
    color_axes: tuple[tuple[float, ...], ...]
    mean_image: MeanImage

    def to_json(self) -> str:
        """Returns all as JSON; the mean image as rows of pixels of channels."""
        values = {
            "images": self.images,
            "mean": self.mean,
            "color_axes": self.color_axes,
            "color_deviations": np.linalg.norm(self.color_axes, axis=1).tolist(),
            # No more digits than the measure has.
            "mean_image": self.mean_image.array().round(3).astype(float).tolist(),
        }
        return json.dumps(values) + "\n"

    def lines(self) -> list[str]:
        """Returns what to print for people."""
        lines = [f"mean pixel of {self.images:,} images: {_numbers(self.mean)}"]
        for axis in np.array(self.color_axes):
            deviation = np.linalg.norm(axis)
            direction = axis / deviation if deviation else axis
            lines.append(
                f"standard deviation {deviation:.2f} along {_numbers(direction, 4)}"
            )
        return lines


def published_axes() -> tuple[tuple[float, ...], ...]:
    """Axes that the 2012 program's successor used for ImageNet, `(3, 3)`, RGB."""
    axes = np.array(_PUBLISHED_DIRECTIONS) * np.array(_PUBLISHED_DEVIATIONS)[:, None]
    return tuple(map(tuple, axes.tolist()))


def measure(
    examples: Split, preprocessing: Preprocessing, *, seed: int, most: int = 2000
) -> Statistics:
    """Measures images.

    Args:
        examples: The training images. Damaged ones are left out, and named.
        preprocessing: How they are resized; its mean and scale are not used.
        seed: Decides which images are measured where there are more than `most`.
        most: Largest number of images to measure.

    Raises:
        ValueError: None of the images can be read.
    """
    side, channels = preprocessing.resize_size, preprocessing.channels

    chosen = np.random.default_rng(seed).permutation(len(examples))[:most]
    batches = evaluation_batches(examples.select(chosen), preprocessing, 64, whole=True)
    count, total, squares = 0, np.zeros(()), np.zeros(())
    # Blank images add nothing.
    for images, _, weights in batches.as_numpy_iterator():
        count += int(weights.sum())
        total = total + images.sum(axis=0, dtype=np.float64)
        flat = images.reshape(-1, channels).astype(np.float64)
        squares = squares + flat.T @ flat / side**2
    if not count:
        name, why = next(iter(examples.skipped))
        raise UserError(f"None of the images can be read; the first: {name}: {why}")
    mean_image = total / count
    mean = mean_image.mean(axis=(0, 1))
    variances, directions = np.linalg.eigh(squares / count - np.outer(mean, mean))
    axes = directions.T * np.sqrt(np.maximum(variances, 0))[:, None]
    return Statistics(
        images=count,
        mean=tuple(mean.tolist()),
        color_axes=tuple(map(tuple, axes[::-1].tolist())),
        mean_image=MeanImage.from_array(mean_image),
    )


def _numbers(values: np.ndarray | tuple[float, ...], digits: int = 2) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
