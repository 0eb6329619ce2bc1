"""What a source of images is made of: examples to learn from and to judge by."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from keras_alexnet.data.skipped import Skipped
from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Examples:
    """Labelled images, numbered from zero, read as files are: encoded.

    They come in one of two ways: each by its number, or as a stream in a fixed order.

    Attributes:
        count: How many there are, damaged ones included.
        classes: Number of classes; labels are smaller.
        name: What to call an image: a path, or a place in a data set.
        read: Reads an image in a TensorFlow graph: an int64 scalar to the bytes of an
            image file, a string scalar, and its label, an int32 scalar. It may raise.
            None where there is a stream.
        digest: Differs where the images or their order differ.
        labels: int32, one per image, where they are known before the images are read.
        stream: Returns the dataset of what `read` returns, from the image of the given
            number on, in order. None where images can be read by their numbers.
        window: Of a stream, how many images are held in memory to change their order.
        skipped: What cannot be used is named there.
    """

    count: int
    classes: int
    name: Callable[[int], str]
    read: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None
    digest: str = ""
    labels: np.ndarray | None = None
    stream: Callable[[int], tf.data.Dataset] | None = None
    window: int = 1
    skipped: Skipped = dataclasses.field(default_factory=Skipped)

    def __len__(self) -> int:
        return self.count

    def load(self, index: tf.Tensor, *record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns bytes and label of an image, in a TensorFlow graph.

        Args:
            index: Number of the image.
            *record: What a stream holds of it; nothing where there is no stream.

        Raises:
            tf.errors.OpError: It cannot be read.
            tf.errors.InvalidArgumentError: The label is out of range.
        """
        encoded, label = record or self.read(index)
        label = tf.cast(label, tf.int32)
        if self.labels is not None:
            return encoded, label
        right = (label >= 0) & (label < self.classes)
        why = f"the label is none of the {self.classes} classes"
        check = tf.debugging.Assert(right, [why])
        with tf.control_dependencies([] if check is None else [check]):
            return encoded, tf.identity(label)

    def file(self, index: int) -> tf.Tensor:
        """Reads the bytes of one image.

        Raises:
            tf.errors.OpError: They cannot be read.
        """
        if self.stream is None:
            return self.read(tf.constant(index, tf.int64))[0]
        return self.stream(index).take(1).get_single_element()[0]

    def select(self, indices: np.ndarray) -> Examples:
        """Returns some of the images, in the order given; not of a stream.

        Args:
            indices: int64, which ones.
        """
        with tf.init_scope(), tf.device("CPU:0"):
            chosen = tf.constant(indices, tf.int64)
        return dataclasses.replace(
            self,
            count=len(indices),
            name=lambda index: self.name(int(indices[index])),
            read=lambda index: self.read(tf.gather(chosen, index)),
            digest=digest([self.digest.encode(), indices.astype("<i8").tobytes()]),
            labels=None if self.labels is None else self.labels[indices],
        )


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, split in two.

    Attributes:
        class_names: The classes, in the order of the labels.
        channels: Colour channels of the images: 1 or 3.
        train: What to learn from.
        test: What to judge by.
        skipped: What could not be used, from either part or from neither.
        lost: Places that held examples of which nothing could be found.
    """

    class_names: tuple[str, ...]
    channels: int
    train: Examples
    test: Examples
    skipped: Skipped = dataclasses.field(default_factory=Skipped)
    lost: int = 0

    @property
    def total(self) -> int:
        """The number of examples, damaged ones included."""
        return len(self.train) + len(self.test) + self.lost

    def fingerprint(self) -> str:
        """Returns a digest of which images there are, and which are for testing."""
        return digest([self.train.digest.encode(), self.test.digest.encode()])

    def check_unchanged(self, fingerprint: str) -> None:
        """Raises if the images are others than those a run began with.

        Raises:
            ValueError: Files have come or gone since.
        """
        if self.fingerprint() != fingerprint:
            raise UserError(
                "The images have changed since the run began, so that training and "
                "test images can no longer be told apart. Restore them, or judge by "
                "images from elsewhere with evaluate --data."
            )

    @classmethod
    def split(
        cls,
        class_names: tuple[str, ...],
        channels: int,
        examples: Examples,
        seed: int,
        test_fraction: float,
        lost: int = 0,
    ) -> Source:
        """Splits examples, keeping `test_fraction` of each class for testing.

        Where labels are not known, of all classes together.

        Raises:
            ValueError: There are too few.
        """
        from sklearn.model_selection import train_test_split

        try:
            train, test = train_test_split(
                np.arange(len(examples)),
                test_size=test_fraction,
                random_state=seed,
                stratify=examples.labels,
            )
        except ValueError as error:
            raise UserError(f"The images cannot be split: {error}") from None
        return cls(
            class_names,
            channels,
            examples.select(np.sort(train)),
            examples.select(np.sort(test)),
            examples.skipped,
            lost,
        )


def digest(parts: Iterable[bytes]) -> str:
    """Returns a SHA-256 over several pieces, each told apart from the next."""
    result = hashlib.sha256()
    for part in parts:
        result.update(len(part).to_bytes(8, "little"))
        result.update(part)
    return result.hexdigest()
