"""Features of many images, streamed to a NumPy or HDF5 file, whole or reduced."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress

from keras_alexnet.data.csv_file import read_table
from keras_alexnet.data.folder import (
    IMAGE_SUFFIXES,
    file_split,
    is_irregular,
    visible_files,
)
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.data.strings import Strings
from keras_alexnet.errors import UserError
from keras_alexnet.features import feature_extractor
from keras_alexnet.files import replacing, write_whole
from keras_alexnet.images.preprocessing import Preprocessing, in_data_format
from keras_alexnet.model import AlexNet

# Images that are named rather than passed over: nothing here decodes them.
UNSUPPORTED_SUFFIXES = (".avif", ".heic", ".heif", ".jp2", ".jxl")
OUT_SUFFIXES = (".npz", ".npy", ".h5", ".hdf5")
# What decides the numbers, beside the network.
PACKAGES = ("keras-alexnet", "keras", "tensorflow", "numpy", "scikit-learn", "pillow")
# Images that a PCA takes at a time, if its components are not more.
BLOCK = 256


# === Images ===


def image_files(folder: str | Path) -> list[str]:
    """Lists the images below a folder, those of formats that cannot be read too.

    Returns:
        Paths relative to the folder, in the order of their parts.
    """
    suffixes = (*IMAGE_SUFFIXES, *UNSUPPORTED_SUFFIXES)
    files = visible_files(Path(folder))
    return [file for file in files if file.lower().endswith(suffixes)]


def read_stimuli(where: str | Path) -> tuple[Path, list[dict[str, str]]]:
    """Lists the images of a folder, or those that a CSV file lists, in its order.

    Args:
        where: A folder, whose sub-folders are searched too; or a CSV file whose first
            row names its columns, `path` among them: relative to the file.

    Returns:
        What the paths are relative to, and for each image what its columns hold.

    Raises:
        UserError: There is no such folder, file or column, or no image.
    """
    where = Path(where).expanduser()
    if where.is_dir():
        rows = [{"path": file} for file in image_files(where)]
        if not rows:
            raise UserError(f"{where} has no images ({', '.join(IMAGE_SUFFIXES)}).")
        return where, rows
    if not where.is_file():
        raise UserError(f"No such folder or list of images: {where}")
    rows = [row for _, row in read_table(where, ("path",))]
    if not rows:
        raise UserError(f"{where} lists no images.")
    for number, row in enumerate(rows, start=1):
        # A row that is too long or too short has a None.
        if None in row or None in row.values() or not row["path"]:
            raise UserError(
                f"Image {number} of {where} must have a path, and a value in each "
                f"column. Received: {', '.join(map(str, row.values()))}"
            )
    return where.parent, rows


def image_batches(
    files: Sequence[str],
    preprocessing: Preprocessing,
    batch_size: int,
    description: str = "Reading images",
) -> Iterator[tuple[tf.Tensor, list[str | None]]]:
    """Yields image files in batches, read in parallel; a terminal shows how far.

    Args:
        files: Their paths.
        preprocessing: What the network expects of images.
        batch_size: Images per batch.
        description: What the progress bar calls it.

    Yields:
        float32 `(batch_size, image_size, image_size, channels)`, the network's input;
        and for each file None, or the reason why it cannot be read: its image is blank,
        as those are that fill up the last batch.
    """
    skipped = Skipped()
    irregular = {index for index, file in enumerate(files) if is_irregular(file)}
    # A pipe would be waited for.
    paths = Strings(
        os.devnull if index in irregular else file for index, file in enumerate(files)
    )
    split = file_split(Path(), paths, np.zeros(len(files), np.int32), 1, skipped)
    console = Console(stderr=True)
    with Progress(
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,
    ) as progress:
        task = progress.add_task(description, total=len(files))
        batches = evaluation_batches(split, preprocessing, batch_size)
        for number, (images, _, weights) in enumerate(batches):
            begin, reasons, read = number * batch_size, dict(skipped), []
            for index in range(begin, min(begin + batch_size, len(files))):
                why = None
                if not weights[index - begin]:
                    why = reasons[split.name(index)]
                read.append("not a regular file" if index in irregular else why)
            yield images, read
            progress.advance(task, len(read))


def features_of_files(
    extractor: keras.Model,
    preprocessing: Preprocessing,
    files: Sequence[str],
    batch_size: int,
) -> Iterator[tuple[dict[str, np.ndarray], list[str | None]]]:
    """Yields what layers make of image files, batch by batch; see `image_batches`.

    Yields:
        By the layer's name, float32 of `(images, ...)`, the images that can be read;
        and for each file None, or the reason why it cannot be read.
    """

    @tf.function(autograph=False)
    def run(images):
        outputs = extractor(in_data_format(images), training=False)
        return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}

    for images, read in image_batches(
        files, preprocessing, batch_size, "Extracting features"
    ):
        good = np.array([why is None for why in read])
        found = run(images) if good.any() else {}
        yield {k: v.numpy()[: len(read)][good] for k, v in found.items()}, read


# === Extraction ===


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What became of a list of images.

    Attributes:
        files: The images whose features were written, as they are listed, in the order
            of the rows.
        skipped: Those that could not be read, each with the reason.
        shapes: The shape of each layer's features of one image, as written.
    """

    files: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    shapes: dict[str, tuple[int, ...]]


