"""The configuration: what it accepts, how it is written, what recipes make of it."""

import ast
import dataclasses
import inspect
import json
import typing

import pytest

import keras_alexnet.config
from keras_alexnet.config import CHOICES, TrainConfig
from keras_alexnet.recipes import RECIPES, get_recipe

FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}


# === Written and read ===


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(
            run_dir="läufe/1", channels=1, image_size=64, dropout="linear(0.5)"
        ),
        *[get_recipe(name) for name in RECIPES],
    ],
)
def test_a_configuration_survives_json(config, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(config.to_json(), encoding="utf-8")
    assert TrainConfig.from_file(path) == config
    assert TrainConfig.from_dict(json.loads(config.to_json())) == config


def test_json_holds_every_setting():
    assert list(json.loads(TrainConfig().to_json())) == list(FIELDS)


def test_settings_that_are_left_out_have_their_defaults():
    assert TrainConfig.from_dict({"epochs": 3}) == TrainConfig(epochs=3)


def test_an_unknown_setting_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match="'learning_rat'.*Did you mean 'learning_rate'"
    ):
        TrainConfig.from_dict({"learning_rat": "0.1"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="Cannot read .*none.json: No such file"):
        TrainConfig.from_file(tmp_path / "none.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="config.json is not JSON"):
        TrainConfig.from_file(path)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"epochs"'])
def test_json_that_holds_no_settings_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="config.json does not hold settings"):
        TrainConfig.from_file(path)


# === Checked ===

NAN, INFINITY = float("nan"), float("inf")
WRONG = [
    *[(name, value) for name in ("epochs", "global_batch_size") for value in (0, -1)],
    *[(name, value) for name in ("image_size", "resize_size") for value in (0, -5)],
    *[(name, value) for name in ("groups", "replicas") for value in (0, -1)],
    ("crop_padding", -1),
    *[
        (name, value)
        for name in ("color_noise", "weight_decay", "rotation")
        for value in (-0.1, NAN, INFINITY)
    ],
    *[
        (name, value)
        for name in ("test_fraction", "momentum", "zoom")
        for value in (-0.1, 1.0, NAN)
    ],
    *[("seed", value) for value in (-1, 2**32)],
    *[("channels", value) for value in (0, 2, 4)],
    ("precision", "float16"),
    ("xla", "maybe"),
    *[
        ("learning_rate", value)
        for value in ("-1", "nan", "inf", "linear(0.1, end=-0.1)")
    ],
    *[("dropout", value) for value in ("-0.1", "1", "nan", "linear(0.5, end=1.5)")],
]


@pytest.mark.parametrize("name, value", WRONG, ids=lambda value: str(value))
def test_a_value_out_of_range_is_refused_with_its_name_and_itself(name, value):
    with pytest.raises(ValueError) as error:
        TrainConfig(**{name: value})
    assert name in str(error.value) and str(value) in str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("cosin(0.1)", "Unknown schedule 'cosin'. Did you mean 'cosine'"),
        ("cosine(0.1, warmpu=1)", "Did you mean 'warmup'"),
        ("cosine(0.1", "number or a call"),
        ("fast", "number or a call"),
        ("step('a')", "Invalid schedule"),
        ("cosine(0.1, warmup=1)", "warmup must be in"),
    ],
)
@pytest.mark.parametrize("name", ["learning_rate", "dropout"])
def test_a_schedule_that_cannot_be_read_is_refused(name, text, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        TrainConfig(**{name: text})


@pytest.mark.parametrize("batch, replicas", [(1, 2), (3, 4), (9, 2), (10, 4)])
def test_a_batch_must_be_shared_equally_by_the_replicas(batch, replicas):
    with pytest.raises(ValueError, match=f"batch of {batch} .*multiple of {replicas}"):
        TrainConfig(global_batch_size=batch, replicas=replicas)
    assert TrainConfig(global_batch_size=4 * replicas, replicas=replicas)


def test_there_must_be_something_to_crop():
    with pytest.raises(ValueError, match="Nothing to crop.*resize_size=20"):
        TrainConfig(image_size=28, resize_size=20, crop_padding=3)
    assert TrainConfig(image_size=28, resize_size=20, crop_padding=4)


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 2**32 - 1},
        {"seed": 0},
        {"momentum": 0.0, "weight_decay": 0.0, "color_noise": 0.0, "dropout": "0"},
        {"learning_rate": "0"},
        {"learning_rate": "cosine(0.1, warmup=0.99)"},
    ],
)
def test_values_at_the_ends_of_their_ranges_are_accepted(settings):
    TrainConfig(**settings)


# === Described ===


def test_choices_are_those_of_the_type_hints():
    hints = typing.get_type_hints(TrainConfig)
    for name, choices in CHOICES.items():
        options = typing.get_args(hints[name])
        literal = [
            o for option in options for o in typing.get_args(option) or (option,)
        ]
        allowed = {None if option is type(None) else option for option in literal}
        assert allowed == set(choices)
        assert FIELDS[name].default in choices


def test_every_setting_is_explained_where_it_is_defined():
    tree = ast.parse(inspect.getsource(keras_alexnet.config))
    body = next(
        node.body
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "TrainConfig"
    )
    explained = {
        field.target.id
        for field, text in zip(body, body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and text.value.value.endswith(".")
    }
    assert explained == set(FIELDS)


# === Recipes ===


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match="Unknown recipe 'digts'.*Did you mean 'digits'"
    ):
        get_recipe("digts")


@pytest.mark.parametrize(
    "data, recipe",
    [("digits", "digits"), ("folder:photos", "alexnet-2012"), ("", "alexnet-2012")],
)
def test_auto_is_the_recipe_that_suits_the_data(data, recipe):
    config = get_recipe("auto", data)
    assert config == get_recipe(recipe, data)
    assert config.recipe == recipe and config.data == data


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_what_it_says_and_nothing_else(name):
    config = dataclasses.asdict(get_recipe(name, "folder:x"))
    expected = {**dataclasses.asdict(TrainConfig()), **RECIPES[name]}
    assert config == {**expected, "recipe": name, "data": "folder:x"}


def test_the_2012_recipe_is_the_papers():
    config = get_recipe("alexnet-2012", "folder:imagenet")
    assert config.architecture == "alexnet_2012" and config.horizontal_flip
    # Sections 4.1, 4.2 and 5.
    assert (config.epochs, config.global_batch_size) == (90, 128)
    assert (config.momentum, config.weight_decay) == (0.9, 0.0005)
    assert (config.color_noise, config.dropout) == (0.1, "0.5")


def test_digits_are_never_mirrored():
    assert not get_recipe("digits").horizontal_flip


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"augmentation": "modern", "rotation": 5.0}, "has no crop_padding, rotation"),
        ({"augmentation": "modern", "crop_padding": 2}, "has no crop_padding"),
        ({"augment_on": "device", "mixup": 0.2}, "happen on the host"),
        ({"augment_on": "device", "augmentation": "modern"}, "happen on the host"),
        ({"augmentation": "2013"}, "must be one of 2012, modern"),
        ({"mean": "median"}, "must be one of pixel, image"),
        ({"cutmix": -1.0}, "cutmix must be finite and not negative"),
    ],
)
def test_augmentations_that_contradict_themselves_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)
