"""Bounded reading: ranges and budgets, checked before memory is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from keras_alexnet.weights.weight_file import WeightFileError


class Budget:
    """How many parts of a file may still be read: rings and floods of them end here.

    Args:
        parts: How many there may be.
    """

    def __init__(self, parts: int):
        self.left = parts

    def spend(self, parts: int = 1) -> None:
        """Counts parts.

        Raises:
            WeightFileError: There have been too many.
        """
        self.left -= parts
        if self.left < 0:
            raise WeightFileError("The file has far more parts than a network needs.")


def take(buffer: memoryview, start: int, size: int) -> memoryview:
    """Returns a part of a file, as a view.

    Args:
        buffer: The file.
        start: Where the part starts, in bytes.
        size: Its declared size.

    Raises:
        WeightFileError: It does not lie inside.
    """
    if not 0 <= start <= start + size <= len(buffer):
        raise WeightFileError("The file is damaged, or cut short.")
    return buffer[start : start + size]


def view(buffer, dtype: np.dtype | str, shape: Sequence[int]) -> np.ndarray:
    """Returns the array that bytes are, as a view.

    Args:
        buffer: Bytes, or a view of them.
        dtype: Type of the elements.
        shape: The declared shape.

    Raises:
        WeightFileError: The shape is impossible, or needs more or fewer bytes.
    """
    dtype, shape = np.dtype(dtype), tuple(shape)
    if len(shape) > 8 or not all(0 <= size < 1 << 40 for size in shape):
        raise WeightFileError("An array has an impossible shape.")
    if math.prod(shape) * dtype.itemsize != len(buffer):
        raise WeightFileError(
            f"An array says that it is of shape {shape}, and has {len(buffer):,} bytes."
        )
    return np.frombuffer(buffer, dtype).reshape(shape)
