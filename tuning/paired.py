"""Differences between two configurations, seed by seed, and their spread."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from scipy.stats import t


def spread(values: Sequence[float]) -> float | None:
    """Returns the standard deviation of a sample (n - 1), None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


@dataclasses.dataclass(frozen=True)
class Paired:
    """What a configuration changes against another at each of some seeds.

    At the same seed both have the same test images, the same order of the training
    images and, where their networks are alike, the same initial weights. So what a seed
    does to both alike is not in the difference.

    Attributes:
        differences: Ours minus theirs, one per seed.
    """

    differences: tuple[float, ...]

    @classmethod
    def of(cls, ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired:
        """Pairs values by seed; a seed that only one of them has does not count."""
        seeds = [seed for seed in ours if seed in theirs]
        return cls(tuple(ours[seed] - theirs[seed] for seed in seeds))

    @property
    def mean(self) -> float | None:
        """The mean difference; None without any."""
        return statistics.fmean(self.differences) if self.differences else None

    @property
    def spread(self) -> float | None:
        """The standard deviation of the differences (n - 1); None for fewer than 2."""
        return spread(self.differences)

    @property
    def exceeds_spread(self) -> bool:
        """Whether the mean difference is larger than the differences' spread."""
        return self.spread is not None and abs(self.mean) > self.spread

    @property
    def chance(self) -> float | None:
        """How often chance alone would bring a mean that is as large for its spread.

        The two-sided p-value of the paired t-test (Student 1908); None where there is
        no spread.
        """
        if not self.spread:
            return None
        return _two_sided(abs(self.mean) / self.spread, len(self.differences))


def false_alarm_rate(count: int) -> float:
    """Returns how often chance alone brings a mean that is larger than the spread.

    Args:
        count: The number of differences, at least 2.
    """
    return _two_sided(1.0, count)


def _two_sided(ratio: float, count: int) -> float:
    """Returns the p-value of a mean of `ratio` sample standard deviations."""
    return float(2 * t.sf(ratio * math.sqrt(count), count - 1))