def parse_reduction(text: str, seed: int = 0) -> Any:
    """Returns the scikit-learn transformer that reduces features, by its written form.

    Args:
        text: `"pca(k)"`: the first k principal components, by `IncrementalPCA` (Ross et
            al. 2008, https://doi.org/10.1007/s11263-007-0075-7) in blocks of at least
            256 images; of fewer images it is exact. `"projection(k)"`: a row of d
            features times a random matrix of k columns with entries -sqrt(s / k) and
            sqrt(s / k), each with probability 1 / 2s, and 0 otherwise, s = sqrt(d)
            (Li, Hastie and Church 2006, https://doi.org/10.1145/1150402.1150436), by
            `SparseRandomProjection`.
        seed: Decides the random matrix.

    Raises:
        UserError: It is none of these.
    """
    # An import of 0.7 s.
    from sklearn.decomposition import IncrementalPCA
    from sklearn.random_projection import SparseRandomProjection

    found = re.fullmatch(r"(pca|projection)\(([1-9]\d*)\)", text)
    if not found:
        raise UserError(
            f"Features are reduced by pca(k) or projection(k). Received: {text!r}"
        )
    count = int(found[2])
    if found[1] == "pca":
        return IncrementalPCA(count)
    return SparseRandomProjection(count, random_state=seed)


def extract_features(
    model: AlexNet,
    preprocessing: Preprocessing,
    images: str | Path,
    layers: Sequence[str],
    out: str | Path,
    *,
    batch_size: int = 64,
    reduce: str | None = None,
    seed: int = 0,
) -> Extraction:
    """Writes the features of many images to a file, in one pass through the network.

    For each layer there is an array of the layer's name, float32 of `(images, ...)`. An
    `.npz` or HDF5 file also holds `files`, the images' paths in the order of the rows,
    and `skipped`, those that could not be read; an `.npy` file is the array alone.
    Beside it, `OUT.csv` lists the images, with all columns of the list they came from,
    and `OUT.json` says what was used: digests of the weights, preprocessing, layers,
    reduction, versions. Memory does not grow with the number of images, but for their
    names. The file appears when it is complete.

    Args:
        model: The network.
        preprocessing: What it expects of images.
        images: A folder of images, or a CSV file that lists some; see `read_stimuli`.
        layers: As in `feature_extractor`.
        out: The file to write, its name ending in .npy, .npz, .h5 or .hdf5.
        batch_size: Images per pass.
        reduce: To fewer numbers per image and layer, see `parse_reduction`; None keeps
            all.
        seed: Decides a random projection.

    Returns:
        What was written, and what was not.

    Raises:
        ValueError: There is no such folder, list, layer, or image that can be read,
            too little to reduce, or `out` is no place to write to.
    """
    out = Path(out).expanduser()
    extractor = _checked_extractor(model, layers, out, batch_size)
    root, stimuli = read_stimuli(images)
    channels_last = keras.config.image_data_format() == "channels_last"
    height = model.inputs[0].shape[1 if channels_last else 2]
    if height is not None:
        preprocessing = preprocessing.with_image_size(height)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ended_in_order())
        rows = {
            name: _Rows(stack, out.parent, reduce and parse_reduction(reduce, seed))
            for name in extractor.output
        }
        files = [os.path.join(root, row["path"]) for row in stimuli]
        size = min(batch_size, len(files))
        kept, skipped, remaining = [], [], iter(stimuli)
        for features, read in features_of_files(extractor, preprocessing, files, size):
            for why, row in zip(read, remaining, strict=False):
                if why is None:
                    kept.append(row)
                else:
                    skipped.append((row["path"], why))
            for name, values in features.items():
                rows[name].append(name, values)
        if not kept:
            raise UserError(
                "No image can be read; the first that was tried: "
                + ": ".join(skipped[0])
            )
        for name in rows:
            rows[name].finish(name)
        paths = tuple(row["path"] for row in kept)
        names = {"files": paths, "skipped": [path for path, _ in skipped]}
        shapes = {name: one.shape for name, one in rows.items()}
        about = {
            **provenance(model),
            "preprocessing": preprocessing.to_config(),
            "layers": shapes,
            "reduction": reduce and {"form": reduce, "seed": seed},
            "images": len(kept),
            "skipped": skipped,
        }
        with replacing(out) as partial, replacing(Path(f"{out}.csv")) as table:
            _write(partial, rows, names)
            _write_table(table, kept)
            write_whole(Path(f"{out}.json"), json.dumps(about, indent=2))
    return Extraction(paths, tuple(skipped), shapes)


