"""Call an exported model from a program that has TensorFlow and nothing else.

python serve_saved_model.py EXPORT_FOLDER IMAGE [IMAGE ...]
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
files = [tf.io.read_file(path) for path in sys.argv[2:]]
answer = model.classify(tf.stack(files))
for path, labels, probabilities in zip(
    sys.argv[2:], answer["labels"].numpy(), answer["probabilities"].numpy(), strict=True
):
    guesses = zip(labels, probabilities, strict=True)
    print(path, ", ".join(f"{label.decode()} {p:.1%}" for label, p in guesses))
