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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress

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
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.model import AlexNet

# Images that are named rather than passed over: nothing here decodes them.
UNSUPPORTED_SUFFIXES = (".avif", ".heic", ".heif", ".jp2", ".jxl")
# What decides the numbers, beside the network.
PACKAGES = ("keras-alexnet", "keras", "tensorflow", "numpy", "scikit-learn", "pillow")
# Images that a PCA takes at a time, if its components are not more.
PCA_IMAGES = 256


# === Reduction ===


@dataclasses.dataclass(frozen=True)
class Reduction:
    """Reduction of features to fewer numbers, written as `pca(100)`.

    `pca(k)`: the first k principal components, by scikit-learn's `IncrementalPCA`
    (Ross et al. 2008, https://doi.org/10.1007/s11263-007-0075-7), of at least 256
    images at a time; of no more images than that, it is the exact one. `projection(k)`:
    a very sparse random projection (Li, Hastie and Church 2006,
    https://doi.org/10.1145/1150402.1150436), by scikit-learn's
    `SparseRandomProjection`. With s the square root of the number of features, their
    row is multiplied by a matrix of k columns whose entries are -sqrt(s / k) and
    sqrt(s / k), each with probability 1 / 2s, and 0 otherwise.

    Attributes:
        kind: `"pca"` or `"projection"`.
        count: k, the numbers that are left.
        seed: Decides the random matrix.
    """

    kind: str
    count: int
    seed: int = 0

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> Reduction:
        """Reads the written form.

        Raises:
            UserError: It is none.
        """
        found = re.fullmatch(r"(pca|projection)\(([1-9]\d*)\)", text)
        if not found:
            raise UserError(
                f"Features are reduced by pca(k) or projection(k). Received: {text!r}"
            )
        return cls(found[1], int(found[2]), seed)

    def projection(self, width: int) -> Callable[[np.ndarray], np.ndarray]:
        """Returns the random projection of `(images, width)`."""
        # An import of 0.7 s.
        from sklearn.random_projection import SparseRandomProjection

        projection = SparseRandomProjection(self.count, random_state=self.seed)
        return projection.fit(np.zeros((1, width))).transform

    def principal_components(
        self, blocks: Callable[[int], Iterator[np.ndarray]]
    ) -> Iterator[np.ndarray]:
        """Yields the principal components of rows that are read twice.

        Args:
            blocks: Returns all rows, in blocks of so many at least.
        """
        from sklearn.decomposition import IncrementalPCA

        pca, size = IncrementalPCA(self.count), max(self.count, PCA_IMAGES)
        for block in blocks(size):
            # In double precision: single ones lose digits where the mean is large.
            pca.partial_fit(block.astype(np.float64))
        for block in blocks(size):
            yield pca.transform(block)


# === Images ===


@dataclasses.dataclass(frozen=True)
class Stimuli:
    """Images in an order, and what is said of each.

    Attributes:
        root: What their paths are relative to.
        columns: The names of what is said, `path` among them.
        rows: For each image, a value for each column.
    """

    root: Path
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    @classmethod
    def open(cls, where: str | Path) -> Stimuli:
        """Lists the images of a folder, or those that a CSV file lists.

        Args:
            where: A folder, whose sub-folders are searched too; or a CSV file whose
                first row names its columns, `path` among them: relative to the file.

        Raises:
            UserError: There is no such folder, file or column, or no image.
        """
        where = Path(where).expanduser()
        if where.is_dir():
            columns, rows = ("path",), [(file,) for file in image_files(where)]
            if not rows:
                raise UserError(f"{where} has no images ({', '.join(IMAGE_SUFFIXES)}).")
            return cls(where, columns, rows)
        if not where.is_file():
            raise UserError(f"No such folder or list of images: {where}")
        try:
            # Spreadsheets put a mark before the first character.
            with where.open(encoding="utf-8-sig", newline="") as file:
                columns, *rows = map(tuple, csv.reader(file, strict=True))
        except (UnicodeDecodeError, ValueError, csv.Error) as error:
            raise UserError(f"{where} is no CSV file in UTF-8: {error}") from None
        if columns.count("path") != 1 or not rows:
            raise UserError(
                f"The first row of {where} must name the column path, and others list "
                f"images. Received: {', '.join(columns)}"
            )
        for number, row in enumerate(rows, start=2):
            if len(row) != len(columns) or not row[columns.index("path")]:
                raise UserError(
                    f"Row {number} of {where} must have {len(columns)} values, and a "
                    f"path. Received: {', '.join(row) or 'nothing'}"
                )
        return cls(where.parent, columns, rows)

    @property
    def paths(self) -> list[str]:
        """The images' paths, as they are written."""
        column = self.columns.index("path")
        return [row[column] for row in self.rows]


