"""What schedules ask of their attributes."""

from __future__ import annotations

from collections.abc import Callable

from keras_alexnet.errors import UserError

Schedule = Callable[[float], float]


def check_positive(name: str, value: float) -> None:
    """Raises a ValueError unless a number is positive."""
    if not value > 0:
        raise UserError(f"{name} must be positive. Received: {value}")


def check_count(name: str, value: int, least: int) -> None:
    """Raises a ValueError unless a value is a whole number of at least `least`."""
    if type(value) is not int or value < least:
        raise UserError(
            f"{name} must be a whole number, at least {least}. Received: {value}"
        )


def check_boundaries(boundaries: tuple[float, ...]) -> None:
    """Raises a ValueError unless boundaries ascend within [0, 1]."""
    ascending = all(
        low < high for low, high in zip(boundaries, boundaries[1:], strict=False)
    )
    if not ascending or not all(0 <= boundary <= 1 for boundary in boundaries):
        raise UserError(
            "boundaries are fractions of the run: they must ascend and lie in [0, 1]. "
            f"Received: {boundaries}"
        )
