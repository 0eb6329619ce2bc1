"""The model class: a functional Keras model that knows itself, compiled in the replica.

Keras compiles the whole distributed step when asked for `jit_compile=True`, which fails
with more than one replica, because XLA cannot compile what happens between devices.
`AlexNet` compiles what happens on one device - forward pass, loss, gradients - and
leaves the exchange between replicas, the update and the metrics outside.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_alexnet.architectures import list_architectures
from keras_alexnet.errors import UserError
from keras_alexnet.images.preprocessing import Preprocessing, in_data_format
from keras_alexnet.layers.implementations import compiling
from keras_alexnet.weights.labels import imagenet_classes, name_classes
from keras_alexnet.weights.weight_file import METADATA

# Keras's names of precisions: computations in them, weights in float32.
POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a model is, what its weights expect, and what its outputs mean.

    Attributes:
        preprocessing: From images to the network's input.
        class_names: In the order of the outputs; empty where they are not known.
        class_order: `"wordnet"` or `"ilsvrc2012"` where the classes are the 1,000 of
            ImageNet in that order.
        weights: Where the weights come from, for people.
        digest: Digest of the file that they come from, `"sha256:..."`, where known.
        architecture: The name of the architecture.
    """

    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    class_order: str | None = None
    weights: str | None = None
    digest: str | None = None
    architecture: str | None = None

    def to_config(self) -> dict[str, Any]:
        """Returns the value as a dictionary that JSON can hold."""
        config = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        preprocessing = self.preprocessing and self.preprocessing.to_config()
        names = list(self.class_names)
        return {**config, "preprocessing": preprocessing, "class_names": names}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Metadata:
        """Restores what `to_config` returned; what is missing has its default."""
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in config.items() if name in known}
        if values.get("preprocessing"):
            values["preprocessing"] = Preprocessing.from_config(values["preprocessing"])
        values["class_names"] = tuple(values.get("class_names", ()))
        return cls(**values)


