"""A CSV file that lists images with their labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_alexnet.data.examples import Examples, Source
from keras_alexnet.data.folder import file_examples
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.data.strings import Strings
from keras_alexnet.errors import UserError

PARTS = {"train": 0, "val": 1, "validation": 1, "test": 1}


def csv_file(path: Path, seed: int, test_fraction: float, channels: int) -> Source:
    """Opens the images that a CSV file lists.

    Its first row names the columns: `path` (relative to the file), `label` (a name or a
    number; the classes are all that occur, in order) and perhaps `split` (train, and
    val, validation or test). Other columns are ignored. Rows without a path or a label
    are named among what is skipped.

    Args:
        path: The file.
        seed: Decides which images are kept for testing.
        test_fraction: Share of each class that is kept for testing, where there is no
            column `split`.
        channels: 1 for grey, 3 for RGB.

    Raises:
        ValueError: The file is missing, is no such table, or holds nothing to learn
            from.
    """
    skipped = Skipped()
    # Classes are numbered as they occur, then in their own order.
    numbers: dict[str, int] = {}
    labels: list[int] = []
    parts: list[int] = []

    def paths() -> Iterator[str]:
        for file, label, part in _rows(path, skipped):
            labels.append(numbers.setdefault(label, len(numbers)))
            parts.append(part)
            yield file

    files = Strings(paths())
    class_names = _in_order(numbers)
    if len(class_names) < 2:
        raise UserError(
            f"{path} lists {len(files)} images of {len(class_names)} classes: nothing "
            "to tell apart."
        )
    places = {name: place for place, name in enumerate(class_names)}
    renumbered = np.array([places[name] for name in numbers], np.int32)[labels]
    examples = file_examples(path.parent, files, renumbered, len(places), skipped)
    if -1 in parts:
        return Source.split(class_names, channels, examples, seed, test_fraction)
    return _split_already(path, class_names, channels, examples, np.array(parts))


def _split_already(
    path: Path,
    class_names: tuple[str, ...],
    channels: int,
    examples: Examples,
    parts: np.ndarray,
) -> Source:
    train, test = (examples.select(np.flatnonzero(parts == part)) for part in (0, 1))
    if not len(test):
        raise UserError(f"{path} keeps no images for testing: no split is val or test.")
    untaught = set(np.unique(test.labels)) - set(np.unique(train.labels))
    if untaught:
        raise UserError(
            f"{path} has a class {class_names[min(untaught)]!r} to test, of which "
            "there is nothing to learn from."
        )
    return Source(class_names, channels, train, test, examples.skipped)


def _rows(path: Path, skipped: Skipped) -> Iterator[tuple[str, str, int]]:
    """Yields path, label and part of each image: 0 train, 1 test, -1 not said."""
    try:
        # Spreadsheets put a mark before the first character.
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            if not {"path", "label"} <= set(columns):
                raise UserError(
                    f"The first row of {path} must name the columns path and label. "
                    f"Received: {', '.join(columns) or 'nothing'}"
                )
            for row in rows:
                image, label = ((row[key] or "").strip() for key in ("path", "label"))
                if not image or not label:
                    what = "path" if not image else "label"
                    skipped.add(f"{path}:{rows.line_num}", f"the row has no {what}")
                    continue
                part = row.get("split", "").strip() if "split" in columns else None
                if part is not None and part not in PARTS:
                    raise UserError(
                        f"Row {rows.line_num} of {path}: the split must be one of "
                        f"{', '.join(PARTS)}. Received: {part!r}"
                    )
                yield image, label, -1 if part is None else PARTS[part]
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file in UTF-8: {error}") from None


def _in_order(labels: dict[str, int]) -> tuple[str, ...]:
    """Sorts labels, numbers by their size."""
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))
