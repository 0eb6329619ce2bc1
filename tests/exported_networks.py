"""Networks and images that exports are tested with."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from reduced import randomise

import keras_alexnet
from keras_alexnet.images.preprocessing import Preprocessing


def network(architecture, **options):
    """A model with weights like trained ones: logits about 20 apart."""
    model = keras_alexnet.build(architecture, **options)
    randomise(model)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            rng = np.random.default_rng(0)
            shape = layer.gamma.shape
            layer.set_weights([rng.uniform(0.5, 1.5, shape) for _ in range(4)])
    side, channels = model.input_shape[1], model.input_shape[-1]
    images = np.random.default_rng(1).integers(0, 256, (3, side, side, channels))
    mean, scale = (120.0, 110.0, 100.0)[:channels], 1 / 64
    preprocessing = Preprocessing(side, side, channels, mean, scale)
    fc8 = [layer for layer in model.layers if hasattr(layer, "kernel")][-1]
    logits = keras.Model(model.input, fc8.output)(preprocessing.normalize(images))
    kernel, bias = fc8.get_weights()
    spread = 20 / float(np.ptp(logits))
    fc8.set_weights([kernel * spread, bias * spread])
    return model, preprocessing, images.astype("uint8")


def saved(folder, names="0123456789"):
    """A network that knows itself, and the file that it is in."""
    model, preprocessing, _ = network("alexnet_mini")
    model.bind(preprocessing, class_names=list(names))
    model.save(folder / "net.keras")
    return model, folder / "net.keras"


def wide_and_tall(folder):
    """Two image files that are no squares."""
    files = [folder / "wide.png", folder / "tall.png"]
    for file, shape in zip(files, ((40, 60, 3), (50, 30, 3)), strict=True):
        pixels = np.random.default_rng(0).integers(0, 256, shape, "uint8")
        Image.fromarray(pixels).save(file)
    return files


def check_program(kind, command, folder, *options, tolerance=2):
    """Exports a network, and compares what an example program prints with the model.

    Pillow rounds the pixels that programs resize with it: percentages differ a little.
    """
    (model, path), out = saved(folder, "äbcdefghij"), folder / "out"
    export = ("export", path, "--format", kind, "--out", out, *options)
    code, printed, _ = command(*export)
    assert code == 0 and f"{kind}, {options[-1] if options else 'float32'}" in printed
    assert {"labels.txt", "preprocessing.json", "model_card.md"} < {
        file.name for file in out.iterdir()
    }
    assert command(*export)[0] == 2  # It is there already.
    files = wide_and_tall(folder)
    example = Path(__file__).parents[1] / "examples" / f"run_{kind}.py"
    printed = subprocess.run(
        [sys.executable, example, out, *files],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    ).stdout.splitlines()
    expected = model.predict_on_batch(model.preprocess(files))
    decoded = model.decode_predictions(expected, top=5)
    for file, line, guesses in zip(files, printed, decoded, strict=True):
        assert line.startswith(f"{file} {guesses[0][1]} ")
        found = [float(number) for number in re.findall(r"([\d.]+)%", line)]
        wanted = [100 * probability for *_, probability in guesses]
        np.testing.assert_allclose(found, wanted, atol=tolerance)
