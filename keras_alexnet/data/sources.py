"""Sources of labelled images, opened by name."""

from __future__ import annotations

from pathlib import Path

from keras_alexnet.data.csv_file import csv_file
from keras_alexnet.data.digits import digits
from keras_alexnet.data.examples import Examples, Source
from keras_alexnet.data.folder import folder
from keras_alexnet.errors import UserError, unknown

__all__ = ["Examples", "Source", "open_source"]

KINDS = ["digits", "folder:PATH", "csv:FILE", "tfrecord:FILES", "tfds:NAME"]


def open_source(
    spec: str, *, seed: int, test_fraction: float = 0.2, channels: int | None = None
) -> Source:
    """Opens the images that a `--data` argument names.

    Args:
        spec: `digits`; `folder:PATH`; `csv:FILE`; `tfrecord:FILES`, a folder or a
            pattern; or `tfds:NAME`. The last two take options, which their modules
            describe.
        seed: Decides which images are kept for testing.
        test_fraction: Share of each class that is kept for testing, unless the source
            is already split.
        channels: 1 for grey, 3 for RGB; what the source has by default.

    Raises:
        ValueError: The source is unknown, missing, or holds nothing to learn from.
    """
    kind, _, argument = spec.partition(":")
    if spec == "digits":
        return digits(seed, test_fraction, channels or 1)
    if kind == "folder" and argument:
        return folder(Path(argument).expanduser(), seed, test_fraction, channels or 3)
    if kind == "csv" and argument:
        return csv_file(Path(argument).expanduser(), seed, test_fraction, channels or 3)
    if kind == "tfrecord" and argument:
        from keras_alexnet.data.tfrecord import tfrecord

        return tfrecord(argument, seed, test_fraction, channels or 3)
    if kind == "tfds" and argument:
        # Imported where it is asked for: it takes a second.
        from keras_alexnet.data.tfds import tfds

        return tfds(argument, test_fraction, channels)
    raise UserError(unknown(spec, "data source", KINDS))
