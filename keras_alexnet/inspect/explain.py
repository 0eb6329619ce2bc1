"""Attributions: on which pixels a network's score of a class depends.

Each is a function of a model, of images as the network takes them, and of classes. The
score is the logit, the number that goes into the softmax.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.errors import UserError, unknown

# A class, or one for each image; None for the likeliest.
Target = int | Sequence[int] | None
AT_ONCE = 64


def saliency(model: keras.Model, images: np.ndarray, target: Target = None):
    """Returns how much the score changes with each number of the input.

    The gradient without its sign (Simonyan, Vedaldi and Zisserman 2013,
    https://arxiv.org/abs/1312.6034).

    Args:
        model: Returns `(batch, classes)`.
        images: The network's input, float32 `(batch, height, width, channels)`; see
            `AlexNet.preprocess`.
        target: The class, one for each image, or None for the likeliest.

    Returns:
        float32, of the shape of `images`.

    Raises:
        ValueError: There is no such class.
    """
    score = _Score(model, images, target)
    return np.abs(score.gradient(score.images))


def smooth_grad(
    model: keras.Model,
    images: np.ndarray,
    target: Target = None,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
) -> np.ndarray:
    """Returns the mean gradient of noisy copies of each image (SmoothGrad).

    Smilkov et al. 2017, https://arxiv.org/abs/1706.03825.

    Args:
        model: As in `saliency`.
        images: As in `saliency`.
        target: As in `saliency`; the likeliest class is that of the image itself.
        samples: Number of copies.
        noise: Standard deviation of the Gaussian noise, as a fraction of the image's
            largest value minus its smallest.
        seed: Decides the noise.

    Returns:
        float32, of the shape of `images`, with its sign.
    """
    _check(samples=samples)
    score = _Score(model, images, target)
    axes = tuple(range(1, score.images.ndim))
    deviation = noise * np.ptp(score.images, axis=axes, keepdims=True)
    random = np.random.default_rng(seed)
    total = np.zeros_like(score.images)
    for _ in range(samples):
        draws = random.standard_normal(total.shape, np.float32)
        total += score.gradient(score.images + deviation * draws)
    return total / samples


def integrated_gradients(
    model: keras.Model,
    images: np.ndarray,
    target: Target = None,
    *,
    baseline: float | np.ndarray = 0.0,
    steps: int = 50,
) -> np.ndarray:
    """Returns what each number of the input adds to the score of a baseline.

    `(x - b) * integral of the gradient at b + t * (x - b), t from 0 to 1`, by
    Gauss-Legendre quadrature. The sum over an image is the score of the image minus
    that of the baseline, but for the error of the quadrature (Sundararajan, Taly and
    Yan 2017, https://arxiv.org/abs/1703.01365).

    Args:
        model: As in `saliency`.
        images: As in `saliency`.
        target: As in `saliency`.
        baseline: Input without information. Defaults to 0, the mean colour.
        steps: Points of the quadrature.

    Returns:
        float32, of the shape of `images`, with its sign.
    """
    _check(steps=steps)
    score = _Score(model, images, target)
    difference = score.images - np.float32(baseline)
    points, weights = np.polynomial.legendre.leggauss(steps)
    total = np.zeros(difference.shape, np.float64)
    # Few images at a time take a third longer each.
    parts = -(-steps * len(difference) // AT_ONCE)
    for part in np.array_split(np.arange(steps), min(parts, steps)):
        at = [score.images - (1 - points[i]) / 2 * difference for i in part]
        gradients = score.gradient(np.concatenate(at).astype(np.float32))
        gradients = gradients.reshape(len(part), *difference.shape)
        total += np.tensordot(weights[part] / 2, gradients, 1)
    return (difference * total).astype(np.float32)


def deconvolution(
    model: keras.Model, images: np.ndarray, target: Target = None
) -> np.ndarray:
    """Returns the score projected back to the pixels by a deconvolutional network.

    The gradient, but that a ReLU passes back what is positive there, whatever it was
    on the way forward; max pooling passes it to where the maximum was, its switch
    (Zeiler and Fergus 2013, https://arxiv.org/abs/1311.2901, section 2.1).

    Args:
        model: As in `saliency`.
        images: As in `saliency`.
        target: As in `saliency`.

    Returns:
        float32, of the shape of `images`, with its sign.
    """
    score = _Score(model, images, target)
    return _projection(model)(tf.constant(score.images), score.target).numpy()


# As `_traced`.
@functools.lru_cache(maxsize=2)
def _projection(model: keras.Model) -> Callable[[tf.Tensor, np.ndarray], tf.Tensor]:
    """Returns the traced projection of classes' logits back to images."""
    network = keras.Model(model.inputs[0], logits_of(model))

    @functools.partial(tf.function, autograph=False, reduce_retracing=True)
    def project(x: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        # In place of TensorFlow's own gradient, whichever layer the ReLU is in.
        with tf.compat.v1.get_default_graph().gradient_override_map(
            {"Relu": "KerasAlexNetDeconvolution"}
        ):
            logits = tf.cast(network(x, training=False), tf.float32)
            chosen = tf.gather(logits, classes, batch_dims=1)
        return tf.gradients(chosen, x)[0]

    return project


@tf.RegisterGradient("KerasAlexNetDeconvolution")
def _positive_part(_: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(gradient)


def grad_cam(
    model: keras.Model,
    images: np.ndarray,
    target: Target = None,
    *,
    layer: str = "relu5",
) -> np.ndarray:
    """Returns where a layer's maps speak for the class (Grad-CAM).

    `relu(sum over channels of A * mean over pixels of d score / d A)`, A being the
    layer's output (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391).

    Args:
        model: As in `saliency`; a functional model.
        images: As in `saliency`.
        target: As in `saliency`.
        layer: Name of a layer whose output is an image of channels.

    Returns:
        float32, `(batch, height, width)` of the layer's output.

    Raises:
        ValueError: There is no such class or layer.
    """
    names = [one.name for one in model.layers if len(one.output.shape) == 4]
    if layer not in names:
        raise UserError(unknown(layer, "layer with feature maps", names))
    score = _Score(model, images, target, layer)
    maps, gradients = score.maps_and_gradients()
    space = (1, 2) if keras.config.image_data_format() == "channels_last" else (2, 3)
    channels = 6 - sum(space)
    weights = gradients.mean(space, keepdims=True)
    return np.maximum((maps * weights).sum(channels), 0)


def occlusion(
    model: keras.Model,
    images: np.ndarray,
    target: Target = None,
    *,
    window: int = 32,
    stride: int = 8,
    fill: float = 0.0,
) -> np.ndarray:
    """Returns how much the score falls when a square around each pixel is covered.

    Zeiler and Fergus 2013, https://arxiv.org/abs/1311.2901, section 4.2. A pixel has
    the mean over the squares that cover it.

    Args:
        model: As in `saliency`.
        images: As in `saliency`.
        target: As in `saliency`.
        window: Height and width of the square, in pixels.
        stride: Distance between squares, in pixels.
        fill: What covers. Defaults to 0, the mean colour.

    Returns:
        float32, `(batch, height, width)`.
    """
    _check(window=window, stride=stride)
    score = _Score(model, images, target)
    height, width = score.size
    if window > min(height, width):
        raise UserError(
            f"window must be at most {min(height, width)}, the size of the images. "
            f"Received: {window}"
        )
    clear = score.value(score.images)
    shape = (len(clear), height, width)
    total, count = np.zeros(shape, np.float32), np.zeros((height, width), np.float32)
    for top in range(0, height - window + stride, stride):
        for left in range(0, width - window + stride, stride):
            rows, columns = slice(top, top + window), slice(left, left + window)
            covered = score.images.copy()
            if keras.config.image_data_format() == "channels_last":
                covered[:, rows, columns] = fill
            else:
                covered[:, :, rows, columns] = fill
            fall = clear - score.value(covered)
            total[:, rows, columns] += fall[:, None, None]
            count[rows, columns] += 1
    return total / np.maximum(count, 1)


# By the names that the command takes.
METHODS: dict[str, Callable[..., np.ndarray]] = {
    "saliency": saliency,
    "smooth-grad": smooth_grad,
    "integrated-gradients": integrated_gradients,
    "deconvolution": deconvolution,
    "grad-cam": grad_cam,
    "occlusion": occlusion,
}


class _Score:
    """The logit of a class for each of some images, and its gradients.

    Attributes:
        images: float32, a batch.
        size: Height and width.
        target: int32, the class of each image.
    """

    def __init__(
        self,
        model: keras.Model,
        images: np.ndarray,
        target: Target,
        layer: str | None = None,
    ):
        self.images = np.array(images, np.float32)
        if self.images.ndim != 4:
            raise UserError(
                "Images are a batch of (height, width, channels). Received the shape "
                f"{self.images.shape}"
            )
        last = keras.config.image_data_format() == "channels_last"
        self.size = self.images.shape[1:3] if last else self.images.shape[2:]
        self._value, self._gradient, predict = _traced(model, layer)
        if target is None:
            target = tf.argmax(predict(self.images), axis=-1).numpy()
        self.target = np.broadcast_to(target, len(self.images)).astype(np.int32)
        classes = model.output_shape[-1]
        if not all(0 <= one < classes for one in self.target):
            raise UserError(
                f"target must be a class, from 0 to {classes - 1}. Received: {target}"
            )

    def value(self, images: np.ndarray) -> np.ndarray:
        return self._value(images, self.target)[0].numpy()

    def gradient(self, images: np.ndarray) -> np.ndarray:
        """Gradients at as many images, or several times as many."""
        target = np.tile(self.target, len(images) // len(self.target))
        return self._gradient(tf.constant(images), target)[1].numpy()

    def maps_and_gradients(self) -> list[np.ndarray]:
        found = self._gradient(tf.constant(self.images), self.target)
        return [tf.cast(one, tf.float32).numpy() for one in found]


def logits_of(model: keras.Model) -> keras.KerasTensor:
    """Returns what goes into a functional model's last activation, if it has one."""
    last = model.layers[-1]
    # What `build` ends with; other networks may end with logits.
    is_activation = isinstance(last, (keras.layers.Activation, keras.layers.Softmax))
    return last.input if is_activation else model.outputs[0]


# The last ones stay: images are often explained one by one.
@functools.lru_cache(maxsize=2)
def _traced(model: keras.Model, layer: str | None) -> tuple[Callable, ...]:
    """Returns traced functions of images, and of classes, of a model.

    Returns:
        From images and classes to logits, with what they are taken of; to the gradients
        of these; and from images to all logits. They are taken of the layer's output,
        or of the images.
    """
    outputs = {"logits": logits_of(model)}
    if layer is not None:
        outputs["maps"] = model.get_layer(layer).output
    network = keras.Model(model.inputs[0], outputs)

    def value(x: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = network(x, training=False)
        logits = tf.cast(found["logits"], tf.float32)
        return tf.gather(logits, target, batch_dims=1), found.get("maps", x)

    def gradient(x: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            chosen, of = value(x, target)
        return of, tape.gradient(chosen, of)

    def predict(x: tf.Tensor) -> tf.Tensor:
        return network(x, training=False)["logits"]

    traced = functools.partial(tf.function, autograph=False, reduce_retracing=True)
    return traced(value), traced(gradient), traced(predict)


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise UserError(f"{name} must be at least 1. Received: {number}")
