"""Robustness: adversarial attacks (FGSM, PGD), and accuracy under corruptions.

Attacks change pixels, 0-255, before the preprocessing; their epsilon is a fraction of
that range, as in papers: 8/255.
"""

from __future__ import annotations

import dataclasses
import fractions
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.data.dataset import Split
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.errors import UserError
from keras_alexnet.inspect.explain import logits_of
from keras_alexnet.layers.implementations import compiling
from keras_alexnet.model import AlexNet

Norm = Literal["linf", "l2"]
# From a batch of pixels, classes, and the number of the first image.
Change = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
SEVERITIES = range(1, 6)


# === Attacks ===


def parse_epsilon(text: str, norm: Norm = "linf") -> float:
    """Reads how far an attack may go, as a fraction of the range of pixels.

    Args:
        text: A fraction, `8/255`, or a number of at most 1, `0.03`.
        norm: With `l2` fractions may be larger than 1: `765/255`.

    Raises:
        ValueError: It is something else, such as 8, which may be meant as 8/255.
    """
    try:
        value = float(fractions.Fraction(text))
    except (ValueError, ZeroDivisionError):
        value = -1.0
    if value <= 0 or (value > 1 and not (norm == "l2" and "/" in text)):
        raise UserError(
            "epsilon is a fraction of the range of pixels, such as 8/255 or 0.03. "
            f"Received: {text}"
        )
    return value


def fgsm(
    model: AlexNet, images: np.ndarray, labels: Sequence[int], epsilon: float
) -> np.ndarray:
    """Returns images moved by epsilon along the sign of the gradient of the loss.

    The fast gradient sign method (Goodfellow, Shlens and Szegedy 2014,
    https://arxiv.org/abs/1412.6572).

    Args:
        model: Knows its preprocessing.
        images: RGB or grey pixels, 0-255, of the network's size, `(batch, height,
            width, channels)`.
        labels: The true classes.
        epsilon: Largest change of a pixel, as a fraction of 255; see `parse_epsilon`.

    Returns:
        float32, of the shape of `images`, 0-255; not rounded. What the network mistakes
        anyway stays as it is.
    """
    return pgd(
        model, images, labels, epsilon, steps=1, step=epsilon, random_start=False
    )


def pgd(
    model: AlexNet,
    images: np.ndarray,
    labels: Sequence[int],
    epsilon: float,
    *,
    norm: Norm = "linf",
    steps: int = 20,
    step: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    seed: Any = 0,
) -> np.ndarray:
    """Returns images moved by projected gradient ascent of the cross-entropy.

    Madry et al. 2017, https://arxiv.org/abs/1706.06083.

    Args:
        model: As in `fgsm`.
        images: As in `fgsm`.
        labels: As in `fgsm`.
        epsilon: Radius of the ball around each image, as a fraction of 255.
        norm: `"linf"`, the largest change of a number; or `"l2"`, the Euclidean norm of
            the change of a whole image.
        steps: Gradient steps.
        step: Their length, as a fraction of 255; `2.5 * epsilon / steps` by default.
        restarts: How often to begin anew, with what has not been mistaken yet.
        random_start: Whether to begin anywhere in the ball, not at the image.
        seed: Decides where: an integer, or several.

    Returns:
        As of `fgsm`.

    Raises:
        ValueError: Nobody has said what the model expects of images, or there is no
            such class or norm.
    """
    for name, number in {"steps": steps, "restarts": restarts}.items():
        if number < 1:
            raise UserError(f"{name} must be at least 1. Received: {number}")
    if norm not in ("linf", "l2"):
        raise UserError(f"norm must be linf or l2. Received: {norm}")
    classes, labels = model.output_shape[-1], np.asarray(labels, np.int32)
    if not ((labels >= 0) & (labels < classes)).all():
        raise UserError(f"labels must be from 0 to {classes - 1}. Received: {labels}")
    radius = np.float32(255 * epsilon)
    length = np.float32(2.5 * radius / steps if step is None else 255 * step)
    ascent, predict = _traced(model, norm)
    best = np.array(images, np.float32)
    for restart in range(restarts):
        right = predict(best).numpy() == labels
        if not right.any():
            break
        # Those that are mistaken stay, so that no later attempt makes them right.
        start = np.array(images, np.float32)
        if random_start:
            random = np.random.default_rng((*np.atleast_1d(seed), restart))
            start += radius * _in_ball(start.shape, norm, random)
        start = np.clip(start, 0, 255)
        found = ascent(np.float32(images), start, labels, radius, length, steps)
        best = np.where(right[:, None, None, None], found.numpy(), best)
    return best


