"""What the figures of a search share: colours and their meaning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from keras_alexnet.tuning.ranking import Direction

# In all figures, with a halo where it lies among other lines.
BEST = "tab:orange"
HALO = [Stroke(linewidth=4.6, foreground="white"), Normal()]
# Good trials dark on white, bad ones pale; told apart by any eyes and in print.
COLORS = "viridis"


def color_scale(values: Sequence[float], direction: Direction) -> ScalarMappable:
    """Returns colours in which the good half of the trials can be told apart.

    Everything worse than the fence of a box plot has the colour of the fence.
    """
    low, first, third, high = np.quantile(values, (0, 0.25, 0.75, 1))
    fence = 1.5 * (third - first)
    if direction == "min" and fence:
        high = min(high, third + fence)
    elif fence:
        low = max(low, first - fence)
    colors = COLORS if direction == "min" else f"{COLORS}_r"
    return ScalarMappable(Normalize(low, high), colors)


def color_bar(
    figure: Figure,
    scale: ScalarMappable,
    axes: Axes | Sequence[Axes],
    objective: str,
    direction: Direction,
) -> None:
    """Says which result has which colour, where there is more than one."""
    if scale.norm.vmin != scale.norm.vmax:
        figure.colorbar(scale, ax=axes, label=better(objective, direction), aspect=30)


def better(objective: str, direction: Direction) -> str:
    """Returns an axis label that says which end is good."""
    return f"{objective} ({'lower' if direction == 'min' else 'higher'} is better)"
