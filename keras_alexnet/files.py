"""Atomic writes: files and directories that are there whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

# What a file is called while it is written.
UNFINISHED = ".partial-"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the name under which to write a file that then takes the place of `path`.

    The content is on disk before the name is: after a crash or on a full disk, what
    stood at `path` before still does.

    Args:
        path: Where the file shall be.

    Yields:
        A path beside it, with the same ending.
    """
    partial = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)
    except BaseException:
        # On a full disk, what could not be finished would only take more room.
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Gives the name under which to make a directory that then replaces `path`.

    Args:
        path: Where the directory shall be.

    Yields:
        A path beside it, where nothing is.
    """
    partial = path.with_name(f"{UNFINISHED}{path.name}")
    old = path.with_name(f"{UNFINISHED}old-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
    finally:
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a file so that it is there whole or not at all, whatever happens."""
    if isinstance(content, str):
        content = content.encode()
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_table(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Writes rows as a CSV file, whole or not at all.

    Columns are those of all rows, in the order in which they come up.
    """
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(k for row in rows for k in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def is_unfinished(path: Path) -> bool:
    """Says whether a file is one that was being written when its process was killed."""
    return path.name.startswith(UNFINISHED)


def discard_unfinished(directory: Path) -> None:
    """Deletes what killed processes left half-written in a directory."""
    for path in directory.glob(f"{UNFINISHED}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def digest_of(path: str | Path, algorithm: str = "sha256") -> str:
    """Returns the digest of a file's content, as `"sha256:..."`."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return f"{algorithm}:{digest.hexdigest()}"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
