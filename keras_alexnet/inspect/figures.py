"""Figures of runs, datasets and schedules, drawn with Matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_alexnet.errors import UserError
from keras_alexnet.schedules import Plateau, Schedule

# Figures are made without pyplot, which would choose a window system and keep them.


def _save(figure: Figure, path: Path, format: str | None = None) -> None:
    known = figure.canvas.get_supported_filetypes()
    suffix = path.suffix.removeprefix(".").lower()
    if suffix and not format and suffix not in known:
        raise UserError(
            f"{path}: Format {suffix!r} is not supported. Available: {', '.join(known)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format=format, dpi=120)


def _grid(
    rows: int, columns: int, width: float, height: float, *, title: float = 0.0
) -> tuple[Figure, np.ndarray]:
    """Returns a figure and its panels of pictures, blank until something is drawn.

    Margins are fixed: to find them takes Matplotlib as long as all the rest.

    Args:
        rows: Rows of panels.
        columns: Columns of panels.
        width: Of a panel, in inches.
        height: Of a panel, in inches.
        title: Height of the titles above panels, in inches.
    """
    total = rows * height
    figure = Figure(figsize=(columns * width, total))
    margins = {"left": 0.01, "right": 0.99, "bottom": 0.02, "wspace": 0.06}
    margins["top"] = 1 - max(title, 0.02 * total) / total
    margins["hspace"] = 0.06 + title / (height - title)
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=margins)
    for panel in grid.flat:
        panel.axis("off")
    return figure, grid


def learning_curves(
    history: Sequence[dict[str, float]], path: Path, *, evaluated: str = "test"
) -> None:
    """Draws loss, error and learning rate over the epochs.

    Args:
        history: One row per epoch, with the keys of history.csv.
        path: The PNG file to write.
        evaluated: Name of the split that each epoch was evaluated on.
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    curves = (
        ("Loss (nats)", {"loss": "training", "val_loss": evaluated}, 1),
        (
            "Error (%)",
            {
                "val_top1_error": f"{evaluated}, top-1",
                "val_top5_error": f"{evaluated}, top-5",
            },
            100,
        ),
        ("Learning rate", {"learning_rate": None}, 1),
    )
    for panel, (title, keys, scale) in zip(panels, curves, strict=True):
        for key, label in keys.items():
            values = [row[key] * scale for row in history]
            panel.plot(epochs, values, marker=".", label=label)
        panel.set(title=title, xlabel="epoch", ylim=(0, None))
        panel.grid(alpha=0.3)
        if len(keys) > 1:
            panel.legend()
    _save(figure, path)


