"""The named networks at a fraction of their width, and weights that exercise them."""

import dataclasses
from types import MappingProxyType

import keras
import numpy as np

import keras_alexnet

VARIANTS = (
    "alexnet_2012",
    "alexnet_2012_source",
    "alexnet_2012_half",
    "bvlc_alexnet",
    "caffenet",
    "alexnet_owt",
    "alexnet_slim_v2",
)


def changed(architecture, layer, **options):
    """The architecture with other options in one layer."""

    def change(spec):
        if spec.name != layer:
            return spec
        new = MappingProxyType({**spec.options, **options})
        return dataclasses.replace(spec, options=new)

    return dataclasses.replace(
        architecture,
        features=tuple(map(change, architecture.features)),
        top=tuple(map(change, architecture.top)),
    )


def reduced(name):
    """The named network with an eighth of its filters, 48 hidden units, 10 classes.

    Everything else - input, geometry, order, conventions - is that of the full one.
    """
    architecture = keras_alexnet.get_architecture(name)
    for spec in architecture.features:
        if spec.role == "conv":
            filters = spec.options["filters"] // 8
            architecture = changed(architecture, spec.name, filters=filters)
    for layer in ("fc6", "fc7"):
        (spec,) = (spec for spec in architecture.top if spec.name == layer)
        width = {"dense": "units", "conv": "filters"}[spec.role]
        architecture = changed(architecture, layer, **{width: 48})
    return dataclasses.replace(architecture, classes=10)


def randomise(model, seed=0):
    """Fills a model with weights that keep the signal's size from layer to layer.

    At the deviation of 0.01 that the networks start from, the biases would drown it.
    """
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            for weight in layer.weights:
                values = rng.standard_normal(weight.shape, dtype="float32")
                if values.ndim > 1:
                    values *= np.sqrt(2 / np.prod(weight.shape[:-1]), dtype="float32")
                weight.assign(values)
