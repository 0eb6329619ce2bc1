"""CSV dataset: a table of image files with their labels, and perhaps splits."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from keras_alexnet.data.dataset import SPLIT_NAMES, Dataset, digest_of
from keras_alexnet.data.folder import file_split
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.data.strings import Strings
from keras_alexnet.errors import UserError


def open_csv(path: Path, channels: int) -> Dataset:
    """Opens the images that a CSV file lists.

    Its first row names the columns: `path` (relative to the file), `label` (a name or a
    number; the classes are all that occur, in order) and perhaps `split` (train, val,
    test, or their longer names). Other columns are ignored. Rows without a path or a
    label are named among what is skipped.

    Args:
        path: The file.
        channels: 1 for grey, 3 for RGB.

    Raises:
        ValueError: The file is missing, or is no such table.
    """
    skipped = Skipped()
    # Classes are numbered as they occur, then in their own order.
    numbers: dict[str, int] = {}
    labels: list[int] = []
    said: list[str] = []

    def paths() -> Iterator[str]:
        for file, label, split in _rows(path, skipped):
            labels.append(numbers.setdefault(label, len(numbers)))
            said.append(split)
            yield file

    files = Strings(paths())
    if not len(files):
        raise UserError(f"{path} lists no images.")
    # Numbers by their size.
    are_numbers = all(label.isdecimal() for label in numbers)
    class_names = tuple(sorted(numbers, key=int if are_numbers else None))
    order = {name: position for position, name in enumerate(class_names)}
    renumbered = np.array([order[name] for name in numbers], np.int32)[labels]
    images = file_split(path.parent, files, renumbered, len(order), skipped)
    found = {
        name: images.select(np.flatnonzero(np.array(said) == name))
        for name in ("train", "validation", "test")
        if name in said
    }
    earlier = ()
    if len(found) == 3:
        # Earlier versions tested by both.
        held_out = images.select(np.flatnonzero(np.array(said) != "train"))
        earlier = (digest_of(found["train"], held_out),)
    splits = found or {"all": images}
    return Dataset(str(path), class_names, channels, splits, skipped, 0, earlier)


def read_table(path: Path, columns: Iterable[str]) -> Iterator[tuple[int, dict]]:
    """Yields the rows of a CSV file, each with the number of its last line.

    Args:
        path: The file, in UTF-8. Its first row names the columns.
        columns: Those that there must be.

    Raises:
        ValueError: There is no such file, it is no table, or has not these columns.
    """
    try:
        # Spreadsheets put a mark before the first character.
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            named = rows.fieldnames or ()
            if missing := [column for column in columns if column not in named]:
                raise UserError(
                    f"The first row of {path} must name the column {missing[0]}. "
                    f"Received: {', '.join(named) or 'nothing'}"
                )
            for row in rows:
                yield rows.line_num, row
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file in UTF-8: {error}") from None


def _rows(path: Path, skipped: Skipped) -> Iterator[tuple[str, str, str]]:
    """Yields path, label and split of each image; "" for one that is not said."""
    for number, row in read_table(path, ("path", "label")):
        image, label = ((row[key] or "").strip() for key in ("path", "label"))
        if not image or not label:
            what = "path" if not image else "label"
            skipped.add(f"{path}:{number}", f"the row has no {what}")
            continue
        given = (row.get("split", "") or "").strip()
        split = SPLIT_NAMES.get(given.lower(), "")
        if "split" in row and not split:
            raise UserError(
                f"Row {number} of {path}: the split must be one of "
                f"{', '.join(SPLIT_NAMES)}. Received: {given!r}"
            )
        yield image, label, split
