"""Opening of datasets by name: for training, in splits; for evaluation, as they are."""

from __future__ import annotations

import re
from pathlib import Path

from keras_alexnet.data import tfrecord
from keras_alexnet.data.csv_file import open_csv
from keras_alexnet.data.dataset import Dataset
from keras_alexnet.data.decoded import open_decoded
from keras_alexnet.data.digits import open_digits
from keras_alexnet.data.folder import open_folder
from keras_alexnet.errors import UserError, unknown

KINDS = ["digits", "folder:PATH", "csv:FILE", "tfrecord:FILES"]
KINDS += ["decoded:FOLDER", "tfds:NAME"]


def open_dataset(
    spec: str,
    *,
    seed: int,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    channels: int | None = None,
) -> Dataset:
    """Opens the images that a `--data` argument names, in splits for training.

    Args:
        spec: `digits`; `folder:PATH`; `csv:FILE`; `tfrecord:FILES`, a folder or a
            pattern; `decoded:FOLDER`; or `tfds:NAME`. TFRecords and TFDS take options,
            which their modules describe.
        seed: Decides which images are kept for validation and test.
        test_fraction: How many of each class are kept for testing, unless the dataset
            is already split.
        validation_fraction: How many of each class's other images are kept for
            validation, unless there is a validation split; 0 for none.
        channels: 1 for grey, 3 for RGB; what the dataset has by default.

    Raises:
        ValueError: The dataset is unknown, missing, or holds nothing to learn from.
    """
    found = _open(spec, channels, test_fraction)
    return found.divide(seed, test_fraction, validation_fraction)


def open_for_evaluation(
    spec: str, *, split: str | None = None, channels: int | None = None
) -> Dataset:
    """Opens the images that a `--data` argument names, to evaluate a network by them.

    Nothing is split: an unsplit dataset is used whole, also one of a single image or a
    single class. Of one that comes in splits, training images are left out unless they
    are asked for.

    Args:
        spec: As for `open_dataset`.
        split: `train`, `val`, `test` or `all`; by default `test`, or `val` where there
            is no test split, or all images where there are no such splits.
        channels: 1 for grey, 3 for RGB; what the dataset has by default.

    Returns:
        The dataset, of whose `splits` all are to be used.

    Raises:
        ValueError: The dataset or the split is unknown or missing.
    """
    return _open(spec, channels).choose(split)


def _open(
    spec: str, channels: int | None, test_fraction: float | None = None
) -> Dataset:
    """Opens a dataset in the splits that it comes in."""
    kind, _, argument = spec.partition(":")
    path = Path(argument).expanduser()
    if spec == "digits":
        return open_digits(channels or 1)
    if not argument:
        kind = ""
    if kind == "folder":
        return open_folder(path, channels or 3)
    if kind == "csv":
        return open_csv(path, channels or 3)
    if kind == "tfrecord":
        pattern, options = parse_options(argument, tfrecord.OPTIONS)
        return tfrecord.open_tfrecord(pattern, options, channels or 3)
    if kind == "decoded":
        return open_decoded(path, channels)
    if kind == "tfds":
        # Imported where it is asked for, for it takes a second.
        from keras_alexnet.data import tfds

        name, options = parse_options(argument, tfds.OPTIONS)
        return tfds.open_tfds(name, options, channels, test_fraction)
    raise UserError(unknown(spec, "data source", KINDS))


def parse_options(argument: str, known: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Separates a name from its options, as in `NAME?key=value&key=value`.

    A question mark begins them only where a word and an equals sign follow it, because
    patterns of file names have question marks too.

    Args:
        argument: What follows the kind of dataset.
        known: The options that there are, with their defaults.

    Raises:
        ValueError: An option is unknown.
    """
    name, mark, text = re.match(r"(?s)(.*?)(?:(\?)(\w+=.*))?$", argument).groups()
    options = dict(known)
    for option in text.split("&") if mark else []:
        key, _, value = option.partition("=")
        if key not in known:
            raise UserError(unknown(key, "option of the source", known))
        options[key] = value
    return name, options
