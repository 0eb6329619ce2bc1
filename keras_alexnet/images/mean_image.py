"""The mean of a set of images, as a value."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class MeanImage:
    """The mean of a set of training images, pixel by pixel.

    An array would make the values that hold one unhashable and impossible to compare;
    this is the array's bytes.

    Attributes:
        height: In pixels.
        width: In pixels.
        channels: 1 or 3.
        data: float32, little-endian, `(height, width, channels)` in C order.
    """

    height: int
    width: int
    channels: int
    data: bytes = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        expected = 4 * self.height * self.width * self.channels
        if (
            min(self.height, self.width, self.channels) < 1
            or len(self.data) != expected
        ):
            raise UserError(
                f"A mean image of {self.height} x {self.width} x {self.channels} takes "
                f"{expected} bytes. Received: {len(self.data)}"
            )

    @classmethod
    def from_array(cls, array: np.ndarray) -> MeanImage:
        """Takes the mean from an array of `(height, width, channels)`.

        Raises:
            ValueError: The array has another rank, or values that are not finite.
        """
        array = np.asarray(array)
        if array.ndim != 3 or not np.issubdtype(array.dtype, np.number):
            raise UserError(
                "A mean image must be numbers of (height, width, channels). "
                f"Received: {array.dtype} of {array.shape}"
            )
        if not np.isfinite(array).all():
            raise UserError("The mean image holds values that are not finite.")
        return cls(*array.shape, array.astype("<f4").tobytes())

    def array(self) -> np.ndarray:
        """Returns float32 of `(height, width, channels)`, read-only."""
        shape = (self.height, self.width, self.channels)
        return np.frombuffer(self.data, "<f4").reshape(shape)

    def center_crop(self, height: int, width: int) -> np.ndarray:
        """Returns the part that lies under the centre crop of an image of this size.

        Raises:
            ValueError: The mean image is smaller than that.
        """
        if height > self.height or width > self.width:
            raise UserError(
                f"The mean image has {self.height} x {self.width} pixels, which does "
                f"not cover images of {height} x {width}."
            )
        top, left = (self.height - height) // 2, (self.width - width) // 2
        return self.array()[top : top + height, left : left + width]
