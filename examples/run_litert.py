"""Name what pictures show, with LiteRT (or TensorFlow), NumPy and Pillow.

python run_litert.py EXPORT_FOLDER IMAGE [IMAGE ...]
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    import tensorflow as tf

    Interpreter = tf.lite.Interpreter

folder = Path(sys.argv[1])
labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
expected = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
resized, size = expected["resize_size"], expected["image_size"]
serve = Interpreter(str(folder / "model.tflite")).get_signature_runner()
for path in sys.argv[2:]:
    image = Image.open(path).convert("L" if expected["channels"] == 1 else "RGB")
    squash = expected["resize_rule"] == "squash"
    resize = Image.Image.resize if squash else ImageOps.fit
    image = resize(image, (resized, resized), Image.Resampling.BILINEAR)
    first = (resized - size) // 2
    image = image.crop((first, first, first + size, first + size))
    answer = serve(images=np.asarray(image).reshape(1, size, size, -1))
    guesses = zip(answer["top_classes"][0], answer["top_probabilities"][0], strict=True)
    print(path, ", ".join(f"{labels[index]} {p:.1%}" for index, p in guesses))
