"""Adversarial training: each step sees images moved to where the network errs most."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.inspect.explain import logits_of
from keras_alexnet.inspect.robustness import ascend, parse_epsilon
from keras_alexnet.training.config import TrainConfig


def make_attack(
    config: TrainConfig, model: keras.Model, preprocessing: Preprocessing
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns what moves a replica's images, as operations of its step.

    PGD within an L-infinity ball of pixels, from a random start (Madry et al. 2017,
    https://arxiv.org/abs/1706.06083), with the network as in inference. A single step
    is 1.25 times as long as the ball's radius (Wong, Rice and Kolter 2020,
    https://arxiv.org/abs/2001.03994), several are 2.5 times as long in all.

    Args:
        config: Its `adversarial`, `adversarial_steps` and `seed`.
        model: The compiled model that is trained.
        preprocessing: What it expects of pixels.

    Returns:
        A function of normalised images and of labels, which are classes or
        probabilities; where it begins depends on the seed, the step and the replica.
    """
    network = keras.Model(model.inputs[0], logits_of(model))
    radius, steps = 255 * parse_epsilon(config.adversarial), config.adversarial_steps
    length = (1.25 if steps == 1 else 2.5 / steps) * radius

    def attack(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        shape = (1, *images.shape[1:])
        # Preprocessing is affine: back to grey levels, in the network's channel order.
        black = preprocessing.normalize(tf.zeros(shape))
        level = (preprocessing.normalize(tf.fill(shape, 255.0)) - black) / 255

        def gradient(x: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(x)
                logits = network(black + level * x, training=False)
                logits = tf.cast(logits, tf.float32)
                if labels.shape.rank == 2:
                    loss = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
                else:
                    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                        tf.cast(labels, tf.int32), logits
                    )
            return tape.gradient(loss, x)

        context = tf.distribute.get_replica_context()
        step = tf.cast(model.optimizer.iterations.value, tf.int32)
        number = step * context.num_replicas_in_sync + tf.cast(
            context.replica_id_in_sync_group, tf.int32
        )
        pixels = (images - black) / level
        noise = tf.random.stateless_uniform(
            tf.shape(images), (config.seed % 2**31, number), -radius, radius
        )
        start = tf.clip_by_value(pixels + noise, 0, 255)
        settings = {"norm": "linf", "radius": radius, "step": length, "steps": steps}
        return black + level * ascend(gradient, pixels, start, **settings)

    return attack
