"""TensorFlow Datasets: any of its sets for the classification of images.

`tfds:NAME[/CONFIG][:VERSION]`, and options behind it: `tfds:NAME?train=train[:90%]&
test=train[90%:]&dir=FOLDER&window=2048`. `train` and `test` are splits as TFDS writes
them; by default, train, and validation or test where there are such, or else the last
part of train. `dir` is TFDS's folder of data sets. Sets that have not been prepared are
prepared first; `imagenet2012` from the tar files in its `downloads/manual`.

TFDS keeps most sets in TFRecord files. Their records are read by their numbers, so that
training shuffles all of them, starts anywhere, and goes on behind damage.

Other sets come as a stream, in the order of their files. Training shuffles within
blocks of `window` consecutive images, which are kept in memory while they are used:
2,048 take a quarter of a gigabyte for ImageNet. A run that continues skips what came
before without decoding it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets

from keras_alexnet.data.examples import Examples, Source, digest
from keras_alexnet.data.options import parse_options
from keras_alexnet.data.record_files import Part, RecordFiles
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.errors import UserError

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
        raise UserError(
            f"The option window must be a number. Received: {options['window']!r}"
        )
    builder = _builder(name, options["dir"] or None)
    image, label = _features(builder)
    skipped = Skipped()
    opened = _Set(builder, image, label, int(options["window"]), skipped)
    (train, lost), (test, lost_too) = map(
        opened.examples, _splits(builder, options, test_fraction)
    )
    found = builder.info.features[image].shape[-1]
    names = tuple(builder.info.features[label].names)
    channels = channels or (1 if found == 1 else 3)
    return Source(names, channels, train, test, skipped, lost + lost_too)


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


@dataclasses.dataclass(frozen=True)
class _Set:
    """A data set of TFDS.

    Attributes:
        builder: Of a set that has been prepared.
        image: The feature that holds the image.
        label: The feature that holds its label.
        window: How many images of a stream are shuffled together.
        skipped: Where to name what is damaged.
    """

    builder: tensorflow_datasets.core.DatasetBuilder
    image: str
    label: str
    window: int
    skipped: Skipped

    def examples(self, split: str) -> tuple[Examples, int]:
        """Returns a split as examples, and how many more cannot be found.

        Raises:
            ValueError: There is no such split, or it is empty.
        """
        name = self.builder.name
        try:
            parts = self._parts(split)
            images = None if parts else self._stream(split)
        except (AssertionError, KeyError, ValueError) as error:
            raise UserError(f"{name} has no split {split!r}: {error}") from None
        if images is None:
            return self._from_files(parts)
        if images.cardinality() < 1:
            raise UserError(f"The split {split!r} of {name} is empty.")
        return self._from_stream(split, images), 0

    def _parts(self, split: str) -> list[Part]:
        """Returns what TFRecord files a split is in; none if it is not in such."""
        info = self.builder.info
        # A mocked set may have no splits and still give images.
        if (
            info.file_format != tensorflow_datasets.core.FileFormat.TFRECORD
            or not info.splits
        ):
            return []
        parts = [
            Part(
                Path(one.filename),
                one.examples_in_shard,
                one.skip,
                one.skip + one.take,
            )
            for one in info.splits[split].file_instructions
        ]
        return parts if all(part.path.is_file() for part in parts) else []

    @property
    def _classes(self) -> int:
        return self.builder.info.features[self.label].num_classes

    @property
    def _decoders(self) -> tensorflow_datasets.decode.PartialDecoding:
        """What leaves images encoded and all other features out."""
        decode = tensorflow_datasets.decode
        return decode.PartialDecoding(
            {self.image: True, self.label: True},
            decoders={self.image: decode.SkipDecoding()},
        )

    def _from_files(self, parts: list[Part]) -> tuple[Examples, int]:
        records = RecordFiles(parts, self.skipped)
        decoders = self._decoders
        features = decoders.extract_features(self.builder.info.features)

        def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            row = features.deserialize_example(
                records.record(index), decoders=decoders.decoders
            )
            return row[self.image], tf.cast(row[self.label], tf.int32)

        examples = Examples(
            len(records),
            self._classes,
            records.name,
            read,
            digest=records.digest,
            skipped=self.skipped,
        )
        return examples, records.lost

    def _stream(self, split: str) -> tf.data.Dataset:
        return self.builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders=self._decoders,
            # One file after the other, so that the order is one that can be named.
            read_config=tensorflow_datasets.ReadConfig(
                interleave_cycle_length=1, try_autocache=False, skip_prefetch=True
            ),
        )

    def _from_stream(self, split: str, images: tf.data.Dataset) -> Examples:
        count = int(images.cardinality())
        pairs = images.map(
            lambda row: (row[self.image], tf.cast(row[self.label], tf.int32))
        )
        full_name = self.builder.info.full_name
        return Examples(
            count,
            self._classes,
            name=lambda index: f"{full_name}/{split}/{index}",
            read=None,
            digest=digest([full_name.encode(), split.encode(), str(count).encode()]),
            stream=pairs.skip,
            window=self.window,
            skipped=self.skipped,
        )