def filters(kernel: np.ndarray, path: Path) -> None:
    """Draws the filters of a first layer, as in figure 3 of the paper.

    Args:
        kernel: `(height, width, channels, filters)`, with 1 or 3 channels.
        path: The PNG file to write.
    """
    images = np.moveaxis(kernel, -1, 0)
    columns = min(16, len(images))
    figure, grid = _grid(-(-len(images) // columns), columns, 0.6, 0.6)
    for panel, image in zip(grid.flat, images, strict=False):
        # Each filter on a scale of its own, with zero in the middle.
        image = 0.5 + image / (2 * np.abs(image).max() + 1e-12)
        panel.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
    _save(figure, path)


def predictions(
    images: Sequence[np.ndarray],
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Draws images with their five likeliest classes, as in figure 4 of the paper.

    Args:
        images: uint8, `(height, width, channels)` each.
        probabilities: `(images, classes)`.
        labels: The true classes, `(images,)`.
        class_names: In the order of the labels.
        path: The PNG file to write.
    """
    columns = 6
    figure, grid = _grid(2 * -(-len(images) // columns), columns, 1.7, 1.6, title=0.22)
    top = min(5, len(class_names))
    for number, (image, row, label) in enumerate(
        zip(images, probabilities, labels, strict=True)
    ):
        picture = grid[number // columns * 2, number % columns]
        bars = grid[number // columns * 2 + 1, number % columns]
        picture.imshow(np.asarray(image).squeeze(), cmap="gray")
        picture.set_title(class_names[label], fontsize=9)
        best = np.argsort(row)[::-1][:top]
        colors = ["tab:red" if one == label else "tab:blue" for one in best]
        bars.axis("on")
        bars.barh(range(top), row[best], color=colors, alpha=0.6)
        for height, one in enumerate(best):
            bars.text(0.02, height, class_names[one], va="center", fontsize=8)
        bars.set(xlim=(0, 1), xticks=[], yticks=[])
        bars.invert_yaxis()
    _save(figure, path)


def attribution(image: np.ndarray, scores: np.ndarray, title: str, path: Path) -> None:
    """Draws an image, and beside it where a network looks.

    Args:
        image: uint8 `(height, width, channels)`.
        scores: `(rows, columns)`, laid over the image. Of both signs red speaks for the
            class and blue against it.
        title: What stands above.
        path: The PNG file to write.
    """
    figure, (panels,) = _grid(1, 2, 3, 3.3, title=0.3)
    height, width = image.shape[:2]
    signed = scores.min() < 0
    # A few pixels of large gradients would leave the rest dark.
    limit = max(float(np.percentile(np.abs(scores), 99.5)), 1e-12)
    for panel in panels:
        panel.imshow(image.squeeze(), cmap="gray")
    panels[1].imshow(
        scores,
        cmap="bwr" if signed else "inferno",
        vmin=-limit if signed else 0,
        vmax=limit,
        alpha=0.65,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear",
    )
    panels[0].set_title(title, fontsize=9, loc="left")
    _save(figure, path)


def drawable(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels on a scale of 0-255 as bytes, rounded."""
    return pixels.round().clip(0, 255).astype(np.uint8)


def contact_sheet(
    rows: Mapping[str, Sequence[np.ndarray]], columns: int, path: Path
) -> None:
    """Draws images of several classes, one class a row.

    Args:
        rows: For each class's name, uint8 images `(height, width, channels)`.
        columns: How many images a row has room for.
        path: The PNG file to write.
    """
    figure, grid = _grid(len(rows), columns, 1.2, 1.4, title=0.22)
    for panels, (name, images) in zip(grid, rows.items(), strict=True):
        # A dollar sign would begin a formula.
        panels[0].set_title(name, fontsize=9, loc="left", parse_math=False)
        for panel, image in zip(panels, images, strict=False):
            panel.imshow(np.asarray(image).squeeze(), cmap="gray", vmin=0, vmax=255)
    _save(figure, path, format="png")


def confusion(counts: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Draws a confusion matrix.

    Args:
        counts: Images by true class (row) and predicted class (column).
        class_names: In the order of the rows.
        path: The PNG file to write.
    """
    classes = len(class_names)
    size = min(14.0, 2.5 + 0.4 * classes)
    figure = Figure(figsize=(size, size), layout="constrained")
    panel = figure.subplots()
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    panel.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    panel.set(xlabel="predicted", ylabel="true")
    if classes <= 40:  # More names and numbers than that cannot be read.
        panel.set_xticks(range(classes), class_names, rotation=90)
        panel.set_yticks(range(classes), class_names)
        for true, predicted in np.argwhere(counts):
            panel.text(
                predicted,
                true,
                counts[true, predicted],
                ha="center",
                va="center",
                fontsize=8,
                color="white" if fractions[true, predicted] > 0.5 else "black",
            )
    _save(figure, path)


def schedules(
    panels: Mapping[str, Mapping[str, Schedule]],
    path: Path,
    epochs: int | None = None,
) -> None:
    """Draws schedules over a whole run.

    The course of a `Plateau` depends on the validation error: the area that it may pass
    through is shaded.

    Args:
        panels: Schedules by label, by the title of the panel that they share.
        path: The picture to write.
        epochs: Length of the run, where it is known.
    """
    columns = min(3, len(panels))
    width = 4.4 if columns > 1 else 7
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(columns * width, rows * 3.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        axes.set(title=title, xlabel="epoch" if epochs else "progress")
        _draw_schedules(axes, curves, epochs)
    _save(figure, path)


def _draw_schedules(
    axes: Axes, curves: Mapping[str, Schedule], epochs: int | None
) -> None:
    progress = np.linspace(0, 1, 1001)
    times = progress * (epochs or 1)
    drawn = []
    for label, schedule in curves.items():
        values = np.array([schedule(point) for point in progress])
        (line,) = axes.plot(times, values, label=label)
        drawn.append(values)
        if isinstance(schedule, Plateau):
            lowest = np.array([schedule.lowest(point, epochs) for point in progress])
            shade = {"color": line.get_color(), "alpha": 0.2}
            label = f"down to here, as {schedule.monitor} decides"
            axes.fill_between(times, lowest, values, label=label, **shade)
            drawn.append(lowest)
    # Zero has no place on a logarithmic scale: a schedule that reaches it leaves the
    # picture there, if another one asks for that scale.
    lowest, highest = min(map(np.min, drawn)), max(map(np.max, drawn))
    positive = [values.min() for values in drawn if values.min() > 0]
    if positive and highest >= 10 * min(positive):
        axes.set_yscale("log")
        axes.set_ylim(min(positive) / 1.5, highest * 1.5)
    else:
        axes.set_ylim(min(0, lowest), 1.05 * highest or 1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2))
