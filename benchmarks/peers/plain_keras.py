"""Plain Keras on a folder of images, as its documentation writes it.

    python benchmarks/peers/plain_keras.py FOLDER [--minutes M | --epochs N] [--seed S]

FOLDER holds train/ and test/ with a folder for each class. Cached images, flips and
small shifts, three convolutions with batch normalisation, Adam with a cosine schedule.
Beside it: `keras-alexnet train --data folder:FOLDER --minutes M`.
"""

from __future__ import annotations

import argparse
import time

import keras
from keras import layers

BATCH = 128


def main() -> None:
    """Trains, and prints the test accuracy and the time of it all."""
    started = time.monotonic()
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--no-flip", action="store_true")
    args = parser.parse_args()
    keras.utils.set_random_seed(args.seed)
    train, val, test, classes, count = datasets(args)
    model = network(args.size, classes)
    steps, epochs = -(-count // BATCH), args.epochs
    if args.minutes:
        before = model.get_weights()
        model.compile("adam", "sparse_categorical_crossentropy")
        batches = iter(train.repeat())
        for _ in range(10):  # Until images are cached and shuffled, and all is traced.
            model.train_on_batch(*next(batches))
        begin = time.monotonic()
        for _ in range(30):
            model.train_on_batch(*next(batches))
        step = (time.monotonic() - begin) / 30
        model.set_weights(before)
        left = 60 * args.minutes - (time.monotonic() - started) - 5
        epochs = max(1, int(left / (1.1 * step * steps)))
    rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * steps)
    model.compile(
        keras.optimizers.Adam(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(train, validation_data=val, epochs=epochs, verbose=2)
    _, accuracy = model.evaluate(test, verbose=0)
    seconds = time.monotonic() - started
    print(f"Test accuracy {accuracy:.4f} after {epochs} epochs, {seconds:.1f} s.")


def datasets(args: argparse.Namespace) -> tuple:
    """Returns batches to train on, to choose and to test by; classes and images."""

    def load(split: str, **options):
        return keras.utils.image_dataset_from_directory(
            f"{args.folder}/{split}",
            image_size=(args.size, args.size),
            batch_size=None,
            seed=args.seed,
            **options,
        )

    train, val = load("train", validation_split=0.1, subset="both")
    test = load("test", shuffle=False)
    classes, count = len(train.class_names), int(train.cardinality())
    changes = [layers.RandomTranslation(0.1, 0.1)]
    changes += [] if args.no_flip else [layers.RandomFlip("horizontal")]
    augment = keras.Sequential(changes)
    train = train.cache().shuffle(count).batch(BATCH)
    train = train.map(lambda x, y: (augment(x, training=True), y), -1).prefetch(-1)
    val, test = (one.batch(BATCH).cache().prefetch(-1) for one in (val, test))
    return train, val, test, classes, count


def network(size: int, classes: int) -> keras.Model:
    """Builds the network."""
    model = keras.Sequential([keras.Input((size, size, 3))])
    model.add(layers.Rescaling(1 / 127.5, -1))
    for filters in (64, 128, 256):
        model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dropout(0.3))
    model.add(layers.Dense(256, activation="relu"))
    model.add(layers.Dropout(0.3))
    model.add(layers.Dense(classes, activation="softmax"))
    return model


if __name__ == "__main__":
    main()