def _in_ball(
    shape: tuple[int, ...], norm: Norm, random: np.random.Generator
) -> np.ndarray:
    """Returns numbers that are evenly distributed in balls of radius 1, float32."""
    if norm == "linf":
        return random.uniform(-1, 1, shape).astype(np.float32)
    # The first n of the n + 2 coordinates of a point on a sphere (Voelker 2017).
    size = int(np.prod(shape[1:]))
    points = random.standard_normal((shape[0], size + 2), np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points[:, :size].reshape(shape)


def ascend(
    gradient: Callable[[tf.Tensor], tf.Tensor],
    images: tf.Tensor,
    start: tf.Tensor,
    *,
    norm: Norm,
    radius: tf.Tensor | float,
    step: tf.Tensor | float,
    steps: tf.Tensor | int,
) -> tf.Tensor:
    """Climbs along a gradient within a ball, as TensorFlow operations.

    Args:
        gradient: Of what grows, at images.
        images: The centres, float32 `(batch, height, width, channels)`, 0-255.
        start: Where to begin.
        norm: As in `pgd`.
        radius: Of the ball, in grey levels.
        step: Length of a step, in grey levels.
        steps: How many.
    """

    def length(x: tf.Tensor) -> tf.Tensor:
        norms = tf.math.reduce_euclidean_norm(x, axis=(1, 2, 3), keepdims=True)
        return tf.maximum(norms, 1e-12)

    def move(number: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        uphill = gradient(x)
        if norm == "linf":
            change = x + step * tf.sign(uphill) - images
            change = tf.clip_by_value(change, -radius, radius)
        else:
            change = x + step * uphill / length(uphill) - images
            change *= tf.minimum(radius / length(change), 1)
        return number + 1, tf.clip_by_value(images + change, 0, 255)

    loop = tf.while_loop(lambda number, _: number < steps, move, (0, start))
    return tf.stop_gradient(loop[1])


# The last ones stay: images come in batches.
@functools.lru_cache(maxsize=4)
def _traced(model: AlexNet, norm: Norm) -> tuple[Callable, Callable]:
    """Returns the traced ascent of a model's loss, and its classes of pixels."""
    network = keras.Model(model.inputs[0], logits_of(model))
    preprocessing = model.known_preprocessing

    def logits(pixels: tf.Tensor) -> tf.Tensor:
        x = model.network_input(pixels)
        with compiling():
            x = network(x, training=False)
        return tf.cast(x, tf.float32)

    def ascent(images, start, labels, radius, step, steps):
        def gradient(x: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits(x))
            return tape.gradient(loss, x)

        options = {"norm": norm, "radius": radius, "step": step, "steps": steps}
        return ascend(gradient, images, start, **options)

    def predict(pixels: tf.Tensor) -> tf.Tensor:
        return tf.argmax(logits(pixels), axis=-1, output_type=tf.int32)

    traced = functools.partial(tf.function, autograph=False, reduce_retracing=True)
    number = tf.TensorSpec((), tf.float32)
    shape = (None, preprocessing.image_size, preprocessing.image_size)
    pixels = tf.TensorSpec((*shape, preprocessing.channels), tf.float32)
    labels, steps = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.int32)
    signature = (pixels, pixels, labels, number, number, steps)
    return (
        traced(ascent, input_signature=signature),
        traced(predict, input_signature=(pixels,)),
    )


# === Accuracy ===


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """How many images a network gets right.

    Attributes:
        right: The number of them.
        images: Out of how many.
    """

    right: int
    images: int

    @property
    def value(self) -> float:
        """The fraction."""
        return self.right / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval at 95 %."""
        from scipy.stats import binomtest

        found = binomtest(self.right, self.images).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


def accuracies(
    model: AlexNet,
    splits: Iterable[Split],
    outputs: np.ndarray,
    changes: Mapping[Any, Change],
    batch_size: int = 64,
) -> dict[Any, Accuracy]:
    """Measures a network on images as they are and changed, in one pass over them.

    Args:
        model: Knows its preprocessing.
        splits: The images.
        outputs: The model's output of each class, see `evaluation.match_classes`.
        changes: Functions of float32 pixels, 0-255, of the network's size; of int32
            classes; and of the number of the first image.
        batch_size: Images at a time.

    Returns:
        The accuracy under each change, and of unchanged images as None.

    Raises:
        ValueError: There are no images.
    """
    _, predict = _traced(model, "linf")
    right, images = dict.fromkeys((None, *changes), 0), 0
    for split in splits:
        geometry = model.metadata.preprocessing.geometry
        for pixels, labels, weights in evaluation_batches(split, geometry, batch_size):
            read = weights.numpy() > 0
            pixels, labels = pixels.numpy()[read], outputs[labels.numpy()[read]]
            for name in right if len(pixels) else ():
                x = pixels
                if name is not None:
                    x = changes[name](pixels, labels, images)
                found = predict(x.astype(np.float32)).numpy()
                right[name] += int((found == labels).sum())
            images += len(pixels)
    if not images:
        raise UserError("There are no images to evaluate.")
    return {name: Accuracy(count, images) for name, count in right.items()}


def mean_errors(
    found: Mapping[Any, Accuracy], baseline: Mapping[Any, Accuracy] | None = None
) -> dict[str, dict[str, float]]:
    """Returns the errors under corruptions, also as parts of a baseline's.

    Args:
        found: What `accuracies` returned of `corruptions.corruptions`.
        baseline: The same of another network, AlexNet in the paper.

    Returns:
        For each corruption `error`, the mean over the severities; with a baseline `ce`,
        the sum of errors over the baseline's, and `relative_ce`, the same of errors in
        excess of those on unchanged images; NaN where the baseline has none. Their
        means are mCE and relative mCE (section 4.2 of the paper).
    """

    def error(of: Mapping[Any, Accuracy], name: str) -> float:
        return float(np.mean([1 - of[name, severity].value for severity in SEVERITIES]))

    def divided(one: float, other: float) -> float:
        return one / other if other > 0 else float("nan")

    result = {}
    for name in dict.fromkeys(key[0] for key in found if isinstance(key, tuple)):
        result[name] = {"error": error(found, name)}
        if baseline is not None:
            clean, other = 1 - found[None].value, 1 - baseline[None].value
            errors = error(found, name), error(baseline, name)
            result[name]["ce"] = divided(*errors)
            result[name]["relative_ce"] = divided(errors[0] - clean, errors[1] - other)
    return result