def _checked_extractor(
    model: AlexNet, layers: Sequence[str], out: Path, batch_size: int
) -> keras.Model:
    """Returns the extractor, once its features can be written to a file."""
    if out.suffix not in OUT_SUFFIXES:
        endings = ", ".join(OUT_SUFFIXES)
        raise UserError(f"Features are written as one of {endings}. Received: {out}")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1. Received: {batch_size}")
    extractor = feature_extractor(model, layers)
    if reserved := {"files", "skipped"} & set(extractor.output):
        raise UserError(f"{reserved.pop()} cannot be the name of a layer here.")
    if out.suffix == ".npy" and len(extractor.output) > 1:
        raise UserError(f"An .npy file holds one layer. Received: {', '.join(layers)}")
    if not out.parent.is_dir():
        raise UserError(f"No such folder: {out.parent}")
    return extractor


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


class _Rows:
    """Features of a layer, row by row in a file, reduced if that is wanted.

    Attributes:
        file: Beside the result, because features may be larger than what /tmp takes;
            without a name, so that nothing is left however the process ends.
        count: How many rows there are.
        shape: Of a row, once there is one.
    """

    def __init__(self, stack: contextlib.ExitStack, folder: Path, reducer: Any):
        self._open = lambda: stack.enter_context(tempfile.TemporaryFile(dir=folder))
        self.file: IO[bytes] = self._open()
        self.count, self.shape, self._reducer = 0, (), reducer

    def append(self, name: str, values: np.ndarray) -> None:
        """Writes features of some images; a projection comes first, a PCA later."""
        if self._reducer:
            values = values.reshape(len(values), -1)
            wanted, width = self._reducer.n_components, values.shape[1]
            if wanted > width:
                raise UserError(f"{name} has {width} features, fewer than {wanted}.")
            if not hasattr(self._reducer, "partial_fit"):
                if not self.count:
                    self._reducer.fit(np.zeros((1, width)))
                values = self._reducer.transform(values)
        self._write(values)

    def _write(self, values: np.ndarray) -> None:
        self.count, self.shape = self.count + len(values), values.shape[1:]
        self.file.write(np.ascontiguousarray(values, "<f4").data)

    def finish(self, name: str) -> None:
        """Replaces the rows by their principal components, if these are wanted."""
        if not hasattr(self._reducer, "partial_fit"):
            return
        wanted = self._reducer.n_components
        if self.count < wanted:
            raise UserError(
                f"{wanted} principal components of {name} need as many images. "
                f"Received: {self.count}"
            )
        for block in self.blocks(max(wanted, BLOCK)):
            # In double precision: single ones lose digits where the mean is large.
            self._reducer.partial_fit(block.astype(np.float64))
        blocks, self.file, self.count = self.blocks(BLOCK), self._open(), 0
        for block in blocks:
            self._write(self._reducer.transform(block))

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Returns all rows, `(rows, features)`, `size` to twice as many at a time."""
        file, width = self.file, math.prod(self.shape)
        parts = np.array_split(range(self.count), max(1, self.count // size))
        file.seek(0)

        def block(count: int) -> np.ndarray:
            return np.frombuffer(file.read(4 * width * count), "<f4")

        return (block(len(part)).reshape(len(part), width) for part in parts)

    def copy_npy(self, target: IO[bytes]) -> None:
        """Writes the rows as an array of NumPy's format, piece by piece."""
        shape = (self.count, *self.shape)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(target, header)
        self.file.seek(0)
        shutil.copyfileobj(self.file, target, 1 << 20)


# === Files ===


def _write(out: Path, rows: dict[str, _Rows], names: dict[str, Sequence[str]]) -> None:
    """Writes features and names in the format that the file's ending says."""
    if out.suffix == ".npy":
        with out.open("wb") as file:
            (one,) = rows.values()
            one.copy_npy(file)
    elif out.suffix == ".npz":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for name, one in rows.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    one.copy_npy(member)
                # Not on the disk twice for longer than need be.
                one.file.close()
            for name, values in names.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.array(values, dtype=np.str_))
    else:
        with h5py.File(out, "w") as file:
            for name, one in rows.items():
                data = file.create_dataset(name, (one.count, *one.shape), "<f4")
                start = 0
                for block in one.blocks(32):
                    data[start : start + len(block)] = block.reshape(-1, *one.shape)
                    start += len(block)
            for name, values in names.items():
                # Bytes, as file names are: they need not be UTF-8.
                encoded = [os.fsencode(value) for value in values]
                file.create_dataset(name, (len(encoded),), h5py.string_dtype(), encoded)


def _write_table(out: Path, rows: list[dict[str, str]]) -> None:
    # As file names are, which need not be UTF-8.
    with out.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def provenance(model: AlexNet) -> dict[str, Any]:
    """Returns what is known of a model's weights, and the versions, for JSON."""
    values = hashlib.sha256()
    for array in model.get_weights():
        values.update(np.ascontiguousarray(array))
    return {
        "architecture": model.metadata.architecture,
        "weights": model.metadata.weights,
        "file_digest": model.metadata.digest,
        # Of all variables' bytes, in the model's order: those of own networks too.
        "values_digest": f"sha256:{values.hexdigest()}",
        "precision": sorted({layer.compute_dtype for layer in model.layers}),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
