"""Small sources of images to test with."""

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_alexnet.data.dataset import Split
from keras_alexnet.data.opening import open_dataset
from keras_alexnet.data.strings import Strings


def opened(spec, **options):
    """A dataset by name, seed 0 unless given, without a validation split."""
    return open_dataset(spec, **{"seed": 0, "validation_fraction": 0, **options})


def pixel_examples(pixels, labels=None, **options):
    """A split of images that are arrays, their labels their numbers unless given."""
    files = Strings(tf.io.encode_png(image).numpy() for image in pixels)
    labels = np.arange(len(pixels), dtype=np.int32) if labels is None else labels

    def read(index):
        return files.tensor(index), tf.gather(tf.constant(labels), index)

    return Split(len(pixels), int(max(labels)) + 1, str, read, labels=labels, **options)


def picture(seed, mode="RGB", size=(9, 7)):
    """A PIL image of noise."""
    channels = {"RGB": 3, "L": 1}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)
    return Image.fromarray(pixels.squeeze())


def write(path, seed=0, mode="RGB", size=(9, 7), **options):
    """Writes a picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, mode, size).save(path, **options)
    return path


def two_classes(path, each=5):
    """Writes a folder of cats and dogs."""
    for label, name in enumerate(["cat", "dog"]):
        for index in range(each):
            write(path / name / f"{index}.png", seed=label * 100 + index)
    return path
