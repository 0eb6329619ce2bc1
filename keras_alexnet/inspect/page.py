"""HTML page of a network: one file that shows what it is and what it sees.

Everything is inside: `page.html` holds style and script, and is filled with the data as
JSON and the pictures as data URIs. Nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
from PIL import Image

from keras_alexnet.data.dataset import Split
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.evaluation import Evaluation
from keras_alexnet.features import feature_extractor
from keras_alexnet.features.extraction import provenance
from keras_alexnet.files import write_whole
from keras_alexnet.inspect import explain, figures
from keras_alexnet.model import AlexNet

TEMPLATE = Path(__file__).with_name("page.html")
# What keeps the page small: images shown, their size in pixels, classes of the
# confusion matrix, channels of a layer, and images among which neighbours are looked
# for, of which figure 4 of the paper shows six.
SHOWN, THUMBNAIL, CONFUSED, CHANNELS = 400, 96, 30, 16
CANDIDATES, NEIGHBOURS = 2000, 6


def write_page(path: Path, title: str, data: Mapping[str, Any]) -> None:
    """Writes the page.

    Args:
        path: The file to write.
        title: Its heading.
        data: What it shows: `about` and `layers`, and where there are any `history`,
            `evaluated`, `images`, `confusion`, `explained`, `neighbours`, `robustness`,
            `configuration`, and `omitted`, what is missing and why.
    """
    # As `<` begins a tag even in a string of JSON.
    text = json.dumps(_finite(data), separators=(",", ":")).replace("<", r"\u003c")
    head, between, tail = TEMPLATE.read_text(encoding="utf-8").split("<!-- here -->")
    page = head + html.escape(title) + between + text + tail
    # Names of files need not be UTF-8.
    write_whole(path, page.encode("utf-8", "replace"))


def network(model: AlexNet) -> dict[str, Any]:
    """Returns what a network is.

    Args:
        model: The network.

    Returns:
        `about`, whose weights they are; and `layers`, a list: name, class, shape of the
        output, number of parameters, and where there is a kernel its shape, and its
        picture.
    """
    layers = []
    for layer in model.layers:
        of_layer = {
            "name": layer.name,
            "class": type(layer).__name__,
            "shape": _channels_last(layer.output.shape[1:]),
            "parameters": layer.count_params(),
        }
        kernels = [w for w in layer.weights if len(w.shape) in (2, 4)]
        if kernels:
            kernel = np.array(kernels[0], np.float32)
            of_layer |= {"kernel": kernel.shape, **_kernel_picture(kernel)}
        layers.append(of_layer)
    preprocessing = model.metadata.preprocessing.to_config()
    # Of pixels only their number can be read.
    preprocessing["mean_image"] = preprocessing["mean_image"] is not None
    about = {
        "parameters": model.count_params(),
        "classes": model.output_shape[-1],
        **provenance(model),
        "preprocessing": preprocessing,
    }
    return {"about": about, "layers": layers}


def images(
    model: AlexNet, split: Split, evaluation: Evaluation
) -> tuple[dict[str, Any], np.ndarray]:
    """Returns what a network makes of labelled images.

    Args:
        model: The network.
        split: The images.
        evaluation: What the network makes of them all.

    Returns:
        `evaluated`, their number and metrics; `classes`, the names; `confusion`, of the
        classes that are confused most; `images`, `SHOWN` of them: the surest ones of
        each cell of the confusion matrix, then the next. And which these are, by their
        place in `evaluation`.
    """
    certainty = evaluation.probabilities.max(axis=1)
    right = evaluation.labels == evaluation.predictions
    cells = evaluation.labels * evaluation.probabilities.shape[1]
    cells = cells + evaluation.predictions
    order = np.lexsort((-certainty, cells))
    first = np.searchsorted(cells[order], cells[order])
    rank = np.arange(len(order)) - first
    shown = order[np.lexsort((right[order], rank))][:SHOWN]
    found, places = [], evaluation.positions[shown]
    for place, pixels in zip(shown, _pixels(model, split, places), strict=True):
        best = np.argsort(-evaluation.probabilities[place], kind="stable")[:5]
        found.append(
            {
                "name": split.name(int(evaluation.positions[place])),
                "label": int(evaluation.labels[place]),
                "best": [
                    [int(one), round(float(evaluation.probabilities[place, one]), 4)]
                    for one in best
                ],
                "picture": _picture(pixels, THUMBNAIL),
            }
        )
    counts = evaluation.confusion()
    mistakes = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    present = np.flatnonzero(counts.sum(0) + counts.sum(1))
    chosen = np.sort(present[np.argsort(-mistakes[present], kind="stable")][:CONFUSED])
    return {
        "classes": model.metadata.class_names,
        "evaluated": {
            "images": len(evaluation.labels),
            **evaluation.metrics(),
            **evaluation.balanced_metrics(),
        },
        "confusion": {
            "classes": chosen.tolist(),
            "present": len(present),
            "counts": counts[np.ix_(chosen, chosen)].tolist(),
        },
        "images": found,
    }, shown


def explained(
    model: AlexNet, split: Split, evaluation: Evaluation, shown: np.ndarray, count: int
) -> list[dict[str, Any]]:
    """Returns what a network sees in some images: mistakes, and the surest right ones.

    Args:
        model: The network.
        split: The images.
        evaluation: What the network makes of them all.
        shown: Which of them the page shows, as `images` returns them.
        count: How many to explain: half of them mistakes, where there are as many.

    Returns:
        For each `image`, its place in `shown`; its `picture`; `grad_cam` and
        `occlusion`, to be laid over it; and `layers`, the strongest channels of each.
    """
    wrong = evaluation.predictions[shown] != evaluation.labels[shown]
    sure = np.argsort(-evaluation.probabilities[shown].max(axis=1), kind="stable")
    mistakes = sure[wrong[sure]][: count // 2]
    places = np.append(mistakes, np.flatnonzero(~wrong)[: count - len(mistakes)])
    pixels = list(_pixels(model, split, evaluation.positions[shown[places]]))
    x = model.network_input(np.stack(pixels))
    names = [one.name for one in model.layers if len(one.output.shape) == 4]
    layer = "relu5" if "relu5" in names else names[-1]
    grad_cam = explain.grad_cam(model, x, layer=layer)
    # An eighth of the image, in steps of half of that.
    side = min(pixels[0].shape[:2])
    window = max(side // 8, 1)
    stride = max(window // 2, 1)
    occlusion = explain.occlusion(model, x, window=window, stride=stride)
    outputs = [
        one.name for one in model.layers if not isinstance(one, keras.layers.InputLayer)
    ]
    features = feature_extractor(model, outputs).predict_on_batch(x)
    return [
        {
            "image": int(place),
            "picture": _picture(pixels[number]),
            "layer": layer,
            "grad_cam": _heat(grad_cam[number]),
            "occlusion": _heat(occlusion[number][::stride, ::stride]),
            "layers": [
                {"name": name, **_activations(np.asarray(features[name][number]))}
                for name in outputs
            ],
        }
        for number, place in enumerate(places)
    ]


def neighbours(
    model: AlexNet,
    split: Split,
    positions: np.ndarray,
    candidates: Split,
    outputs: np.ndarray,
) -> dict[str, Any]:
    """Returns the images whose features are nearest (figure 4 of the paper, right).

    By Euclidean distance of what the last layer with weights is given: fc7, rectified.

    Args:
        model: The network.
        split: The images.
        positions: For which of them neighbours are looked for.
        candidates: Where, such as the training images; `CANDIDATES` of them are taken.
            Where it is `split`, an image is no neighbour of itself.
        outputs: The model's class for each label of the candidates.

    Returns:
        `among`, the number of candidates; `dimensions` of the features; and `rows`, for
        each image a list of neighbours, the nearest first: name, label, distance and
        picture.
    """
    last = [layer for layer in model.layers if layer.weights][-1]
    extractor = keras.Model(model.inputs[0], last.input)
    chosen = np.unique(
        np.linspace(0, len(candidates) - 1, min(len(candidates), CANDIDATES)).astype(
            int
        )
    )
    own, _, _ = _features(extractor, model, split, positions)
    others, labels, kept = _features(extractor, model, candidates, chosen)
    chosen = chosen[kept]
    rows, needed = [], []
    for position, feature in zip(positions, own, strict=True):
        distances = np.linalg.norm(others - feature, axis=1)
        if candidates is split:
            distances[chosen == position] = np.inf
        nearest = np.argsort(distances, kind="stable")[:NEIGHBOURS]
        nearest = nearest[np.isfinite(distances[nearest])]
        rows.append([(int(one), float(distances[one])) for one in nearest])
        needed += nearest.tolist()
    pictures = dict(
        zip(needed, _pixels(model, candidates, chosen[needed]), strict=True)
        if needed
        else ()
    )
    return {
        "among": len(chosen),
        "dimensions": own.shape[1],
        "rows": [
            [
                {
                    "name": candidates.name(int(chosen[one])),
                    "label": int(outputs[labels[one]]),
                    "distance": distance,
                    "picture": _picture(pictures[one], THUMBNAIL),
                }
                for one, distance in row
            ]
            for row in rows
        ],
    }


# === Images ===


def _pixels(
    model: AlexNet, split: Split, positions: np.ndarray
) -> Iterator[np.ndarray]:
    """Yields images as the network sees them, but in colours that people can see."""
    geometry = model.metadata.preprocessing.geometry
    batches = evaluation_batches(split.select(positions), geometry, 32)
    remaining = len(positions)
    for pixels, _, _ in batches:
        for one in pixels.numpy()[:remaining]:
            yield figures.drawable(one)
        remaining -= len(pixels)


def _features(
    extractor: keras.Model, model: AlexNet, split: Split, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns features and labels of images, and the places of those that are whole."""
    batches = evaluation_batches(
        split.select(positions), model.metadata.preprocessing, min(64, len(positions))
    )
    features, labels, weights = [], [], []
    for images, label, weight in batches:
        found = np.asarray(extractor.predict_on_batch(images), np.float32)
        features.append(found.reshape(len(found), -1))
        labels.append(label.numpy())
        weights.append(weight.numpy())
    kept = np.flatnonzero(np.concatenate(weights))
    return np.concatenate(features)[kept], np.concatenate(labels)[kept], kept


