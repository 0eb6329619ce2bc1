"""Layers by name: registration, lookup and plugins."""

import importlib.metadata

import keras
import pytest
from keras.saving import get_custom_objects

import keras_alexnet
from keras_alexnet import registry
from keras_alexnet.layers import LocalResponseNormalization

OWN = ["grouped_conv", "lrn", "overlapping_max_pooling", "scheduled_dropout"]


@pytest.fixture(autouse=True)
def unchanged_registry(monkeypatch):
    """No plugins, and after the test the registry as it was before."""
    registry.list_layers()
    layers = {name: registry._layers[name] for name in OWN}
    monkeypatch.setattr(registry, "_layers", layers)
    monkeypatch.setattr(registry, "_plugin_errors", {})
    monkeypatch.setattr(registry, "_plugins_loaded", False)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [])
    known = dict(get_custom_objects())
    yield
    get_custom_objects().clear()
    get_custom_objects().update(known)


class EntryPoint:
    """What importlib.metadata knows of a plugin."""

    dist = None

    def __init__(self, name, loaded):
        self.name = name
        self.loaded = loaded
        self.loads = 0

    def load(self):
        self.loads += 1
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


@pytest.fixture
def plugins(monkeypatch):
    """Makes entry points known, and counts how often they are asked for."""

    def install(**loaded):
        points = [EntryPoint(name, value) for name, value in loaded.items()]
        asked = []

        def entry_points(*, group):
            asked.append(group)
            return points

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
        return points, asked

    return install


def new_layer(name="Norm", module="some_lab.norms"):
    return type(name, (keras.layers.Layer,), {"__module__": module})


def test_registered_layer_is_found_listed_and_known_to_keras_under_its_package():
    cls = new_layer()
    for _ in range(2):  # The same class may be registered twice.
        assert keras_alexnet.register_layer("norm", package="lab")(cls) is cls
    assert keras_alexnet.get_layer("norm") is cls
    assert keras_alexnet.list_layers() == sorted([*OWN, "norm"])
    assert keras.saving.get_registered_name(cls) == "lab>Norm"
    assert keras.saving.get_registered_object("lab>Norm") is cls
    assert isinstance(keras.layers.deserialize(keras.layers.serialize(cls())), cls)


def test_a_name_that_is_taken_is_refused_or_replaced():
    first = new_layer(module="lab_a.norms")
    keras_alexnet.register_layer("norm", package="lab")(first)
    second = new_layer(module="lab_b.norms")
    with pytest.raises(ValueError, match=r"'norm'.*lab_a\.norms.*lab_b\.norms.*force"):
        keras_alexnet.register_layer("norm", package="b")(second)
    # Nor may Keras save two classes under one name.
    with pytest.raises(ValueError, match=r"lab>Norm.*lab_a\.norms.*package"):
        keras_alexnet.register_layer("other", package="lab")(second)
    assert keras_alexnet.list_layers("*o*r*") == ["norm", "overlapping_max_pooling"]
    assert keras_alexnet.get_layer("norm") is first
    keras_alexnet.register_layer("norm", package="lab", force=True)(second)
    assert keras_alexnet.get_layer("norm") is second
    assert keras.saving.get_registered_object("lab>Norm") is second


@pytest.mark.parametrize(
    "name, nearest",
    [
        ("lnr", " Did you mean 'lrn'?"),
        ("groupedconv", " Did you mean 'grouped_conv'?"),
        ("xyzzy", ""),
    ],
)
def test_unknown_name_lists_what_exists_and_suggests_the_nearest(name, nearest):
    with pytest.raises(ValueError) as raised:
        keras_alexnet.get_layer(name)
    message = str(raised.value)
    assert message.startswith(f"Unknown layer '{name}'.{nearest} Available: ")
    assert all(own in message for own in (*OWN, "keras.layers"))


@pytest.mark.parametrize(
    "name, cls",
    [
        ("batch_normalization", keras.layers.BatchNormalization),
        ("BatchNormalization", keras.layers.BatchNormalization),
        ("max_pooling2d", keras.layers.MaxPooling2D),
        ("relu", keras.layers.ReLU),
        ("dense", keras.layers.Dense),
    ],
)
def test_layers_of_keras_go_by_their_names_in_any_case(name, cls):
    assert keras_alexnet.get_layer(name) is cls
    own = new_layer()
    keras_alexnet.register_layer(name, package="lab")(own)
    assert keras_alexnet.get_layer(name) is own


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("*", OWN),
        ("*conv*", ["grouped_conv"]),
        ("l?n", ["lrn"]),
        ("[lo]*", ["lrn", "overlapping_max_pooling"]),
        ("nothing*", []),
    ],
)
def test_list_takes_shell_patterns_and_is_sorted(pattern, names):
    assert keras_alexnet.list_layers(pattern) == names


def test_plugins_load_on_the_first_miss_and_only_once(plugins):
    cls = new_layer()
    (point,), asked = plugins(norm=cls)
    assert keras_alexnet.get_layer("lrn") is LocalResponseNormalization
    assert asked == []
    for _ in range(2):
        assert keras_alexnet.get_layer("norm") is cls
        assert keras_alexnet.get_layer("dense") is keras.layers.Dense
        assert "norm" in keras_alexnet.list_layers()
    assert asked == [registry.ENTRY_POINT_GROUP]
    assert point.loads == 1


def test_plugin_that_registers_itself_is_loaded_all_the_same(plugins):
    cls = new_layer()

    class Registering(EntryPoint):
        def load(self):
            return keras_alexnet.register_layer("norm", package="lab")(cls)

    points, _ = plugins()
    points.append(Registering("norm", None))
    assert keras_alexnet.get_layer("norm") is cls
    assert registry.plugin_errors() == {}


@pytest.mark.parametrize(
    "error", [ImportError("no torch here"), SyntaxError("bad"), KeyError("x")], ids=repr
)
def test_broken_plugin_breaks_nothing_but_its_own_name(plugins, error):
    cls = new_layer()
    plugins(broken=error, norm=cls)
    assert keras_alexnet.get_layer("norm") is cls
    assert keras_alexnet.get_layer("dense") is keras.layers.Dense
    assert keras_alexnet.list_layers() == sorted([*OWN, "norm"])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"'broken' failed to load") as raised:
            keras_alexnet.get_layer("broken")
        assert type(error).__name__ in str(raised.value)
        assert raised.value.__cause__ is error
    assert registry.plugin_errors() == {"broken": error}


def test_plugin_that_takes_an_own_name_is_an_error_that_changes_nothing(plugins):
    plugins(lrn=new_layer())
    assert list(registry.plugin_errors()) == ["lrn"]
    assert keras_alexnet.get_layer("lrn") is LocalResponseNormalization
    assert keras_alexnet.list_layers() == OWN
