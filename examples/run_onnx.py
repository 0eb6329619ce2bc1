"""Name what pictures show, with ONNX Runtime, NumPy and Pillow.

python run_onnx.py EXPORT_FOLDER IMAGE [IMAGE ...]
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

folder = Path(sys.argv[1])
labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
session = onnxruntime.InferenceSession(folder / "model.onnx")
mode = "L" if session.get_inputs()[0].shape[-1] == 1 else "RGB"
for path in sys.argv[2:]:
    pixels = np.asarray(Image.open(path).convert(mode))
    pixels = pixels.reshape(1, *pixels.shape[:2], -1)
    _, probabilities, classes = session.run(None, {"images": pixels})
    guesses = zip(classes[0], probabilities[0], strict=True)
    print(path, ", ".join(f"{labels[index]} {p:.1%}" for index, p in guesses))
