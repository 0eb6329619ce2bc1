"""Layers by name: what the builder, the command line and plugins meet through.

A layer is registered once, under a short name, together with its Keras serialisation:

    @register_layer("divisive_norm", package="my_lab")
    class DivisiveNormalization(keras.layers.Layer): ...

Another distribution makes its layers known through the entry-point group
`keras_alexnet.layers` (`name = module:Class`). Entry points are loaded once, when a
name is first missed or listed, never at import; one that fails to load is reported when
its own name is asked for, and breaks nothing else.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.metadata
import re
from collections.abc import Callable
from typing import TypeVar

import keras

from keras_alexnet.errors import UserError, unknown

ENTRY_POINT_GROUP = "keras_alexnet.layers"

LayerClass = TypeVar("LayerClass", bound=type)

_layers: dict[str, type] = {}
_plugin_errors: dict[str, Exception] = {}
_plugins_loaded = False


def register_layer(
    name: str, *, package: str = "keras_alexnet", force: bool = False
) -> Callable[[LayerClass], LayerClass]:
    """Registers a layer class under a short name and with Keras serialisation.

    Args:
        name: The short name, e.g. `"lrn"`: what `keras_alexnet.build(norm="lrn")` and
            the command line call the layer.
        package: The namespace of the class in saved models: `package>ClassName`.
        force: Replace what is registered under this name.

    Returns:
        A class decorator that returns the class unchanged.

    Raises:
        ValueError: `name`, or `package>ClassName`, is taken by another class; or what
            is decorated is not a Keras layer.
    """

    def register(cls: LayerClass) -> LayerClass:
        if not (isinstance(cls, type) and issubclass(cls, keras.layers.Layer)):
            raise UserError(
                f"{cls!r}, to be registered as {name!r}, is no Keras layer."
            )
        known = _layers.get(name)
        if known is not None and known is not cls and not force:
            raise UserError(
                f"The layer name {name!r} is already taken by "
                f"{known.__module__}.{known.__name__}; "
                f"{cls.__module__}.{cls.__name__} cannot have it too. Choose another "
                "name, or pass force=True to replace it."
            )
        # Keras would overwrite silently, and saved models would load the wrong class.
        saved_name = f"{package}>{cls.__name__}"
        serialised = keras.saving.get_registered_object(saved_name)
        if serialised is not None and serialised is not cls and not force:
            raise UserError(
                f"Keras already has a class saved as {saved_name!r}, from "
                f"{serialised.__module__}. Pass another package to register_layer."
            )
        keras.saving.register_keras_serializable(package)(cls)
        _layers[name] = cls
        return cls

    return register


def get_layer(name: str) -> type:
    """Returns the layer class registered under a name.

    The package's own names come first, then the plugins', then every class of
    `keras.layers`, by its name in any case and with or without underscores:
    `"batch_normalization"`, `"max_pooling2d"`.

    Args:
        name: The short name.

    Returns:
        A subclass of `keras.layers.Layer`.

    Raises:
        ValueError: No such layer (the message lists what exists), or the plugin that
            provides it failed to load (the message says why).
    """
    _load_own()
    if name in _layers:
        return _layers[name]
    _load_plugins()
    if name in _layers:
        return _layers[name]
    if name in _plugin_errors:
        error = _plugin_errors[name]
        raise UserError(
            f"The plugin that provides the layer {name!r} failed to load: "
            f"{type(error).__name__}: {error}"
        ) from error
    keras_layers = _keras_layers()
    if name.replace("_", "").lower() in keras_layers:
        return keras_layers[name.replace("_", "").lower()]
    raise UserError(
        unknown(
            name,
            "layer",
            _layers,
            "or any class of keras.layers",
            [_snake_case(layer.__name__) for layer in keras_layers.values()],
        )
    )


def list_layers(pattern: str = "*") -> list[str]:
    """Lists the registered names, plugins included, that match a shell pattern."""
    _load_own()
    _load_plugins()
    return sorted(fnmatch.filter(_layers, pattern))


def plugin_errors() -> dict[str, Exception]:
    """Returns the entry points that failed to load, each with its error."""
    _load_plugins()
    return dict(_plugin_errors)


def _load_own() -> None:
    # Not at the top of the file: the layers import this module to register themselves.
    importlib.import_module("keras_alexnet.layers")


def _load_plugins() -> None:
    global _plugins_loaded
    if _plugins_loaded:
        return
    _plugins_loaded = True
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            cls = entry_point.load()
            if _layers.get(entry_point.name) is not cls:
                package = entry_point.dist.name if entry_point.dist else "plugin"
                register_layer(entry_point.name, package=package)(cls)
        except Exception as error:  # A plugin may fail in any way it likes.
            _plugin_errors[entry_point.name] = error


def _keras_layers() -> dict[str, type]:
    return {
        name.lower(): layer
        for name, layer in vars(keras.layers).items()
        if isinstance(layer, type) and issubclass(layer, keras.layers.Layer)
    }


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