def image_files(folder: str | Path) -> list[str]:
    """Lists the images below a folder, those of formats that cannot be read too.

    Returns:
        Paths relative to the folder, in the order of their parts.
    """
    suffixes = (*IMAGE_SUFFIXES, *UNSUPPORTED_SUFFIXES)
    files = visible_files(Path(folder))
    return [file for file in files if file.lower().endswith(suffixes)]


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
    irregular = set(filter(is_irregular, files))
    # A pipe would be waited for.
    paths = Strings(os.devnull if file in irregular else file for file in files)
    labels = np.zeros(len(files), np.int32)
    split = file_split(Path(), paths, labels, 1, skipped)
    batches = evaluation_batches(split, preprocessing, batch_size)
    console = Console(stderr=True)
    with Progress(
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,
    ) as progress:
        task = progress.add_task(description, total=len(files))
        starts = range(0, len(files), batch_size)
        for start, (images, _, weights) in zip(starts, batches, strict=True):
            reasons = dict(skipped)
            read = []
            for index, weight in enumerate(weights.numpy(), start):
                if index < len(files):
                    is_regular = files[index] not in irregular
                    why = reasons[split.name(index)] if not weight else None
                    read.append(why if is_regular else "not a regular file")
            yield images, read
            progress.advance(task, len(read))


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


