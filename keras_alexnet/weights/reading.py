"""Weight files by content: reads any known format, whatever the file is called.

The file is mapped into memory, so that readers look at its bytes where they are. What
they return is copied out of it, and stays as it is when the file changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from keras_alexnet.weights import caffe, hdf5, keras_file, npy, onnx_graph, pytorch
from keras_alexnet.weights.buffers import open_zip
from keras_alexnet.weights.protobuf import Message
from keras_alexnet.weights.pytorch import StateDict
from keras_alexnet.weights.weight_file import WeightFile, WeightFileError

# What readers raise that meet something else than they expect.
_DAMAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RecursionError, struct.error, SafetensorError),
)
# Files that people have in place of weights, by their start.
_ADVICE = {
    b"\x80": "a plain pickle. Save the state dict with torch.save, or as safetensors",
    b"version https://": "a pointer of Git LFS: get the file itself with git lfs pull",
    b"<": "a web page, not the file: download it again",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
}
_FORMATS = (
    "PyTorch .pth and .safetensors, Caffe .caffemodel, ONNX, bvlc_alexnet.npy, "
    "Keras .keras and .weights.h5"
)


def read_weights(
    path: str | Path, *, mean: str | Path | None = None, prefix: str | None = None
) -> WeightFile:
    """Reads the weights of an AlexNet from a file of any known format.

    Nothing in the file is executed, and no memory is taken for what it claims to hold.

    Args:
        path: A file of PyTorch (`.pth`, both layouts; `.safetensors`), Caffe
            (`.caffemodel`), ONNX, `bvlc_alexnet.npy`, or Keras (`.keras`,
            `.weights.h5`), under any name.
        mean: Caffe's mean image (`.binaryproto`) that goes with it.
        prefix: Of a PyTorch checkpoint with several networks, what the keys of one
            begin with, such as `"teacher"` or `"model_ema"`.

    Raises:
        WeightFileError: There is no such file, it is damaged, of an unknown format, or
            holds no AlexNet, or several.
    """
    with _mapped(path) as buffer:
        weights = _read(buffer, Path(path))
        if isinstance(weights, StateDict):
            weights = pytorch.from_state_dict(weights.tensors, weights.format, prefix)
        _check_finite(weights)
    weights = dataclasses.replace(weights, path=Path(path))
    if mean is not None:
        weights = dataclasses.replace(weights, mean_image=read_mean(mean))
    return weights


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a file of PyTorch, by key, whatever they belong to.

    Raises:
        WeightFileError: There is no such file, it is damaged, or no file of PyTorch.
    """
    with _mapped(path) as buffer:
        found = _read(buffer, Path(path))
        if not isinstance(found, StateDict):
            raise WeightFileError("Expected a file of PyTorch.")
        return {key: np.array(read()) for key, read in found.tensors.items()}


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
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Not closed here: an error's traceback may still hold views of it.
        yield memoryview(mapped)
    except _DAMAGE as error:
        # One line, whatever the file has put into it.
        what = " ".join(str(error)[:1500].split())
        if isinstance(error, WeightFileError):
            raise WeightFileError(f"{path}: {what}") from error.__cause__
        raise WeightFileError(f"{path}: the file is damaged ({what}).") from error


def _check_finite(weights: WeightFile) -> None:
    for name, arrays in weights.arrays().items():
        # Both pass NaN on, and take no memory.
        if not np.isfinite([(np.min(one), np.max(one)) for one in arrays]).all():
            raise WeightFileError(
                f"The weights of {name} have NaN or infinity in them."
            )


def _read(buffer: memoryview, path: Path) -> WeightFile | StateDict:
    start = bytes(buffer[:16])
    if start.startswith(b"PK\3\4"):
        return _read_zip(buffer)
    if start.startswith(hdf5.MAGIC):
        return keras_file.read_hdf5(buffer)
    if start.startswith(npy.MAGIC):
        return npy.read(buffer)
    if start.startswith(pytorch.LEGACY_MAGIC):
        return pytorch.read_legacy(buffer)
    header_size = int.from_bytes(start[:8], "little")
    if header_size < len(buffer) and start[8:9] == b"{":
        return pytorch.read_safetensors(path, buffer, header_size)
    for mark, what in _ADVICE.items():
        if start.startswith(mark):
            raise WeightFileError(f"This is {what}.")
    kind = _protobuf_kind(buffer)
    if kind == "onnx":
        return onnx_graph.read(buffer, path.parent)
    if kind == "caffe":
        return caffe.read(buffer)
    if kind == "mean":
        raise WeightFileError(
            "This is a mean image, which goes with a .caffemodel: "
            "read_weights(caffemodel, mean=...)."
        )
    raise WeightFileError(f"The file is of none of the known formats: {_FORMATS}.")


def _read_zip(buffer: memoryview) -> WeightFile | StateDict:
    members = open_zip(buffer)
    if "model.weights.h5" in members:
        return keras_file.read_archive(buffer, members)
    for mark, load in (("/code/", "torch.jit"), ("/archive_format", "torch.export")):
        if any(mark in name for name in members):
            raise WeightFileError(
                f"This is a program. Save {load}.load(path).state_dict() with "
                "torch.save, and read that."
            )
    if any(name.endswith("/data.pkl") for name in members):
        return pytorch.read_zip(buffer, members)
    raise WeightFileError(
        "The zip archive holds neither a PyTorch state dict nor a Keras model: "
        f"{', '.join(repr(name[:40]) for name in list(members)[:5]) or 'nothing'}."
    )


def _protobuf_kind(buffer: memoryview) -> str | None:
    """Tells messages apart, which have no mark, by the fields that they have."""
    try:
        fields = {number: value for number, value in Message(buffer).fields}
    except WeightFileError:
        return None
    if isinstance(fields.get(1), int) and 7 in fields and 5 not in fields:
        return "onnx"
    if 100 in fields or isinstance(fields.get(2), memoryview):
        return "caffe"
    return "mean" if fields.keys() & {5, 8} else None