@keras.saving.register_keras_serializable("keras_alexnet")
class AlexNet(keras.Model):
    """An AlexNet, as `keras_alexnet.build()` makes it.

    Use it as any functional Keras model: `compile`, `fit`, `evaluate`, `predict`,
    `save`, `export`, under any `tf.distribute` strategy that Keras supports. With
    `compile(jit_compile=True)`, `fit` works under several replicas too.

    A model with published or trained weights carries what those expect, through `save`
    and `load_model` too: `preprocess(images)` makes its input, `decode_predictions(p)`
    names its output. A clone has new weights, and therefore carries nothing.
    """

    # On the class, because Keras alone makes the instances.
    metadata: Metadata = Metadata()
    # Into how many micro-batches `train_step` cuts each replica's batch, one after the
    # other. The gradients are averaged, so only memory and rounding change; but batch
    # normalisation takes each for a batch. The batch must be a multiple of it.
    micro_batches: int = 1

    # === What the weights expect ===

    def bind(
        self,
        preprocessing: Preprocessing | None = None,
        *,
        class_names: Sequence[str] | None = None,
        class_order: str | None = None,
        weights: str | None = None,
        digest: str | None = None,
        architecture: str | None = None,
    ) -> None:
        """Says what the model's weights expect of images, and what its outputs mean.

        What is not given stays as it is.

        Args:
            preprocessing: From images to the network's input.
            class_names: One for each output, in their order.
            class_order: In place of names: `"wordnet"` or `"ilsvrc2012"`, where the
                outputs are the 1,000 classes of ImageNet in that order.
            weights: Where the weights come from, for people.
            digest: Digest of the file that they come from, `"sha256:..."`.
            architecture: The name of the architecture.

        Raises:
            ValueError: There are more or fewer names than outputs.
        """
        changes: dict[str, Any] = {
            "preprocessing": preprocessing,
            "weights": weights,
            "digest": digest,
            "architecture": architecture,
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        if weights is not None:
            changes["digest"] = digest
        if class_order is not None and not class_names:
            class_names = [name for _, name in imagenet_classes(class_order)]
        if class_names is not None:
            outputs = self.output_shape[-1]
            if len(class_names) not in (0, outputs):
                raise UserError(
                    f"{len(class_names)} class names for a model of {outputs} outputs."
                )
            changes |= {"class_names": tuple(class_names), "class_order": class_order}
        self.metadata = dataclasses.replace(self.metadata, **changes)

    @property
    def image_shape(self) -> tuple[int | None, int | None, int]:
        """Height, width and channels of the input, in this order in any data format."""
        shape = self.input_shape[1:]
        last = keras.config.image_data_format() == "channels_last"
        return shape if last else (*shape[1:], shape[0])

    def preprocess(self, images: Any) -> tf.Tensor:
        """Turns images into this model's input.

        Args:
            images: One image, a batch, or a list of images of any sizes; see
                `Preprocessing.__call__`. RGB or grey on a scale of 0-255.

        Returns:
            float32, `(batch, height, width, channels)`, or channels first where Keras
            is set so.

        Raises:
            ValueError: Nobody has said what the model expects, or something is not an
                image.
        """
        return in_data_format(self.known_preprocessing(images))

    @property
    def known_preprocessing(self) -> Preprocessing:
        """What the model expects of images.

        Raises:
            ValueError: Nobody has said so.
        """
        if self.metadata.preprocessing is None:
            raise UserError(
                f"{self.name} does not know its preprocessing, because its weights are "
                "neither published nor trained here. Use preprocess_input, or say what "
                "it expects with model.bind(preprocessing)."
            )
        return self.metadata.preprocessing

    def network_input(self, pixels: Any) -> Any:
        """Turns pixels, 0-255, that are as large as the input into this model's input.

        Args:
            pixels: An array or a tensor, `(batch, height, width, channels)`, RGB or
                grey.

        Returns:
            float32, of the same kind, in Keras's own data format.

        Raises:
            ValueError: Nobody has said what the model expects.
        """
        return in_data_format(self.known_preprocessing.normalize(pixels))

    def decode_predictions(
        self, predictions: Any, top: int = 5
    ) -> list[list[tuple[str, str, float]]]:
        """Names the likeliest classes of each image.

        Args:
            predictions: What the model returned, `(batch, classes)`.
            top: How many.

        Returns:
            For each image `top` triples of WordNet id, name and score, the likeliest
            first. Where the classes are not ImageNet's, the name is the id too.

        Raises:
            ValueError: Nobody has said what the classes are, or the shape is wrong.
        """
        if self.metadata.class_order is not None:
            classes = imagenet_classes(self.metadata.class_order)
        elif self.metadata.class_names:
            classes = [(name, name) for name in self.metadata.class_names]
        else:
            raise UserError(
                f"The classes of {self.name} have no names. Give them with "
                "model.bind(preprocessing, class_names=...)."
            )
        return name_classes(predictions, classes, top)

    def get_config(self) -> dict[str, Any]:
        """Returns the functional model's config, and what the weights expect."""
        config = super().get_config()
        if self.metadata != Metadata():
            config[METADATA] = self.metadata.to_config()
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> AlexNet:
        """Rebuilds the model, with new weights, from what `get_config` returned.

        Arguments of layers that this version of Keras does not know, because another
        one saved the model, are left out.
        """
        config = dict(config)
        metadata = Metadata.from_config(config.pop(METADATA, {}))
        if metadata.architecture is None and config["name"] in list_architectures():
            # Of an earlier version of this package.
            metadata = dataclasses.replace(metadata, architecture=config["name"])
        try:
            model = super().from_config(copy.deepcopy(config), custom_objects)
        except (TypeError, ValueError):
            known = _without_unknown_arguments(config)
            if known == config:
                raise
            model = super().from_config(known, custom_objects)
        model.metadata = metadata
        return model

    # === Steps ===

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Returns the outputs; for no images, no outputs."""
        shape = getattr(inputs, "shape", ())
        if len(shape) > 1 and shape[0] == 0 and not training:
            # TensorFlow's convolution returns a wrong shape for them.
            one = tf.zeros((1, *shape[1:]), inputs.dtype)
            return super().call(one, training=training, mask=mask)[:0]
        return super().call(inputs, training=training, mask=mask)

    def make_train_function(self, force: bool = False) -> None:
        """Creates the function that `fit` calls for each step."""
        with self._without_outer_jit():
            super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> None:
        """Creates the function that `evaluate` calls for each step."""
        with self._without_outer_jit():
            super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> None:
        """Creates the function that `predict` calls for each step."""
        with self._without_outer_jit():
            super().make_predict_function(force)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Updates the weights once, from one batch.

        Runs on each replica, with that replica's shard of the batch.

        Args:
            data: `(images, labels)` or `(images, labels, sample_weight)`.

        Returns:
            The compiled metrics and the loss, which is the mean over all replicas.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        variables = self.trainable_variables

        def forward_backward(x, y, sample_weight):
            with tf.GradientTape() as tape:
                predictions = self(x, training=True)
                loss = self.compute_loss(x, y, predictions, sample_weight)
                scaled = self.optimizer.scale_loss(loss)
            return loss, predictions, tape.gradient(scaled, variables)

        statistics = self._statistics()
        before = [tf.identity(variable.value) for variable in statistics]
        compute = self._on_replica(forward_backward)
        if self.micro_batches > 1:
            compute = averaged_over_micro_batches(compute, self.micro_batches)
        loss, predictions, gradients = compute(x, y, sample_weight)
        if hasattr(self.optimizer, "jit_compile"):
            self.optimizer.jit_compile = self.jit_compile
        if variables:  # None where every layer is frozen.
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        # What such a step would leave behind would stay: none of it must.
        applied = tf.equal(getattr(self.optimizer, "skipped_in_row", 0), 0)
        context = tf.distribute.get_replica_context()
        for variable, old in zip(statistics, before, strict=True):
            new = tf.identity(variable.value)
            if context.num_replicas_in_sync > 1:
                # Each replica has its own; a model and a checkpoint have one.
                new = context.all_reduce("MEAN", new)
            variable.assign(tf.where(applied, new, old))
        return self._update_metrics(
            x, y, predictions, sample_weight, loss, applied=applied
        )

    def _statistics(self) -> list[keras.Variable]:
        """Returns what a training step changes besides weights: moving averages."""
        layers = self._flatten_layers(include_self=False)
        frozen = {
            id(variable)
            for layer in layers
            if not layer.trainable
            for variable in layer.variables
        }
        # Seeds are integers.
        return [
            variable
            for variable in self.non_trainable_variables
            if tf.as_dtype(variable.dtype).is_floating and id(variable) not in frozen
        ]

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Returns loss and metrics of one batch, in inference mode."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)

        def forward(x, y, sample_weight):
            predictions = self._infer(x)
            loss = self.compute_loss(x, y, predictions, sample_weight, training=False)
            return loss, predictions

        loss, predictions = self._on_replica(forward)(x, y, sample_weight)
        return self._update_metrics(x, y, predictions, sample_weight, loss)

    def predict_step(self, data: Any) -> tf.Tensor:
        """Returns the outputs for one batch, in inference mode."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)

        return self._on_replica(self._infer)(x)

    def _infer(self, x: tf.Tensor) -> tf.Tensor:
        # Unlike an export, what is traced here may hold compiled functions.
        with compiling():
            return self(x, training=False)

    def _on_replica(self, function):
        """Compiles a function of tensors for the device that it is traced on.

        A new tf.function for each call: a step is traced once for every replica, and
        each needs its own, because a traced function holds one replica's variables.
        """
        if not self.jit_compile:
            return function
        return tf.function(function, jit_compile=True, autograph=False)

    @contextlib.contextmanager
    def _without_outer_jit(self) -> Iterator[None]:
        """Hides `jit_compile` from Keras while it wraps a step."""
        jit_compile, self.jit_compile = self.jit_compile, False
        try:
            yield
        finally:
            self.jit_compile = jit_compile

    def _update_metrics(self, x, y, predictions, sample_weight, loss, applied=None):
        # Under a strategy Keras divides a loss by the number of replicas, so that
        # gradients sum up to those of the global mean. What is reported is that mean;
        # where examples have weights, the weighted mean.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        size = tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], loss.dtype)
        weight = size
        if sample_weight is not None:
            weight = tf.reduce_sum(tf.cast(sample_weight, loss.dtype))
        mean = tf.math.divide_no_nan(loss * replicas * size, weight)
        if applied is not None:
            # 0 times NaN would be NaN.
            mean = tf.where(applied, mean, 0)
            weight = tf.where(applied, weight, 0)
            predictions = tf.where(applied, predictions, 0)
            if sample_weight is not None:
                sample_weight = tf.where(applied, sample_weight, 0)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(mean, sample_weight=weight)
        return self.compute_metrics(x, y, predictions, sample_weight)


# (x, y, sample_weight) -> (loss, predictions, gradients)
Compute = Callable[[Any, Any, Any], tuple[tf.Tensor, tf.Tensor, list[tf.Tensor | None]]]


def averaged_over_micro_batches(compute: Compute, count: int) -> Compute:
    """Makes a function that computes a batch in equal parts, one after the other.

    Only one part's activations are in memory at a time. What is returned is what the
    whole batch would give, but for rounding: the mean of the losses and of the
    gradients, and all predictions.

    Args:
        compute: From `(x, y, sample_weight)` to loss, predictions and gradients, the
            loss a mean over the examples.
        count: How many micro-batches. The batch size must be a multiple.

    Returns:
        A function of the same form.
    """

    def each(function, structure):
        # To tf.nest None, where there are no weights, would be a leaf.
        return None if structure is None else tf.nest.map_structure(function, structure)

    def whole(x, y, sample_weight):
        batch = [each(lambda t: _split(t, count), one) for one in (x, y, sample_weight)]

        def part(index):
            return compute(*(each(lambda t: t[index], one) for one in batch))

        # The first one tells what the others add up to.
        loss, predictions, gradients = part(0)
        known = [index for index, g in enumerate(gradients) if g is not None]
        collected = tf.TensorArray(
            predictions.dtype, count, element_shape=predictions.shape
        ).write(0, predictions)

        def add(index, loss, collected, sums):
            one_loss, predictions, gradients = part(index)
            sums = [total + gradients[i] for total, i in zip(sums, known, strict=True)]
            return index + 1, loss + one_loss, collected.write(index, predictions), sums

        _, loss, collected, sums = tf.while_loop(
            lambda index, *_: index < count,
            add,
            (1, loss, collected, [tf.convert_to_tensor(gradients[i]) for i in known]),
            # At once, they would take as much memory as the whole batch.
            parallel_iterations=1,
        )
        for index, total in zip(known, sums, strict=True):
            gradients[index] = total / count
        return loss / count, collected.concat(), gradients

    return whole


def _split(tensor: tf.Tensor, count: int) -> tf.Tensor:
    """Reshapes `(batch, ...)` to `(count, batch / count, ...)`."""
    batch = tensor.shape[0]
    if batch is not None and batch % count:
        raise UserError(
            f"A replica's batch of {batch} cannot be cut into {count} equal parts."
        )
    shape = tf.concat([[count, -1], tf.shape(tensor)[1:]], axis=0)
    size = None if batch is None else batch // count
    return tf.ensure_shape(tf.reshape(tensor, shape), (count, size, *tensor.shape[1:]))


# === Other versions of Keras ===


def _without_unknown_arguments(config: Any) -> Any:
    """Returns a configuration without what no constructor of this Keras takes."""
    if isinstance(config, (list, tuple)):
        return [_without_unknown_arguments(one) for one in config]
    if not isinstance(config, dict):
        return config
    config = {name: _without_unknown_arguments(one) for name, one in config.items()}
    cls, arguments = _class_of(config), config.get("config")
    if cls is None or not isinstance(arguments, dict):
        return config
    unknown = {name: arguments[name] for name in arguments.keys() - _arguments(cls)}
    if ignored := {n: v for n, v in unknown.items() if v not in (None, False)}:
        warnings.warn(
            f"Another version of Keras saved this model; {cls.__name__} does not know "
            f"{ignored}, which is ignored.",
            stacklevel=2,
        )
    known = {name: one for name, one in arguments.items() if name not in unknown}
    return {**config, "config": known}


def _class_of(config: dict[str, Any]) -> type | None:
    """Returns the class of a serialised object, if it is Keras's or ours."""
    name, module = str(config.get("class_name")), config.get("module")
    cls = keras.saving.get_registered_object(config.get("registered_name") or name)
    if cls is None:
        # Legacy .h5 files name no modules.
        places = [module] if module else ["keras.layers", "keras.initializers"]
        for place in [one.split(".") for one in places]:
            if cls is None and place[0] == "keras":
                parts = [*place[1:], name]
                cls = functools.reduce(lambda o, n: getattr(o, n, None), parts, keras)
    own = isinstance(cls, type) and cls.__module__.split(".")[0] in (
        "keras",
        "keras_alexnet",
    )
    return cls if own and not issubclass(cls, keras.Model) else None


def _arguments(cls: type) -> set[str]:
    """Returns what a constructor takes, as far as it passes arguments on to others."""
    names = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            names |= {one.name for one in parameters}
            if not any(one.kind is one.VAR_KEYWORD for one in parameters):
                break
    return names


# Keras's .h5 files call a model by the name of its class alone.
keras.saving.get_custom_objects()["AlexNet"] = AlexNet
