"""What the layers inside a network make of images.

Layers have the same names in every variant: conv1, relu1, norm1, pool1 ... fc6, relu6,
drop6, fc7, relu7, fc8. A name means that layer's own output: `fc6` is linear, `relu6`
what comes after its activation (which Caffe, whose ReLU works in place, calls fc6 too).
"""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from keras_alexnet.data.folder import IMAGE_SUFFIXES, is_image, visible_files
from keras_alexnet.data.skipped import reason
from keras_alexnet.errors import UserError, unknown
from keras_alexnet.images.preprocessing import Preprocessing

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
        folder: The images: JPEG, PNG, GIF and BMP files, in sub-folders too.
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
    if not out.parent.is_dir():
        raise UserError(f"No such folder: {out.parent}")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1. Received: {batch_size}")
    extractor = feature_extractor(model, layers)
    reserved = {"files", "skipped"} & set(extractor.output)
    if reserved:
        raise UserError(f"{reserved.pop()} cannot be the name of a layer here.")
    paths = _image_files(folder)
    channels_last = keras.config.image_data_format() == "channels_last"
    height = model.inputs[0].shape[1 if channels_last else 2]
    if height is not None:
        preprocessing = preprocessing.with_image_size(height)

    files, skipped = [], []
    # Beside the result, because features may be larger than what /tmp takes.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}-") as work:
        shapes = {
            name: tuple(output.shape[1:]) for name, output in extractor.output.items()
        }
        rows = {
            name: open(Path(work, f"{index}.rows"), "wb")  # noqa: SIM115
            for index, name in enumerate(shapes)
        }
        try:
            for names, features, problems in _passes(
                extractor, preprocessing, paths, batch_size
            ):
                files += [_relative(path, folder) for path in names]
                skipped += [(_relative(path, folder), why) for path, why in problems]
                for name, values in features.items():
                    shapes[name] = values.shape[1:]
                    rows[name].write(np.ascontiguousarray(values, "<f4").data)
        finally:
            for file in rows.values():
                file.close()
        if not files:
            raise UserError(
                f"No image in {folder} can be read; the first that was tried: "
                f"{skipped[0][0]}: {skipped[0][1]}"
            )
        finished = Path(work, "features.npz")
        with zipfile.ZipFile(finished, "w", zipfile.ZIP_STORED) as archive:
            for name, file in rows.items():
                _add_rows(archive, name, Path(file.name), (len(files), *shapes[name]))
                # Not on the disk twice for longer than need be.
                os.unlink(file.name)
            for name, values in (
                ("files", files),
                ("skipped", [path for path, _ in skipped]),
            ):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.array(values, dtype=np.str_))
        os.replace(finished, out)
    return Extraction(tuple(files), tuple(skipped), shapes)


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"No such folder: {folder}")
    paths = [folder / file for file in visible_files(folder) if is_image(file)]
    if not paths:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{folder} has no images ({suffixes}).")
    return paths


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _passes(
    extractor: keras.Model,
    preprocessing: Preprocessing,
    paths: list[Path],
    batch_size: int,
) -> Iterator[tuple[list[Path], dict[str, np.ndarray], list[tuple[Path, str]]]]:
    """Yields files that were read with their features, and those that were not."""
    channels_first = keras.config.image_data_format() == "channels_first"

    @tf.function(autograph=False)
    def run(images):
        images = preprocessing.normalize(images)
        if channels_first:
            images = tf.transpose(images, (0, 3, 1, 2))
        outputs = extractor(images, training=False)
        return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}

    def features(images: list[tf.Tensor]) -> dict[str, np.ndarray]:
        # Batches of one size, lest the network be traced anew for the last.
        batch = images + [tf.zeros_like(images[0])] * (batch_size - len(images))
        return {
            name: values.numpy()[: len(images)]
            for name, values in run(tf.stack(batch)).items()
        }

    names, images, problems = [], [], []
    for path, image in track(
        _images(preprocessing, paths, ahead=2 * batch_size),
        description="Extracting features",
        total=len(paths),
        console=Console(stderr=True),
        transient=True,
    ):
        if isinstance(image, str):
            problems.append((path, image))
            continue
        names.append(path)
        images.append(image)
        if len(images) == batch_size:
            yield names, features(images), problems
            names, images, problems = [], [], []
    yield names, features(images) if images else {}, problems


def _images(
    preprocessing: Preprocessing, paths: list[Path], ahead: int
) -> Iterator[tuple[Path, tf.Tensor | str]]:
    """Reads images in several threads, but no more than some ahead of their use.

    Yields:
        Each path with the image, as large as the network's input, or with the reason
        why there is none.
    """
    # Traced once for all sizes.
    pixels = tf.TensorSpec((None, None, preprocessing.channels), tf.uint8)
    prepare = tf.function(preprocessing.prepare, input_signature=[pixels])

    def read(path: Path) -> tf.Tensor | str:
        try:
            encoded = path.read_bytes()
            if not encoded:
                return "the file is empty"
            # Decoded outside the function, whose errors name its operations only.
            return prepare(preprocessing.decode(tf.constant(encoded)))
        except OSError as error:
            return error.strerror or str(error)
        except tf.errors.OpError as error:
            return reason(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending = collections.deque()
        try:
            for path in paths:
                pending.append((path, pool.submit(read, path)))
                if len(pending) > ahead:
                    path, future = pending.popleft()
                    yield path, future.result()
            while pending:
                path, future = pending.popleft()
                yield path, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _add_rows(
    archive: zipfile.ZipFile, name: str, rows: Path, shape: tuple[int, ...]
) -> None:
    """Adds rows as an array, copying the file piece by piece."""
    if rows.stat().st_size != 4 * math.prod(shape):
        raise RuntimeError(f"{rows} does not hold {shape} numbers of 4 bytes.")
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_2_0(member, header)
        with open(rows, "rb") as source:
            shutil.copyfileobj(source, member, 1 << 20)
