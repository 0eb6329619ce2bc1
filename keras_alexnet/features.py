"""What the layers inside a network make of images.

Layers have the same names in every variant: conv1, relu1, norm1, pool1 ... fc6, relu6,
drop6, fc7, relu7, fc8. A name means that layer's own output: `fc6` is linear, `relu6`
what comes after its activation (which Caffe, whose ReLU works in place, calls fc6 too).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from keras_alexnet.data.folder import (
    IMAGE_SUFFIXES,
    file_split,
    is_irregular,
    visible_files,
)
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.data.strings import Strings
from keras_alexnet.errors import UserError, unknown
from keras_alexnet.files import replacing
from keras_alexnet.images.preprocessing import Preprocessing

# Images that are named rather than passed over: nothing here decodes them.
UNSUPPORTED_SUFFIXES = (".avif", ".heic", ".heif", ".jp2", ".jxl")

# torchvision's names for the layers of its AlexNet, as brain-score and thingsvision tap
# them. LPIPS takes relu1 to relu5, which are features.1, .4, .7, .9 and .11. A hook in
# PyTorch on a convolution or a dense layer may see rectified values, because the ReLU
# behind it works in place; ours are linear.
TORCHVISION_LAYERS: Mapping[str, str] = MappingProxyType(
    {
        "features.0": "conv1",
        "features.1": "relu1",
        "features.2": "pool1",
        "features.3": "conv2",
        "features.4": "relu2",
        "features.5": "pool2",
        "features.6": "conv3",
        "features.7": "relu3",
        "features.8": "conv4",
        "features.9": "relu4",
        "features.10": "conv5",
        "features.11": "relu5",
        "features.12": "pool5",
        "avgpool": "avgpool",
        "classifier.0": "drop5",
        "classifier.1": "fc6",
        "classifier.2": "relu6",
        "classifier.3": "drop6",
        "classifier.4": "fc7",
        "classifier.5": "relu7",
        "classifier.6": "fc8",
    }
)


def feature_extractor(
    model: keras.Model, layers: Sequence[str] = ("fc7",)
) -> keras.Model:
    """Returns a model that shows what layers inside a model make of its input.

    All in one pass, with the given model's own weights.

    Args:
        model: A functional model, such as `build()` returns.
        layers: Names of layers. Where the network has torchvision's layers
            (`alexnet_owt`), torchvision's names are understood too, such as
            `features.2`; see `TORCHVISION_LAYERS`. `classifier.0` counts its 9,216
            numbers by channel, as PyTorch does, where our `flatten` and `drop5` count
            them by pixel.

    Returns:
        A Keras model with the same input, and as output a dictionary from the names, as
        they were given, to the layers' outputs.

    Raises:
        ValueError: There is no such layer; the message lists those that exist.

    Example:
    >>> extractor = keras_alexnet.feature_extractor(model, ["relu1", "fc7"])
    >>> extractor.predict(model.preprocess(images))["fc7"].shape
    (10, 4096)
    """
    layers = [layers] if isinstance(layers, str) else list(layers)
    if not layers:
        raise UserError("layers must name at least one layer. Received: none")
    if len(set(layers)) < len(layers):
        raise UserError(f"layers names a layer twice. Received: {', '.join(layers)}")
    outputs = {
        layer.name: layer.output
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    }
    aliases = TORCHVISION_LAYERS if _has_torchvision_layers(list(outputs)) else {}
    chosen = {}
    for name in layers:
        own = name if name in outputs else aliases.get(name)
        if own not in outputs:
            raise UserError(unknown(str(name), "layer", outputs, f"model {model.name}"))
        chosen[name] = outputs[own]
        if name == "classifier.0" and name != own:
            chosen[name] = _flattened_by_channel(model.get_layer("flatten").input)
    # A single input as itself: in a list, Keras would ask for a list.
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, chosen, name=f"{model.name}_features")


def _flattened_by_channel(maps: keras.KerasTensor) -> keras.KerasTensor:
    """Returns feature maps in a row as PyTorch flattens them: channel by channel."""
    if keras.config.image_data_format() == "channels_last":
        maps = keras.layers.Permute((3, 1, 2))(maps)
    return keras.layers.Reshape((-1,), name="channels_first_features")(maps)


def _has_torchvision_layers(names: list[str]) -> bool:
    """Says whether a network's features are torchvision's, in the same order."""
    expected = [
        own for name, own in TORCHVISION_LAYERS.items() if name.startswith("features.")
    ]
    # Padding is a part of torchvision's first convolution.
    found = [name for name in names if not name.startswith("pad")]
    return found[: len(expected)] == expected


# === Folders of images ===


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What became of a folder of images.

    Attributes:
        files: The images whose features were written, relative to the folder, in the
            order of the rows.
        skipped: Those that could not be read, each with the reason.
        shapes: The shape of each layer's features of one image.
    """

    files: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    shapes: dict[str, tuple[int, ...]]