# === Pictures ===


def _picture(pixels: np.ndarray, side: int | None = None) -> str:
    """Returns an image, uint8 `(height, width[, channels])`, as a data URI."""
    image, file = Image.fromarray(pixels.squeeze()), io.BytesIO()
    if side:
        image.thumbnail((side, side))
    image.save(file, "WEBP", quality=75)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _mosaic(tiles: np.ndarray, columns: int | None = None) -> str:
    """Returns images, `(n, height, width[, 3])` from -1 to 1, as one picture."""
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    rows = -(-len(tiles) // columns)
    gap = 1 if tiles.shape[1] > 1 and len(tiles) > 1 else 0
    height, width = tiles.shape[1] + gap, tiles.shape[2] + gap
    whole = np.zeros((rows * height, columns * width, *tiles.shape[3:]), np.float32)
    for number, tile in enumerate(tiles):
        top, left = number // columns * height, number % columns * width
        whole[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    # Not blurred by compression, where a pixel is a number.
    scale = max(1, 160 // max(whole.shape[:2]))
    whole = whole.repeat(scale, axis=0).repeat(scale, axis=1)
    return _picture(np.round(127.5 + 127.5 * np.nan_to_num(whole)).astype(np.uint8))


def _heat(scores: np.ndarray) -> str:
    """Returns scores as colours; of both signs red speaks for the class."""
    signed = scores.min() < 0
    limit = max(float(np.percentile(np.abs(scores), 99.5)), 1e-12)
    scores = (scores / limit + signed) / (1 + signed)
    colors = matplotlib.colormaps["bwr" if signed else "inferno"](scores, bytes=True)
    return _picture(colors[..., :3])


def _kernel_picture(kernel: np.ndarray) -> dict[str, str]:
    """Returns a kernel's picture and what it shows."""
    if kernel.ndim == 2:
        # The mean size of the weights, of at most 128 x 128 blocks.
        steps = [np.arange(0, n, -(-n // 128)) for n in kernel.shape]
        sums = np.add.reduceat(np.add.reduceat(np.abs(kernel), steps[0]), steps[1], 1)
        sizes = [np.diff([*s, n]) for s, n in zip(steps, kernel.shape, strict=True)]
        means = sums / np.outer(*sizes)
        tiles = 2 * means[None] / max(float(means.max()), 1e-12) - 1
        return {
            "picture": _mosaic(tiles),
            "shows": "mean absolute weights: a row for inputs, a column for outputs",
        }
    filters = np.moveaxis(kernel, -1, 0)
    if filters.shape[-1] in (1, 3):
        tiles, shows = filters.squeeze(), f"all {len(filters)} filters"
        if filters.shape[-1] == 1:
            tiles = filters[..., 0]
    else:
        strongest = np.abs(filters).sum((1, 2)).argmax(-1)[:64]
        tiles = np.stack([f[..., c] for f, c in zip(filters, strongest, strict=False)])
        shows = f"{len(tiles)} of {len(filters)} filters, in their strongest input"
    # Each filter on a scale of its own, with zero in the middle.
    limits = np.abs(tiles).max(axis=tuple(range(1, tiles.ndim)), keepdims=True)
    return {"picture": _mosaic(tiles / np.maximum(limits, 1e-12)), "shows": shows}


def _activations(maps: np.ndarray) -> dict[str, Any]:
    """Returns the picture of a layer's output for one image, and what it shows."""
    maps = maps.astype(np.float32)
    limit = max(float(np.abs(maps).max()), 1e-12)
    # Zero is black where nothing is negative, and grey otherwise.
    maps = maps / limit if maps.min() < 0 else 2 * maps / limit - 1
    if maps.ndim == 3:
        if keras.config.image_data_format() == "channels_first":
            maps = maps.transpose(1, 2, 0)
        step = -(-max(maps.shape[:2]) // 56)
        strongest = np.argsort(-maps.mean((0, 1)), kind="stable")[:CHANNELS]
        tiles = np.moveaxis(maps[::step, ::step, strongest], -1, 0)
        shows = ", ".join(map(str, strongest))
        return {"picture": _mosaic(tiles), "shows": f"channels {shows}"}
    tiles = maps.reshape(-1, 1, 1)
    return {"picture": _mosaic(tiles), "shows": f"{len(tiles):,} numbers, in rows"}


# === Values ===


def _channels_last(shape: Sequence[int]) -> list[int]:
    first = keras.config.image_data_format() == "channels_first"
    return [*shape[1:], shape[0]] if first and len(shape) == 3 else list(shape)


def _finite(value: Any) -> Any:
    """Returns a value for JSON, which has no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