def extract_features(
    model: AlexNet,
    preprocessing: Preprocessing,
    images: str | Path,
    layers: Sequence[str],
    out: str | Path,
    *,
    batch_size: int = 64,
    reduction: Reduction | None = None,
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
        images: A folder of images, or a CSV file that lists some; see `Stimuli.open`.
        layers: As in `feature_extractor`.
        out: The file to write, its name ending in .npy, .npz, .h5 or .hdf5.
        batch_size: Images per pass.
        reduction: To fewer numbers per image and layer; None keeps all.

    Returns:
        What was written, and what was not.

    Raises:
        ValueError: There is no such folder, list, layer, or image that can be read,
            nothing to reduce, or `out` is no place to write to.
    """
    out = Path(out).expanduser()
    if out.suffix not in WRITERS:
        endings = ", ".join(WRITERS)
        raise UserError(f"Features are written as one of {endings}. Received: {out}")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1. Received: {batch_size}")
    extractor = feature_extractor(model, layers)
    reserved = {"files", "skipped"} & set(extractor.output)
    if reserved:
        raise UserError(f"{reserved.pop()} cannot be the name of a layer here.")
    if out.suffix == ".npy" and len(extractor.output) > 1:
        raise UserError(f"An .npy file holds one layer. Received: {', '.join(layers)}")
    if not out.parent.is_dir():
        raise UserError(f"No such folder: {out.parent}")
    stimuli = Stimuli.open(images)
    channels_last = keras.config.image_data_format() == "channels_last"
    height = model.inputs[0].shape[1 if channels_last else 2]
    if height is not None:
        preprocessing = preprocessing.with_image_size(height)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ended_in_order())

        # Beside the result, because features may be larger than what /tmp takes;
        # without a name, so that nothing is left however the process ends.
        def temporary() -> IO[bytes]:
            return stack.enter_context(tempfile.TemporaryFile(dir=out.parent))

        rows = {name: Rows(temporary()) for name in extractor.output}
        size = min(batch_size, len(stimuli.rows))
        kept, skipped = _extract(
            extractor, preprocessing, stimuli, rows, size, reduction
        )
        if reduction and reduction.kind == "pca":
            for name in rows:
                rows[name] = _reduced(name, rows[name], reduction, temporary())
        table = [stimuli.rows[index] for index in kept]
        files = Stimuli(stimuli.root, stimuli.columns, table).paths
        shapes = {name: one.shape for name, one in rows.items()}
        found = Extraction(tuple(files), tuple(skipped), shapes)
        with replacing(out) as partial:
            WRITERS[out.suffix](partial, rows, found)
            about = _about(model, preprocessing, found, reduction)
            write_whole(Path(f"{out}.json"), json.dumps(about, indent=2))
            with replacing(Path(f"{out}.csv")) as beside:
                _write_table(beside, stimuli.columns, table)
    return found


def _extract(
    extractor: keras.Model,
    preprocessing: Preprocessing,
    stimuli: Stimuli,
    rows: dict[str, Rows],
    batch_size: int,
    reduction: Reduction | None,
) -> tuple[list[int], list[tuple[str, str]]]:
    """Appends the features of images; returns which were read, and which not."""
    paths, projections = stimuli.paths, {}
    kept, skipped, done = [], [], 0
    files = [os.path.join(stimuli.root, path) for path in paths]
    for features, read in features_of_files(
        extractor, preprocessing, files, batch_size
    ):
        for index, why in enumerate(read, done):
            if why is None:
                kept.append(index)
            else:
                skipped.append((paths[index], why))
        done += len(read)
        for name, values in features.items():
            if reduction:
                values = values.reshape(len(values), -1)
                width = values.shape[1]
                if reduction.count > width:
                    raise UserError(
                        f"{name} has {width} features, fewer than {reduction.count}."
                    )
                if reduction.kind == "projection":
                    if name not in projections:
                        projections[name] = reduction.projection(width)
                    values = projections[name](values)
            rows[name].append(values)
    if not kept:
        path, why = skipped[0]
        raise UserError(
            f"No image in {stimuli.root} can be read; the first that was tried: "
            f"{path}: {why}"
        )
    return kept, skipped


def features_of_files(
    extractor: keras.Model,
    preprocessing: Preprocessing,
    files: Sequence[str],
    batch_size: int,
) -> Iterator[tuple[dict[str, np.ndarray], list[str | None]]]:
    """Yields what layers make of image files, batch by batch.

    Args:
        extractor: From `feature_extractor`.
        preprocessing: What the network expects of images.
        files: Their paths.
        batch_size: Images per pass.

    Yields:
        By name, float32 of `(images, ...)`, the images that can be read, or nothing
        where none can; and for each file None, or the reason why it cannot be read.
    """
    channels_first = keras.config.image_data_format() == "channels_first"

    @tf.function(autograph=False)
    def run(images):
        if channels_first:
            images = tf.transpose(images, (0, 3, 1, 2))
        outputs = extractor(images, training=False)
        return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}

    for images, read in image_batches(
        files, preprocessing, batch_size, "Extracting features"
    ):
        good = np.array([why is None for why in read])
        found = run(images) if good.any() else {}
        yield {k: v.numpy()[: len(read)][good] for k, v in found.items()}, read


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


class Rows:
    """Array that grows row by row in an open file, float32 of one shape each.

    Attributes:
        file: The rows' bytes.
        count: How many there are.
        shape: Of a row, once there is one.
    """

    def __init__(self, file: IO[bytes]):
        self.file, self.count, self.shape = file, 0, ()

    def append(self, values: np.ndarray) -> None:
        """Writes rows of `(rows, ...)`."""
        self.count, self.shape = self.count + len(values), values.shape[1:]
        self.file.write(np.ascontiguousarray(values, "<f4").data)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yields all rows, `(rows, features)`, `size` to twice as many at a time."""
        width = math.prod(self.shape)
        self.file.seek(0)
        for part in np.array_split(range(self.count), max(1, self.count // size)):
            data = self.file.read(4 * width * len(part))
            yield np.frombuffer(data, "<f4").reshape(len(part), width)


def _reduced(name: str, rows: Rows, reduction: Reduction, file: IO[bytes]) -> Rows:
    """Returns the principal components of rows."""
    if rows.count < reduction.count:
        raise UserError(
            f"{reduction.count} principal components of {name} need as many images. "
            f"Received: {rows.count}"
        )
    result = Rows(file)
    for block in reduction.principal_components(rows.blocks):
        result.append(block)
    # Not on the disk twice for longer than need be.
    rows.file.close()
    return result


# === Files ===


def _write_npz(out: Path, rows: dict[str, Rows], found: Extraction) -> None:
    """Writes an .npz file of features, copied piece by piece, and names."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, one in rows.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _copy_npy(member, one)
            one.file.close()
        for name, values in _names(found).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.array(values, dtype=np.str_))


def _write_npy(out: Path, rows: dict[str, Rows], found: Extraction) -> None:
    with out.open("wb") as file:
        _copy_npy(file, *rows.values())


def _copy_npy(target: IO[bytes], rows: Rows) -> None:
    header = {
        "descr": "<f4",
        "fortran_order": False,
        "shape": (rows.count, *rows.shape),
    }
    np.lib.format.write_array_header_2_0(target, header)
    rows.file.seek(0)
    shutil.copyfileobj(rows.file, target, 1 << 20)


def _write_hdf5(out: Path, rows: dict[str, Rows], found: Extraction) -> None:
    with h5py.File(out, "w") as file:
        for name, one in rows.items():
            data = file.create_dataset(name, (one.count, *one.shape), "<f4")
            start = 0
            for block in one.blocks(PCA_IMAGES):
                data[start : start + len(block)] = block.reshape(-1, *one.shape)
                start += len(block)
        for name, values in _names(found).items():
            # Bytes, as file names are: they need not be UTF-8.
            encoded = [os.fsencode(value) for value in values]
            file.create_dataset(name, (len(encoded),), h5py.string_dtype(), encoded)


def _names(found: Extraction) -> dict[str, Sequence[str]]:
    return {"files": found.files, "skipped": [path for path, _ in found.skipped]}


WRITERS: dict[str, Callable[[Path, dict[str, Rows], Extraction], None]] = {
    ".npz": _write_npz,
    ".npy": _write_npy,
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
}


def _write_table(
    out: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]
) -> None:
    # As file names are, which need not be UTF-8.
    with out.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _about(
    model: AlexNet,
    preprocessing: Preprocessing,
    found: Extraction,
    reduction: Reduction | None,
) -> dict[str, Any]:
    """Returns what decided the numbers, for JSON."""
    values = hashlib.sha256()
    for array in model.get_weights():
        values.update(np.ascontiguousarray(array))
    metadata = model.metadata
    return {
        "architecture": metadata.architecture,
        "weights": metadata.weights,
        "file_digest": metadata.digest,
        # Of all variables' bytes, in the model's order: those of own networks too.
        "values_digest": f"sha256:{values.hexdigest()}",
        "precision": model.dtype_policy.name,
        "preprocessing": preprocessing.to_config(),
        "layers": found.shapes,
        "reduction": reduction and dataclasses.asdict(reduction),
        "images": len(found.files),
        "skipped": found.skipped,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
