"""Dataset of labelled images, and its training, validation and test splits."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import tensorflow as tf

from keras_alexnet.data.pixels import Pixels
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.errors import UserError, unknown
from keras_alexnet.images.preprocessing import Preprocessing

# What splits are called, in folders, file names and tables, whatever the case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclasses.dataclass(frozen=True)
class Split:
    """Labelled images, indexed from zero, read as files are: encoded.

    Attributes:
        count: How many there are, damaged ones included.
        classes: Number of classes; labels are smaller.
        name: What to call an image: a path, or a position in a data set.
        read: Reads an image in a TensorFlow graph: an int64 scalar to the bytes of an
            image file, a string scalar, and its label, an int32 scalar. It may raise.
        digest: Differs where the images or their order differ.
        labels: int32, one per image, where they are known before the images are read.
        skipped: What cannot be used is named there.
        pixels: The same images, decoded, where they are kept so.
    """

    count: int
    classes: int
    name: Callable[[int], str]
    read: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    digest: str = ""
    labels: np.ndarray | None = None
    skipped: Skipped = dataclasses.field(default_factory=Skipped)
    pixels: Pixels | None = None

    def __len__(self) -> int:
        return self.count

    def load(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns bytes and label of an image by its index, in a TensorFlow graph.

        Raises:
            tf.errors.OpError: It cannot be read.
            tf.errors.InvalidArgumentError: The label is out of range.
        """
        encoded, label = self.read(index)
        label = tf.cast(label, tf.int32)
        if self.labels is not None:
            return encoded, label
        right = (label >= 0) & (label < self.classes)
        why = f"the label is none of the {self.classes} classes"
        check = tf.debugging.Assert(right, [why])
        with tf.control_dependencies([] if check is None else [check]):
            return encoded, tf.identity(label)

    def items(
        self, begin: int = 0, end: int | None = None, *, seed: int | None = None
    ) -> tf.data.Dataset:
        """Returns the indices of some images.

        Args:
            begin: The first of them.
            end: The one after the last; all by default.
            seed: Shuffles all images first; None does not.
        """
        order = np.arange(self.count)
        if seed is not None:
            order = np.random.default_rng(seed).permutation(order)
        return tf.data.Dataset.from_tensor_slices(order[begin:end].astype(np.int64))

    def decoded(self, preprocessing: Preprocessing) -> Pixels | None:
        """Returns the decoded images, where they are as `preprocessing` resizes."""
        there = self.pixels is not None and self.pixels.fits(preprocessing)
        return self.pixels if there else None

    def file(self, index: int) -> tf.Tensor:
        """Reads the bytes of one image.

        Raises:
            tf.errors.OpError: They cannot be read.
        """
        return self.read(tf.constant(index, tf.int64))[0]

    def select(self, indices: np.ndarray) -> Split:
        """Returns some of the images.

        Args:
            indices: int64, which ones, in the order wanted.
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
            pixels=self.pixels and self.pixels.select(indices),
        )

    def keep_for_test(self, fraction: float, seed: int) -> tuple[Split, Split]:
        """Divides the images into those to train on and those to test by.

        By scikit-learn's `train_test_split`, stratified by class where labels are
        known. A class of a single image stays in the training split.

        Raises:
            ValueError: There are too few.
        """
        from sklearn.model_selection import train_test_split

        labels = self.labels if self.labels is not None else np.zeros(self.count, int)
        kept = np.flatnonzero(np.bincount(labels, minlength=1)[labels] > 1)
        try:
            _, test = train_test_split(
                kept,
                test_size=float(fraction),
                random_state=seed,
                stratify=None if self.labels is None else labels[kept],
            )
        except ValueError:
            raise UserError(
                f"{self.count} images of {self.classes} classes cannot be split into "
                f"training and test images with test_fraction {fraction:g}: each split "
                "needs one of each class."
            ) from None
        return self._without(np.sort(test))

    def keep_for_validation(
        self, fraction: float, seed: int
    ) -> tuple[Split, Split | None]:
        """Divides the images into those to train on and those to choose by.

        Args:
            fraction: Of each class where labels are known. Each class keeps at least
                one image to train on.
            seed: Decides which ones.

        Returns:
            Training and validation split; None where no image can be spared.
        """
        random = np.random.default_rng(seed)
        spare = random.permutation(self.count)
        if self.labels is None:
            spare = spare[1:]
        else:
            spare = spare[np.argsort(self.labels[spare], kind="stable")]
            firsts = np.unique(self.labels[spare], return_index=True)[1]
            spare = np.delete(spare, firsts)
        count = min(max(1, round(fraction * self.count)), len(spare))
        if not count:
            return self, None
        # Evenly spaced along the classes: each gives its part, to within one.
        places = (np.arange(count) + random.random()) * len(spare) / count
        return self._without(np.sort(spare[places.astype(int)]))

    def _without(self, indices: np.ndarray) -> tuple[Split, Split]:
        """Returns all other images, and those of sorted indices."""
        others = np.setdiff1d(np.arange(self.count), indices)
        return self.select(others), self.select(indices)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images, in one or several splits.

    Attributes:
        name: Where they are, for messages.
        class_names: The classes, in the order of the labels.
        channels: Colour channels of the images: 1 or 3.
        splits: Those of `train`, `validation` and `test` that there are; or `all`,
            where nothing says which image belongs to which.
        skipped: What could not be used, from any split or from none.
        lost: Positions that held images of which nothing could be found.
        fingerprints: Digests of which images there are and which are for testing, once
            divided: the current one, and others by which earlier versions knew them.
    """

    name: str
    class_names: tuple[str, ...]
    channels: int
    splits: Mapping[str, Split]
    skipped: Skipped = dataclasses.field(default_factory=Skipped)
    lost: int = 0
    fingerprints: tuple[str, ...] = ()

    @property
    def train(self) -> Split:
        """What to learn from."""
        return self.splits["train"]

    @property
    def validation(self) -> Split | None:
        """What to choose by: epochs, hyperparameters. None where it has no share."""
        return self.splits.get("validation")

    @property
    def test(self) -> Split:
        """What to judge by, once, at the end."""
        return self.splits["test"]

    @property
    def total(self) -> int:
        """The number of images, damaged ones included."""
        return sum(map(len, self.splits.values())) + self.lost

    def fingerprint(self) -> str:
        """Returns a digest of which images there are, and which are for testing.

        Validation images are not in it: they follow from seed and fraction.
        """
        return self.fingerprints[0]

    def check_unchanged(self, fingerprint: str) -> None:
        """Raises a ValueError if the images are others than a run began with."""
        if fingerprint not in self.fingerprints:
            raise UserError(
                "The images have changed since the run began, so that training and "
                "test images can no longer be told apart. Restore them, or judge by "
                "images from elsewhere with evaluate --data."
            )

    def divide(
        self, seed: int, test_fraction: float, validation_fraction: float
    ) -> Dataset:
        """Returns the dataset with the splits that training needs.

        Splits that are there stay as they are. Without a test split, the validation
        split is what to judge by, as in published practice (ImageNet); without that,
        test images are taken from the training images. The validation split that is
        missing then is taken from the training images that are left.

        Args:
            seed: Decides which images are taken.
            test_fraction: How many of each class, for testing.
            validation_fraction: How many of the remaining ones, for validation; 0 for
                no validation split where none is given.

        Raises:
            ValueError: There are too few images or classes, or none to train on.
        """
        if len(self.class_names) < 2:
            only = "".join(map(repr, self.class_names)) or "none"
            raise UserError(
                f"{self.name} holds only one class, {only}: nothing to tell apart."
            )
        given = dict(self.splits)
        if len(given) == 1:
            given = {"train": given.popitem()[1]}
        if "train" not in given:
            raise UserError(f"{self.name} has no training split.")
        train, validation, test = map(given.get, ("train", "validation", "test"))
        known = []
        if test is None:
            validation, test = None, validation
        if test is None:
            train, test = train.keep_for_test(test_fraction, seed)
        if validation is not None:
            known = [digest_of(train, validation, test), digest_of(train, validation)]
        for held_out in filter(None, (validation, test)):
            self._check_classes(train, held_out)
        # Earlier versions tested by the validation split where there were both.
        known.insert(1, digest_of(train, test))
        if validation is None and validation_fraction:
            train, validation = train.keep_for_validation(validation_fraction, seed)
        splits = {"train": train, "validation": validation, "test": test}
        return dataclasses.replace(
            self,
            splits={name: split for name, split in splits.items() if split is not None},
            fingerprints=(*known, *self.fingerprints),
        )

    def _check_classes(self, train: Split, held_out: Split) -> None:
        """Raises a ValueError if a class is only among the images held out."""
        if train.labels is None or held_out.labels is None:
            return
        untaught = np.setdiff1d(held_out.labels, train.labels)
        if len(untaught):
            raise UserError(
                f"{self.name} has a class {self.class_names[untaught[0]]!r} to test, "
                "of which there is nothing to learn from."
            )

    def choose(self, split: str | None = None) -> Dataset:
        """Returns the dataset with only those images that are to be evaluated.

        Args:
            split: `train`, `val` or `test`; `all`; by default the test split, or the
                validation split where that is all that is held out, or all images
                where they are not split.

        Raises:
            ValueError: There is no such split.
        """
        name = SPLIT_NAMES.get(split or "", split)
        if name is None:
            held_out = [one for one in ("test", "validation") if one in self.splits]
            name = held_out[0] if held_out else "all"
        if name == "all":
            return self
        if name not in self.splits:
            raise UserError(
                f"{self.name}: " + unknown(split, "split", [*self.splits, "all"])
            )
        return dataclasses.replace(self, splits={name: self.splits[name]}, lost=0)


def digest_of(*splits: Split) -> str:
    """Returns a digest of the images of several splits."""
    return digest(split.digest.encode() for split in splits)


def digest(parts: Iterable[bytes]) -> str:
    """Returns a SHA-256 over several pieces, each told apart from the next."""
    result = hashlib.sha256()
    for part in parts:
        result.update(len(part).to_bytes(8, "little"))
        result.update(part)
    return result.hexdigest()