def extract_features(
    model: keras.Model,
    preprocessing: Preprocessing,
    folder: str | Path,
    layers: Sequence[str],
    out: str | Path,
    *,
    batch_size: int = 32,
) -> Extraction:
    """Writes the features of all images below a folder to an .npz file.

    The file holds for each layer an array of the layer's name, float32 of
    `(images, ...)`; `files`, the images' paths relative to the folder, in the order of
    the rows; and `skipped`, those that could not be read. Memory does not grow with the
    number of images, but for their names. The file appears when it is complete.

    Args:
        model: The network.
        preprocessing: What it expects of images.
        folder: The images, in sub-folders too: JPEG, PNG, GIF, BMP, WebP and TIFF.
        layers: As in `feature_extractor`.
        out: The file to write, its name ending in .npz.
        batch_size: Images per pass.

    Returns:
        What was written, and what was not.

    Raises:
        ValueError: There is no such folder, layer, or image that can be read, or `out`
            is no place to write to.
    """
    folder, out = Path(folder).expanduser(), Path(out).expanduser()
    if out.suffix != ".npz":
        raise UserError(f"Features are written as .npz. Received: {out}")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1. Received: {batch_size}")
    extractor = feature_extractor(model, layers)
    reserved = {"files", "skipped"} & set(extractor.output)
    if reserved:
        raise UserError(f"{reserved.pop()} cannot be the name of a layer here.")
    for needed in (out.parent, folder):
        if not needed.is_dir():
            raise UserError(f"No such folder: {needed}")
    paths = image_files(folder)
    if not paths:
        raise UserError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)}).")
    channels_last = keras.config.image_data_format() == "channels_last"
    height = model.inputs[0].shape[1 if channels_last else 2]
    if height is not None:
        preprocessing = preprocessing.with_image_size(height)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ended_in_order())
        # Beside the result, because features may be larger than what /tmp takes;
        # without a name, so that nothing is left however the process ends.
        rows = {
            name: stack.enter_context(tempfile.TemporaryFile(dir=out.parent))
            for name in extractor.output
        }
        extraction = _extract(
            extractor, preprocessing, folder, paths, rows, min(batch_size, len(paths))
        )
        if not extraction.files:
            path, why = extraction.skipped[0]
            raise UserError(
                f"No image in {folder} can be read; the first that was tried: "
                f"{path}: {why}"
            )
        _write_archive(out, rows, extraction)
    return extraction


def _extract(
    extractor: keras.Model,
    preprocessing: Preprocessing,
    folder: Path,
    paths: list[str],
    rows: dict[str, IO[bytes]],
    batch_size: int,
) -> Extraction:
    """Writes the features of images, layer by layer, into open files."""
    files, skipped, shapes = [], [], {}
    run = _runner(extractor)
    for images, read in track(
        image_batches(
            [str(folder / path) for path in paths], preprocessing, batch_size
        ),
        description="Extracting features",
        total=-(-len(paths) // batch_size),
        console=Console(stderr=True),
        transient=True,
    ):
        names = paths[len(files) + len(skipped) :]
        good = np.array([why is None for why in read])
        for path, why in zip(names, read, strict=False):
            if why is None:
                files.append(path)
            else:
                skipped.append((path, why))
        if good.any():
            for name, values in run(images).items():
                values = values.numpy()[: len(read)][good]
                shapes[name] = values.shape[1:]
                rows[name].write(np.ascontiguousarray(values, "<f4").data)
    return Extraction(tuple(files), tuple(skipped), shapes)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Lets SIGTERM unwind the stack, so that unfinished files are deleted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def image_files(folder: str | Path) -> list[str]:
    """Lists the images below a folder, those of formats that cannot be read too.

    Returns:
        Paths relative to the folder, in the order of their parts.
    """
    suffixes = (*IMAGE_SUFFIXES, *UNSUPPORTED_SUFFIXES)
    files = visible_files(Path(folder))
    return [file for file in files if file.lower().endswith(suffixes)]


def image_batches(
    files: Sequence[str], preprocessing: Preprocessing, batch_size: int
) -> Iterator[tuple[tf.Tensor, list[str | None]]]:
    """Yields image files in batches, read in parallel.

    Args:
        files: Their paths.
        preprocessing: What the network expects of images.
        batch_size: Images per batch.

    Yields:
        float32 `(batch_size, image_size, image_size, channels)`, the network's input;
        and for each file None, or the reason why it cannot be read: its image is blank,
        as those are that fill up the last batch.
    """
    skipped = Skipped()
    irregular = set(filter(is_irregular, files))
    # A pipe would be waited for.
    paths = Strings(os.devnull if file in irregular else file for file in files)
    labels = np.zeros(len(files), np.int32)
    split = file_split(Path(), paths, labels, 1, skipped)
    batches = evaluation_batches(split, preprocessing, batch_size)
    for start, (images, _, weights) in zip(
        range(0, len(files), batch_size), batches, strict=True
    ):
        reasons = dict(skipped)
        read = []
        for index, weight in enumerate(weights.numpy(), start):
            if index < len(files):
                is_regular = files[index] not in irregular
                why = reasons[split.name(index)] if not weight else None
                read.append(why if is_regular else "not a regular file")
        yield images, read


def _runner(extractor: keras.Model) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    channels_first = keras.config.image_data_format() == "channels_first"

    @tf.function(autograph=False)
    def run(images):
        if channels_first:
            images = tf.transpose(images, (0, 3, 1, 2))
        outputs = extractor(images, training=False)
        return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}

    return run


def _write_archive(out: Path, rows: dict[str, IO[bytes]], found: Extraction) -> None:
    """Writes an .npz file of features, copied piece by piece, and names."""
    names = {"files": found.files, "skipped": [path for path, _ in found.skipped]}
    with (
        replacing(out) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, file in rows.items():
            file.seek(0)
            shape = (len(found.files), *found.shapes[name])
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_2_0(member, header)
                shutil.copyfileobj(file, member, 1 << 20)
            # Not on the disk twice for longer than need be.
            file.close()
        for name, values in names.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.array(values, dtype=np.str_))
