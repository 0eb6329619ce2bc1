"""TensorFlow Datasets (TFDS): any of its sets for the classification of images.

`tfds:NAME[/CONFIG][:VERSION]`, and options behind it: `tfds:NAME?train=train[:90%]&
validation=train[90%:]&test=test&dir=FOLDER`. `train`, `validation` and `test` are
splits as TFDS writes them; by default those of these names, but for a test split
without labels (ImageNet's). `dir` is TFDS's folder of data sets. Sets that have not
been prepared are prepared first; `imagenet2012` from the tar files in its
`downloads/manual`.

TFDS keeps sets in TFRecord files, unless told otherwise. Their records are read by
their numbers, so that training shuffles all of them, starts anywhere, and goes on
behind damage.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
import tensorflow_datasets

from keras_alexnet.data.dataset import Dataset, Split
from keras_alexnet.data.records import Part, RecordFiles
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.errors import UserError

OPTIONS = {"train": "", "validation": "", "test": "", "dir": ""}


def open_tfds(
    name: str,
    options: dict[str, str],
    channels: int | None,
    test_fraction: float | None,
) -> Dataset:
    """Opens a data set of TFDS.

    Args:
        name: Its name, as said above.
        options: Its options.
        channels: 1 for grey, 3 for RGB; what the images have by default.
        test_fraction: How much of the training split is kept for testing where there is
            no other split, in whole percents; None for nothing.

    Raises:
        ValueError: There is no such set, it cannot be prepared, or it is not one of
            labelled images.
    """
    builder = _builder(name, options["dir"] or None)
    image, label = _features(builder)
    features, skipped, lost = builder.info.features, Skipped(), {}
    decode = tensorflow_datasets.decode
    # Images stay encoded, and all other features are left out.
    decoders = decode.PartialDecoding(
        {image: True, label: True}, decoders={image: decode.SkipDecoding()}
    )
    wanted = decoders.extract_features(features)

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row = wanted.deserialize_example(record, decoders=decoders.decoders)
        return row[image], tf.cast(row[label], tf.int32)

    def opened(split: str, written: str) -> Split:
        records = _records(builder, written, skipped)
        lost[split] = records.lost
        return records.split(parse, features[label].num_classes)

    names = _splits(builder, options, test_fraction)
    found = {split: opened(split, written) for split, written in names.items()}
    if len(found) == 3 and not options["test"] and not _has_labels(found["test"]):
        del found["test"], lost["test"]
        if options["validation"] and "validation" in builder.info.splits:
            found["test"] = opened("test", "validation")
    return Dataset(
        name,
        tuple(features[label].names),
        channels or (1 if features[image].shape[-1] == 1 else 3),
        found,
        skipped,
        sum(lost.values()),
    )


def _builder(name: str, folder: str | None) -> tensorflow_datasets.core.DatasetBuilder:
    try:
        builder = tensorflow_datasets.builder(name, data_dir=folder)
        builder.download_and_prepare()
    except (
        AssertionError,
        OSError,
        RuntimeError,
        ValueError,
        # Unknown names and versions, and what cannot be downloaded.
        tensorflow_datasets.core.DatasetNotFoundError,
        tf.errors.OpError,
    ) as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"TFDS cannot open {name}: {first[0]}") from None
    return builder


def _features(builder: tensorflow_datasets.core.DatasetBuilder) -> tuple[str, str]:
    """Returns the names of the features that hold the image and its label."""
    features = builder.info.features
    keys = builder.info.supervised_keys or ()
    kinds = tensorflow_datasets.features
    if len(keys) == 2 and all(isinstance(key, str) for key in keys):
        image, label = (features[key] for key in keys)
        if isinstance(image, kinds.Image) and isinstance(label, kinds.ClassLabel):
            return keys
    raise UserError(
        f"{builder.name} is not a set of images with one label each: its features are "
        f"{', '.join(features)}."
    )


def _splits(
    builder: tensorflow_datasets.core.DatasetBuilder,
    options: dict[str, str],
    test_fraction: float | None,
) -> dict[str, str]:
    """Returns what TFDS calls each split."""
    splits = {"train": options["train"] or "train"}
    for name in ("validation", "test"):
        # Who says what to test by may mean what TFDS calls validation.
        default = "" if options["test"] or name not in builder.info.splits else name
        if options[name] or default:
            splits[name] = options[name] or default
    if len(splits) == 1 and test_fraction is not None:
        percent = min(max(round(100 * (1 - test_fraction)), 1), 99)
        splits["train"] = options["train"] or f"train[:{percent}%]"
        splits["test"] = f"train[{percent}%:]"
    return splits


def _has_labels(split: Split) -> bool:
    """Says whether the first image has a label; TFDS gives -1 where none is known."""
    try:
        return int(split.read(tf.constant(0, tf.int64))[1]) >= 0
    except tf.errors.OpError:
        return True


def _records(
    builder: tensorflow_datasets.core.DatasetBuilder, split: str, skipped: Skipped
) -> RecordFiles:
    """Returns the records of a split, which is written as TFDS does.

    Raises:
        ValueError: There is no such split, it is empty, or not in TFRecord files.
    """
    info = builder.info
    if info.file_format != tensorflow_datasets.core.FileFormat.TFRECORD:
        raise UserError(
            f"{info.full_name} is not in TFRecord files but {info.file_format}: "
            "prepare it as TFDS does by default."
        )
    try:
        parts = [
            Part(
                Path(one.filename), one.examples_in_shard, one.skip, one.skip + one.take
            )
            for one in info.splits[split].file_instructions
        ]
        if not parts:
            raise ValueError("it is empty")
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(f"{builder.name} has no split {split!r}: {error}") from None
    return RecordFiles(parts, skipped)
