"""Verification of weights: what has been published about them, computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_alexnet.data.opening import open_for_evaluation
from keras_alexnet.errors import UserError
from keras_alexnet.evaluation import evaluate_dataset
from keras_alexnet.features import feature_extractor
from keras_alexnet.features.lpips import LPIPS
from keras_alexnet.files import digest_of
from keras_alexnet.model import AlexNet
from keras_alexnet.weights.catalog import PublishedFile, get_published, identify

# SHA-256 of torchvision's convolutions: weight and bias of features.0, .3, .6, .8 and
# .10, float32 as in its file.
CONVOLUTIONS = "2b566cc3a4d6f0a7343701af22f461f1ac3dcd03a3ac28cce10968a1d3c85fdc"
# What PyTorch 2.13 and torchvision 0.28 make of `synthetic_image` with them
# (benchmarks/peers/golden_activations.py): the norm of each layer's activations, and
# the largest of them, by channel, row and column.
ACTIVATIONS = {
    "relu1": (2040.520911204924, (20, 26, 9), 50.05207824707031),
    "relu2": (2911.967962141084, (140, 16, 10), 100.32955169677734),
    "relu3": (1632.3602194031062, (4, 12, 1), 63.78669357299805),
    "relu4": (1008.9361224637546, (228, 12, 12), 64.10751342773438),
    "relu5": (441.38078961880143, (255, 11, 2), 41.026634216308594),
}
# Of version 0.1, AlexNet, as published with the metric for images of TID2013.
DISTANCES = {
    "I03": "0.7237",
    "I04": "0.2572",
    "I06": "0.05079",
    "I08": "0.05205",
    "I19": "0.4253",
}
IMAGENET_IMAGES = 50_000
# Of 50,000 images 25, whose likeliest classes rounding may exchange.
ACCURACY_TOLERANCE = 0.0005


class Check(NamedTuple):
    """Published value, and what was found.

    Attributes:
        what: What is compared.
        expected: What was published.
        got: What was computed; or why nothing was.
        ok: Whether they agree; None where nothing was computed.
    """

    what: str
    expected: str
    got: str
    ok: bool | None


def synthetic_image() -> np.ndarray:
    """Returns the image of the golden activations, uint8 `(256, 256, 3)`."""
    y, x, channel = np.ogrid[:256, :256, :3]
    return ((y * x // 16 + 85 * channel) % 256).astype(np.uint8)


def verify(
    model: AlexNet,
    path: str | Path,
    *,
    heads: str | Path = "lpips-alex",
    lpips_pairs: str | Path | None = None,
    imagenet: str | Path | None = None,
) -> Iterator[Check]:
    """Yields what has been published about weights, beside what is computed now.

    Args:
        model: The network, opened from the file.
        path: The file of its weights.
        heads: The weights of LPIPS's channels: a published name, or a file.
        lpips_pairs: The folder of five pairs of images whose LPIPS is published:
            `ref_I03.png`, `dist_I03.png` and so on.
        imagenet: The validation images of ILSVRC2012, a folder per class, called by
            its WordNet id.

    Raises:
        ValueError: There are no such images.
    """
    published = identify(path)
    if published is None:
        got = f"no published file has {digest_of(path)[:23]}..."
        yield Check("digest of the file", "-", got, None)
    else:
        what, digest = f"digest of {published.name}", f"{published.digest[:23]}..."
        yield Check(what, digest, digest, True)
    is_torchvision = False
    if model.metadata.architecture != "alexnet_owt":
        why = "none are known but for torchvision's"
        yield Check("convolutions", "-", why, None)
    else:
        found = _convolutions(model)
        is_torchvision = found == CONVOLUTIONS
        digests = (f"sha256:{digest[:16]}..." for digest in (CONVOLUTIONS, found))
        yield Check("torchvision's convolutions", *digests, is_torchvision)
    if is_torchvision:
        published = published or get_published("torchvision-alexnet")
        yield from _activations(model)
        yield from _distances(path, heads, lpips_pairs)
    else:
        why = "these are not torchvision's convolutions"
        yield Check("activations in PyTorch", "-", why, None)
        yield Check("LPIPS", "-", why, None)
    yield from _accuracies(model, published, imagenet)


def _convolutions(model: AlexNet) -> str:
    """Returns the digest of the convolutions, laid out as PyTorch's are."""
    digest = hashlib.sha256()
    for number in range(1, 6):
        kernel, bias = model.get_layer(f"conv{number}").get_weights()
        for values in (kernel.transpose(3, 2, 0, 1), bias):
            digest.update(np.ascontiguousarray(values, "<f4"))
    return digest.hexdigest()


def _activations(model: AlexNet) -> Iterator[Check]:
    extractor = feature_extractor(model, list(ACTIVATIONS))
    images = model.preprocess(synthetic_image())
    for name, values in extractor(images, training=False).items():
        maps = np.asarray(values[0], np.float64)
        if keras.config.image_data_format() == "channels_last":
            maps = np.moveaxis(maps, -1, 0)
        norm, place, value = ACTIVATIONS[name]
        for what, expected, got in (
            ("norm", norm, np.linalg.norm(maps)),
            (str(list(place)), value, maps[place]),
        ):
            ok = bool(abs(got - expected) <= 1e-5 * expected)
            yield Check(f"{name} {what}", f"{expected:.6g}", f"{got:.6g}", ok)


def _distances(
    path: str | Path, heads: str | Path, folder: str | Path | None
) -> Iterator[Check]:
    if folder is None:
        yield Check("LPIPS", "-", "the pairs of images were not given", None)
        return
    files = {
        name: [Path(folder, f"{kind}_{name}.png") for kind in ("ref", "dist")]
        for name in DISTANCES
    }
    for file in (file for pair in files.values() for file in pair):
        if not file.is_file():
            raise UserError(f"There is no {file}, one of LPIPS's pairs.")
    lpips = LPIPS(path, heads)
    for name, expected in DISTANCES.items():
        pair = (keras.utils.load_img(file) for file in files[name])
        distance = float(lpips.distances(*(np.asarray(x)[None] for x in pair))[0])
        got = f"{distance:.{len(expected) - 2}f}"
        yield Check(f"LPIPS of {name}", expected, got, got == expected)


def _accuracies(
    model: AlexNet, published: PublishedFile | None, folder: str | Path | None
) -> Iterator[Check]:
    if published is None or published.top1_error is None:
        yield Check("accuracy on ImageNet", "-", "none is published", None)
        return
    why, found = "", None
    if model.output_shape[1:] != (1000,):
        why = "the file has no dense layers"
    elif folder is None:
        why = "ImageNet's validation images were not given"
    else:
        channels = model.metadata.preprocessing.channels
        dataset = open_for_evaluation(f"folder:{folder}", channels=channels)
        found, _ = evaluate_dataset(model, dataset)
        if len(found.labels) != IMAGENET_IMAGES:
            why = f"{len(found.labels):,} images in place of {IMAGENET_IMAGES:,}"
    for k, error in {1: published.top1_error, 5: published.top5_error}.items():
        got, ok = why, None
        if found is not None:
            actual = found.top_k_error(k)
            got = f"{1 - actual:.3%}" + (why and f", {why}")
            ok = None if why else bool(abs(actual - error) <= ACCURACY_TOLERANCE)
        yield Check(f"top-{k} accuracy", f"{1 - error:.3%}", got, ok)
