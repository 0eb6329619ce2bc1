"""TensorFlow Datasets: any of its sets for the classification of images.

`tfds:NAME[/CONFIG][:VERSION]`, and options behind it: `tfds:NAME?train=train[:90%]&
test=train[90%:]&dir=FOLDER&window=2048`. `train` and `test` are splits as TFDS writes
them; by default, train, and validation or test where there are such, or else the last
part of train. `dir` is TFDS's folder of data sets. Sets that have not been prepared are
prepared first; `imagenet2012` from the tar files in its `downloads/manual`.

The images come as a stream, in the order of the files. Training shuffles within blocks
of `window` consecutive images, which are kept in memory while they are used: 2,048 take
a quarter of a gigabyte for ImageNet, whose files are shuffled when they are prepared.
A run that continues skips what came before without decoding it.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_datasets

from keras_alexnet.data.examples import Examples, Source, digest
from keras_alexnet.data.options import parse_options
from keras_alexnet.data.skipped import Skipped

OPTIONS = {"train": "", "test": "", "dir": "", "window": "2048"}


def tfds(argument: str, test_fraction: float, channels: int | None) -> Source:
    """Opens a data set of TFDS.

    Args:
        argument: Its name and options, as said above.
        test_fraction: Share of the training split that is kept for testing where there
            is no other split and no option names one; whole percents.
        channels: 1 for grey, 3 for RGB; what the images have by default.

    Raises:
        ValueError: There is no such set, it cannot be prepared, or it is not one of
            labelled images.
    """
    name, options = parse_options(argument, OPTIONS)
    if not options["window"].isdecimal() or not int(options["window"]):
        raise ValueError(
            f"The option window must be a number. Received: {options['window']!r}"
        )
    builder = _builder(name, options["dir"] or None)
    image, label = _features(builder)
    train, test = _splits(builder, options, test_fraction)
    skipped = Skipped()
    parts = [
        _examples(builder, split, image, label, int(options["window"]), skipped)
        for split in (train, test)
    ]
    found = builder.info.features[image].shape[-1]
    names = tuple(builder.info.features[label].names)
    return Source(names, channels or (1 if found == 1 else 3), *parts, skipped)


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
        raise ValueError(f"TFDS cannot open {name}: {first[0]}") from None
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
    raise ValueError(
        f"{builder.name} is not a set of images with one label each: its features are "
        f"{', '.join(features)}."
    )


def _splits(
    builder: tensorflow_datasets.core.DatasetBuilder,
    options: dict[str, str],
    test_fraction: float,
) -> tuple[str, str]:
    train, test = options["train"], options["test"]
    held_out = [name for name in ("validation", "test") if name in builder.info.splits]
    if not test and held_out:
        test = held_out[0]
    if not test:
        percent = min(max(round(100 * (1 - test_fraction)), 1), 99)
        return train or f"train[:{percent}%]", f"train[{percent}%:]"
    return train or "train", test


def _examples(
    builder: tensorflow_datasets.core.DatasetBuilder,
    split: str,
    image: str,
    label: str,
    window: int,
    skipped: Skipped,
) -> Examples:
    decode = tensorflow_datasets.decode
    try:
        images = builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders=decode.PartialDecoding(
                {image: True, label: True}, decoders={image: decode.SkipDecoding()}
            ),
            # One file after the other, so that the order is one that can be named.
            read_config=tensorflow_datasets.ReadConfig(
                interleave_cycle_length=1, try_autocache=False, skip_prefetch=True
            ),
        )
    except (AssertionError, KeyError, ValueError) as error:
        raise ValueError(f"{builder.name} has no split {split!r}: {error}") from None
    count = int(images.cardinality())
    if count < 1:
        raise ValueError(f"The split {split!r} of {builder.name} is empty.")
    pairs = images.map(lambda row: (row[image], tf.cast(row[label], tf.int32)))
    full_name = builder.info.full_name
    return Examples(
        count,
        builder.info.features[label].num_classes,
        name=lambda index: f"{full_name}/{split}/{index}",
        read=None,
        digest=digest([full_name.encode(), split.encode(), str(count).encode()]),
        stream=pairs.skip,
        window=window,
        skipped=skipped,
    )
