"""What several commands have in common: a network, and what it expects."""

from __future__ import annotations

import dataclasses
import glob
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from keras_alexnet.errors import UserError

if TYPE_CHECKING:
    from keras_alexnet.data.dataset import Dataset
    from keras_alexnet.model import AlexNet
    from keras_alexnet.training.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class NetworkCommand:
    """A command about a network."""

    network: tyro.conf.Positional[str]
    """A run's directory, a .keras file, a file of published weights, or the name of
    such weights (see `keras-alexnet list weights`)."""
    preprocessing: Literal["own", "caffe", "torch", "alexnet_2012", "none"] = (
        dataclasses.field(default="own", kw_only=True)
    )
    """What the network expects of images: what it says itself, or whose way."""

    def open(self) -> AlexNet:
        """Opens the network, and tells it what it does not know of itself.

        Raises:
            UserError: There is no such network, or nobody says what it expects.
        """
        from keras_alexnet.images.preprocessing import get_preprocessing
        from keras_alexnet.networks import open_network

        model = open_network(self.network)
        preprocessing = model.metadata.preprocessing
        if self.preprocessing != "own":
            preprocessing = get_preprocessing(self.preprocessing)
        if preprocessing is None:
            raise UserError(
                f"{self.network} does not say what its network expects of images. Say "
                "it with --preprocessing caffe, torch, alexnet_2012 or none."
            )
        if height := model.image_shape[0]:
            preprocessing = preprocessing.with_image_size(height)
        model.bind(preprocessing)
        return model


@dataclasses.dataclass(frozen=True)
class ClassifierCommand(NetworkCommand):
    """A command about a network and the classes that it knows."""

    class_names: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    """Names of the network's classes, in the order of its outputs; or a text file of
    them, one a line. By default those that it knows itself, or numbers."""

    def open(self) -> AlexNet:
        """Opens the network, with class names.

        Raises:
            UserError: As above, or there are more or fewer names than classes.
        """
        model = super().open()
        names = self.class_names
        if len(names) == 1 and Path(names[0]).is_file():
            names = tuple(Path(names[0]).read_text(encoding="utf-8").splitlines())
        if not names and not model.metadata.class_names:
            names = tuple(map(str, range(model.output_shape[-1])))
        if names:
            model.bind(class_names=names)
        return model


@dataclasses.dataclass(frozen=True)
class LabelledCommand(ClassifierCommand):
    """A command about a network and labelled images."""

    data: str | None = None
    """Images to evaluate on, as train takes them; by default the run's test images."""
    split: Literal["train", "val", "test", "all"] | None = None
    """Which of the images, where they come in splits: by default the test split, or the
    validation split where there is no other; all images where they are not split."""
    batch_size: int = 128
    """Images per pass."""

    def check(self) -> None:
        """Raises a UserError if there are no images, or no batches of them."""
        if self.batch_size < 1:
            raise UserError(
                f"--batch-size must be at least 1. Received: {self.batch_size}"
            )
        if self.data is None and not Path(self.network).is_dir():
            raise UserError(
                f"{self.network} has no test images of its own: name some with --data."
            )

    def dataset(self, channels: int) -> Dataset:
        """Opens the images that are asked for."""
        return evaluation_dataset(self.network, self.data, channels).choose(self.split)


@dataclasses.dataclass(frozen=True)
class ImagesCommand(ClassifierCommand):
    """A command about a classifier and image files."""

    images: tyro.conf.Positional[tuple[str, ...]] = ()
    """Image files, folders of them, or patterns such as "photos/*.jpg"; with - their
    names are read from standard input, one a line."""

    def files(self) -> list[str]:
        """Lists the image files that are meant, existing or not.

        Raises:
            UserError: There are none.
        """
        from keras_alexnet.features.extraction import image_files

        files: list[str] = []
        for name in self.images:
            found: list[str] = []
            if name == "-":
                files += sys.stdin.read().splitlines()
                continue
            if Path(name).is_dir():
                found = [os.path.join(name, file) for file in image_files(name)]
            elif glob.has_magic(name) and not Path(name).exists():
                matches = sorted(glob.glob(name, recursive=True))
                found = [match for match in matches if Path(match).is_file()]
            # What leads to nothing fails like a file that cannot be read.
            files += found or [name]
        if not files:
            raise UserError("No image files were given.")
        return files


def run_dataset(run: RunDirectory) -> Dataset:
    """Opens a run's own images again, in the splits that it was trained with."""
    from keras_alexnet.data.opening import open_dataset

    config = run.config()
    dataset = open_dataset(
        config.data,
        seed=config.seed,
        test_fraction=config.test_fraction,
        validation_fraction=0.0,
        channels=run.preprocessing().channels,
    )
    dataset.check_unchanged(run.read_json("data.json")["fingerprint"])
    return dataset


def evaluation_dataset(network: str, data: str | None, channels: int) -> Dataset:
    """Opens images to evaluate a network by, in all the splits that there are.

    Args:
        network: A run's directory, or another network.
        data: Images, as train takes them; None for the run's own.
        channels: 1 for grey, 3 for RGB.
    """
    from keras_alexnet.data.opening import open_for_evaluation
    from keras_alexnet.training.run_directory import RunDirectory

    if Path(network).is_dir():
        run = RunDirectory.open(network)
        if data in (None, run.config().data):
            return run_dataset(run)
    return open_for_evaluation(data, split="all", channels=channels)
