"""Digits dataset: scikit-learn's 1,797 handwritten digits, 8 x 8, in the package."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_alexnet.data.dataset import Dataset, Split, digest
from keras_alexnet.data.strings import Strings


def open_digits(channels: int) -> Dataset:
    """Opens the digits; `channels` is 1 for grey, 3 for RGB."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    # 17 levels of grey, 16 the darkest ink; on the scale of 0-255 that everything else
    # has.
    images = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    files = Strings(tf.io.encode_png(image).numpy() for image in images)
    labels = labels.astype(np.int32)

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return files.tensor(index), tf.gather(tf.constant(labels), index)

    split = Split(
        len(labels),
        classes=10,
        name=lambda index: f"digits/{index}",
        read=read,
        digest=digest([b"digits", images.tobytes()]),
        labels=labels,
    )
    return Dataset("digits", tuple("0123456789"), channels, {"all": split})
