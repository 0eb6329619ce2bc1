"""SavedModel export: pixels or image files in, labels out, with TensorFlow alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.images.preprocessing import Preprocessing

# What a SavedModel consists of.
PARTS = {"assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables"}


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raises unless an export may be written to a directory.

    Args:
        path: The directory, which need not exist.
        overwrite: Whether an earlier export may be replaced.

    Raises:
        UserError: There is an earlier export, or something else.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: choose another --out.")
    found = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if foreign := sorted(found - PARTS):
        raise UserError(
            f"{path} holds files that are not an export's, such as {foreign[0]}: "
            "choose another --out."
        )
    if found and not overwrite:
        raise UserError(
            f"{path} holds an export already: replace it with --overwrite, or choose "
            "another --out."
        )


def export_saved_model(
    model: keras.Model,
    path: str | Path,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
) -> None:
    """Writes a SavedModel that needs no code of this package.

    The endpoints, each for any number of images:

    - `serve`: images of `(batch, image_size, image_size, channels)`, pixels of 0-255 as
      float32 or uint8, to `probabilities` of `(batch, classes)`. As a signature it
      takes float32, and `serve_uint8` takes uint8.
    - `classify`: encoded JPEG, PNG, GIF or BMP files, strings of `(batch,)`, to
      `labels`, `classes` and `probabilities` of `(batch, top)`, the likeliest first.
      `top` is 5, or the number of classes where there are fewer. Files are decoded
      as by `predict`, but for the rare kinds that TensorFlow cannot read without
      Python: transparent parts of a GIF have the colours of its palette, and a BMP must
      have 8, 24 or 32 bits per pixel.

    The weights of a network that computes in 16 bits are rounded to them, as it would
    do in every call: the numbers are the same, and the file is half as large.

    Args:
        model: Returns probabilities.
        path: The folder to write.
        preprocessing: What the model expects of its input.
        class_names: In the order of the model's outputs.
    """
    model = with_rounded_weights(model)
    top = min(5, len(class_names))
    shape = (None, preprocessing.image_size, preprocessing.image_size)
    shape += (preprocessing.channels,)

    def probabilities(images: tf.Tensor) -> tf.Tensor:
        # TensorFlow's convolution returns a wrong shape for no images.
        return tf.cond(
            tf.equal(tf.shape(images)[0], 0),
            lambda: tf.zeros((0, *model.output_shape[1:])),
            lambda: model(preprocessing.normalize(images), training=False),
        )

    @tf.function(autograph=False)
    def serve(images):
        return {"probabilities": probabilities(images)}

    def serve_uint8(images):
        return {"probabilities": probabilities(images)}

    def prepare(encoded: tf.Tensor) -> tf.Tensor:
        return preprocessing.prepare_file(encoded, in_graph=True)

    def classify(encoded):
        images = tf.map_fn(prepare, encoded, fn_output_signature=tf.float32)
        best, classes = tf.math.top_k(probabilities(images), top)
        labels = tf.gather(tf.constant(list(class_names)), classes)
        return {"labels": labels, "classes": classes, "probabilities": best}

    # Called on the object, `serve` finds the trace for the dtype it is given. As a
    # signature it has one, the first.
    serve.get_concrete_function(tf.TensorSpec(shape, tf.float32, "images"))
    serve.get_concrete_function(tf.TensorSpec(shape, tf.uint8, "images"))
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve)
    archive.add_endpoint(
        "serve_uint8", serve_uint8, [tf.TensorSpec(shape, tf.uint8, "images")]
    )
    archive.add_endpoint(
        "classify", classify, [tf.TensorSpec((None,), tf.string, "encoded")]
    )
    archive.write_out(str(path), verbose=False)


def with_rounded_weights(model: keras.Model) -> keras.Model:
    """Returns a model whose convolutions and products need not cast their weights.

    Args:
        model: One of layers that were called one on another.

    Returns:
        The model itself where it has no weights that are cast. Otherwise a copy, in
        which the weights of those layers have the dtype that the layer computes in.
        Other layers, such as normalisations with weights, may use theirs uncast.
    """

    def casts(layer: keras.Layer) -> bool:
        weighted = isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
        return weighted and layer.variable_dtype != layer.compute_dtype

    def rounded(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if casts(layer):
            config["dtype"] = layer.compute_dtype
        return type(layer).from_config(config)

    if not any(map(casts, model.layers)):
        return model
    copy = keras.models.clone_model(model, clone_function=rounded)
    copy.set_weights(model.get_weights())
    return copy


def largest_difference(
    path: str | Path,
    model: keras.Model,
    preprocessing: Preprocessing,
    images: np.ndarray,
) -> float:
    """Compares an exported model with the one that it was made from.

    Args:
        path: The SavedModel.
        model: What it was made from.
        preprocessing: What the model expects of its input.
        images: `(batch, image_size, image_size, channels)`, pixels of 0-255.

    Returns:
        The largest absolute difference between two probabilities.
    """
    exported = tf.saved_model.load(str(path))
    actual = exported.serve(tf.constant(images))["probabilities"].numpy()
    expected = model.predict_on_batch(preprocessing.normalize(images))
    return float(np.abs(actual - expected).max())
