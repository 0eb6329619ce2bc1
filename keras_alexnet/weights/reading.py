"""From a path to a `WeightFile`: the format is told by the content, never by the name.

The file is mapped into memory, so that readers look at its bytes where they are. What
they return is copied out of it, and stays as it is when the file changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_alexnet.weights import (
    caffe,
    keras_file,
    npy,
    onnx_graph,
    torchvision,
)
from keras_alexnet.weights.archives import open_zip
from keras_alexnet.weights.protobuf import BYTES, FIXED32, VARINT, Message
from keras_alexnet.weights.weight_file import WeightFile, WeightFileError

_FORMATS = (
    "PyTorch .pth and .safetensors, Caffe .caffemodel, ONNX, bvlc_alexnet.npy, "
    "Keras .keras and .weights.h5"
)


def read_weights(path: str | Path, *, mean: str | Path | None = None) -> WeightFile:
    """Reads the weights of an AlexNet from a file of any known format.

    Nothing in the file is executed, and no memory is taken for what it claims to hold.

    Args:
        path: A file of PyTorch (`.pth`, both layouts; `.safetensors`), Caffe
            (`.caffemodel`), ONNX, `bvlc_alexnet.npy`, or Keras (`.keras`,
            `.weights.h5`), under any name.
        mean: Caffe's mean image (`.binaryproto`) that goes with it.

    Raises:
        WeightFileError: There is no such file, it is damaged, of an unknown format, or
            holds no AlexNet.
    """
    with _mapped(path) as buffer:
        weights = _read(buffer, Path(path))
    if mean is not None:
        weights = dataclasses.replace(weights, mean_image=read_mean(mean))
    return weights


def read_mean(path: str | Path) -> np.ndarray:
    """Reads Caffe's mean image, such as `imagenet_mean.binaryproto`.

    Returns:
        float32, `(height, width, channels)`, channels in the file's order (BGR).

    Raises:
        WeightFileError: There is no such file, or it is no mean image.
    """
    with _mapped(path) as buffer:
        if _protobuf_kind(buffer) != "mean":
            raise WeightFileError("Expected a mean image, a .binaryproto of Caffe.")
        return caffe.read_mean(buffer)


@contextlib.contextmanager
def _mapped(path: str | Path) -> Iterator[memoryview]:
    """Maps a file into memory, and puts its name before what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise WeightFileError(f"No such weights file: {path}")
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise WeightFileError("The file is empty.")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Not closed here: an error's traceback may still hold views of it.
        yield memoryview(mapped)
    except WeightFileError as error:
        raise WeightFileError(f"{path}: {error}") from error.__cause__
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as e:
        raise WeightFileError(f"{path}: the file is damaged ({e}).") from e


def _read(buffer: memoryview, path: Path) -> WeightFile:
    start = bytes(buffer[:16])
    if start.startswith(b"PK\3\4"):
        return _read_zip(buffer)
    if start.startswith(keras_file.MAGIC):
        return keras_file.read_hdf5(buffer)
    if start.startswith(npy.MAGIC):
        return npy.read(buffer)
    if start.startswith(torchvision.LEGACY_MAGIC):
        return torchvision.read_legacy(buffer)
    header_size = int.from_bytes(start[:8], "little")
    if header_size < len(buffer) and start[8:9] == b"{":
        return torchvision.read_safetensors(path, buffer, header_size)
    kind = _protobuf_kind(buffer)
    if kind == "onnx":
        return onnx_graph.read(buffer)
    if kind == "caffe":
        return caffe.read(buffer)
    if kind == "mean":
        raise WeightFileError(
            "This is a mean image, which goes with a .caffemodel: "
            "read_weights(caffemodel, mean=...)."
        )
    raise WeightFileError(f"The file is of none of the known formats: {_FORMATS}.")


def _read_zip(buffer: memoryview) -> WeightFile:
    members = open_zip(buffer)
    if "model.weights.h5" in members:
        return keras_file.read_archive(buffer, members)
    if any(name.endswith("/data.pkl") for name in members):
        return torchvision.read_zip(buffer, members)
    raise WeightFileError(
        "The zip archive holds neither a PyTorch nor a Keras model: "
        f"{', '.join(repr(name[:40]) for name in list(members)[:5]) or 'nothing'}."
    )


def _protobuf_kind(buffer: memoryview) -> str | None:
    """Tells messages apart, which have no mark, by the fields that they have."""
    try:
        found = {(number, kind) for number, kind, _ in Message(buffer).fields()}
    except WeightFileError:
        return None
    if (1, VARINT) in found and (7, BYTES) in found and (5, BYTES) not in found:
        return "onnx"
    if (100, BYTES) in found or (2, BYTES) in found:
        return "caffe"
    if found & {(5, BYTES), (5, FIXED32), (8, BYTES)}:
        return "mean"
    return None
