"""SavedModel export: pixels or image files in, labels out, with TensorFlow alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.export.artefact import Format, in_precision
from keras_alexnet.export.comparison import Example, Run
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.model import AlexNet


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

    TensorFlow Serving finds a request for each of them in `assets.extra`, to warm up.

    The weights of a network that computes in 16 bits are rounded to them, as it would
    do in every call: the numbers are the same, and the file is half as large.

    Args:
        model: Returns probabilities.
        path: The folder to write.
        preprocessing: What the model expects of its input.
        class_names: In the order of the model's outputs.
    """
    model = in_precision(model, None, rounded=True)
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
    _write_warm_up(Path(path), shape[1:])


def _write_warm_up(path: Path, shape: tuple[int, ...]) -> None:
    """Writes a request for each signature, where TensorFlow Serving looks for them."""
    black = np.zeros((1, *shape))
    png = tf.io.encode_png(black[0].astype(np.uint8)).numpy()
    extra = path / "assets.extra"
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        writer.write(_request("serve", "images", black.astype(np.float32)))
        writer.write(_request("serve_uint8", "images", black.astype(np.uint8)))
        writer.write(_request("classify", "encoded", np.array([png])))


def _request(signature: str, name: str, value: np.ndarray) -> bytes:
    """Returns a request that TensorFlow Serving warms a model up with.

    A `PredictionLog` of its protocol buffers (apis/prediction_log.proto), whose fields
    are all of one kind.
    """

    def field(number: int, content: bytes) -> bytes:
        length, size = bytearray(), len(content)
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        return bytes([number << 3 | 2, *length, size]) + content

    tensor = tf.make_tensor_proto(value).SerializeToString()
    inputs = field(1, name.encode()) + field(2, tensor)
    # ModelSpec.signature_name; inputs are a map; PredictLog.request.
    request = field(1, field(3, signature.encode())) + field(2, inputs)
    return field(6, field(1, request))


def open_saved_model(folder: Path) -> Run:
    """Returns a function that runs a SavedModel."""
    exported = tf.saved_model.load(str(folder))
    return lambda pixels: exported.serve(tf.constant(pixels))["probabilities"].numpy()


def _write(
    model: AlexNet, folder: Path, precision: str | None, calibration: Sequence[Example]
) -> None:
    known = model.metadata
    model = in_precision(model, precision)
    export_saved_model(model, folder, known.preprocessing, known.class_names)


FORMAT = Format(
    "A SavedModel. Its signatures `serve` (float32) and `serve_uint8` take `images`, "
    "RGB pixels of 0-255 as large as the network's input, `(batch, height, width, "
    "channels)`, and return `probabilities`. `classify` takes `encoded`, the bytes of "
    "image files, and returns `labels`, `classes` and `probabilities`, the likeliest "
    "first.",
    (None, "float32", "float16", "bfloat16"),
    False,
    _write,
    open_saved_model,
)
