"""A distribution of its own that adds a layer to keras_alexnet."""

from setuptools import setup

setup(
    name="alexnet-divisive-norm",
    version="0.1.0",
    description="Divisive normalisation for keras_alexnet",
    py_modules=["divisive_norm"],
    install_requires=["keras-alexnet"],
    # keras_alexnet finds the layer through this line, under the name on its left.
    entry_points={
        "keras_alexnet.layers": ["divisive_norm = divisive_norm:DivisiveNormalization"]
    },
)
