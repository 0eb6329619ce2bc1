"""The configuration: what it accepts, how it is written, what recipes make of it."""

import ast
import dataclasses
import inspect
import json

import numpy as np
import pytest

import keras_alexnet.training.config
from keras_alexnet.schedules import Linear, Piecewise
from keras_alexnet.training.config import TrainConfig, get_recipe, read_settings
from keras_alexnet.training.recipes import RECIPES

FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}


# === Written and read ===


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(data="folder:läufe", channels=1, dropout="linear(0.5)"),
        TrainConfig(freeze=("conv*", "fc6"), rate_multipliers=("fc8=10", "fc7=0.1")),
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


def test_settings_of_earlier_versions_that_are_arguments_now_are_ignored(tmp_path):
    config = TrainConfig(recipe="caffe", epochs=3)
    values = {**json.loads(config.to_json()), "run_dir": "runs/1", "resume": True}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    assert TrainConfig.from_file(path) == TrainConfig.from_dict(values) == config


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


@pytest.mark.parametrize(
    "name, number, text",
    [
        ("learning_rate", 0.05, "0.05"),
        ("dropout", 0, "0"),
        ("color_noise", 0.1, "0.1"),
        ("bias_multiplier", 2, "2"),
        ("color_noise", np.float32(0.5), "0.5"),
    ],
)
def test_a_number_is_a_schedule(name, number, text):
    config = TrainConfig(**{name: number})
    assert config == TrainConfig(**{name: text})
    assert json.loads(config.to_json())[name] == text
    # As configurations were written when the setting was a number.
    assert TrainConfig.from_dict({name: number}) == config


def test_numbers_and_lists_become_plain_values():
    config = TrainConfig(
        epochs=np.int64(3), weight_decay=np.float32(0.5), zoom=0, freeze=["conv1"]
    )
    assert config == TrainConfig(
        epochs=3, weight_decay=0.5, zoom=0.0, freeze=("conv1",)
    )
    assert {type(config.epochs), type(config.weight_decay), type(config.zoom)} == {
        int,
        float,
    }
    assert TrainConfig.from_dict(json.loads(config.to_json())) == config


def test_settings_are_changed_by_name():
    config = TrainConfig(epochs=3, dropout="0.2")
    assert config.updated({"epochs": 5}) == TrainConfig(epochs=5, dropout="0.2")
    assert config.updated({}) == config
    with pytest.raises(ValueError, match="Did you mean 'epochs'"):
        config.updated({"epoch": 5})


def test_some_settings_are_read_from_a_file(tmp_path):
    path = tmp_path / "some.json"
    path.write_text('{"epochs": 5, "learning_rate": 0.1, "freeze": ["conv1"]}')
    settings = {"epochs": 5, "learning_rate": "0.1", "freeze": ("conv1",)}
    assert read_settings(path) == settings
    path.write_text('{"epochs": 5, "freese": []}')
    with pytest.raises(ValueError, match="some.json: Unknown setting 'freese'"):
        read_settings(path)


# === Checked ===

WRONG_TYPES = [
    ("epochs", "ten", "a whole number or null"),
    ("epochs", 3.5, "a whole number or null"),
    ("epochs", True, "a whole number or null"),
    ("epochs", [3], "a whole number or null"),
    ("seed", None, "a whole number"),
    ("image_size", "64", "a whole number or null"),
    ("momentum", "0.9", "a number"),
    ("momentum", False, "a number"),
    ("momentum", None, "a number"),
    ("horizontal_flip", 1, "true or false or null"),
    ("horizontal_flip", "yes", "true or false or null"),
    ("architecture", 2012, "text or null"),
    ("weights", 3, "text or null"),
    ("learning_rate", True, "a number or the text of a schedule or null"),
    ("dropout", None, "a number or the text of a schedule"),
    ("color_noise", [0.1], "a number or the text of a schedule"),
    ("freeze", "conv1", "a list of texts"),
    ("freeze", [1], "a list of texts"),
    ("rate_multipliers", {"conv1": "0"}, "a list of texts or null"),
    ("channels", True, "one of 1, 3 or null"),
    ("channels", 3.0, "one of 1, 3 or null"),
    ("precision", 32, "one of auto, float32, bfloat16, float16"),
]


@pytest.mark.parametrize("name, value, expected", WRONG_TYPES, ids=str)
def test_a_value_of_another_type_is_refused(tmp_path, name, value, expected):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({name: value}))
    for make in (
        lambda: TrainConfig(**{name: value}),
        lambda: TrainConfig.from_dict({name: value}),
        lambda: TrainConfig.from_file(path),
    ):
        with pytest.raises(ValueError) as error:
            make()
        assert f"{name} must be {expected}. Received: {value!r}" in str(error.value)


def test_every_setting_has_a_type_that_is_checked():
    for name in FIELDS:
        with pytest.raises(ValueError, match=f"{name} must be .* Received: <object"):
            TrainConfig(**{name: object()})


NAN, INFINITY = float("nan"), float("inf")
WRONG = [
    *[(name, value) for name in ("epochs", "global_batch_size") for value in (0, -1)],
    *[(name, value) for name in ("image_size", "resize_size") for value in (0, -5)],
    *[(name, value) for name in ("groups", "replicas") for value in (0, -1)],
    ("crop_padding", -1),
    *[
        (name, value)
        for name in ("weight_decay", "rotation")
        for value in (-0.1, NAN, INFINITY)
    ],
    *[
        (name, value)
        for name in ("test_fraction", "momentum", "zoom")
        for value in (-0.1, 1.0, NAN)
    ],
    *[("seed", value) for value in (-1, 2**32)],
    *[("channels", value) for value in (0, 2, 4)],
    ("precision", "float64"),
    ("xla", "maybe"),
    *[
        ("learning_rate", value)
        for value in ("-1", "nan", "inf", "linear(0.1, end=-0.1)")
    ],
    *[("dropout", value) for value in ("-0.1", "1", "nan", "linear(0.5, end=1.5)")],
    *[
        (name, value)
        for name in ("color_noise", "bias_multiplier")
        for value in ("-0.1", "nan", "piecewise((1, -1, 1), (0.501, 0.502))")
    ],
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
@pytest.mark.parametrize(
    "name", ["learning_rate", "dropout", "color_noise", "bias_multiplier"]
)
def test_a_schedule_that_cannot_be_read_is_refused(name, text, message):
    with pytest.raises(ValueError, match=f"^{name}: .*" + message.replace("(", r"\(")):
        TrainConfig(**{name: text})


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("learning_rate", "curriculum(0.5)", "which is for the dropout rate only"),
        ("dropout", "plateau(0.5)", "which is for the learning rate only"),
        ("color_noise", "plateau(0.1)", "which is for the learning rate only"),
        ("color_noise", "curriculum(0.1)", "which is for the dropout rate only"),
        ("bias_multiplier", "plateau(2)", "which is for the learning rate only"),
        ("rate_multipliers", ("fc8=plateau(2)",), "fc8 cannot be a plateau, which is"),
    ],
)
def test_a_schedule_of_an_unsuitable_kind_is_refused(name, text, message):
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        TrainConfig(**{name: text})


def test_the_kinds_that_are_made_for_a_rate_are_accepted():
    TrainConfig(learning_rate="plateau(0.01)", dropout="curriculum(0.5)")


@pytest.mark.parametrize(
    "text, message",
    [
        ("fc8", "written LAYER=FACTOR.*Received: 'fc8'"),
        ("=3", "written LAYER=FACTOR.*Received: '=3'"),
        ("fc8:3", "written LAYER=FACTOR.*Received: 'fc8:3'"),
        ("fc8=", "fc8: A schedule is a number or a call.*Received: ''"),
        ("fc8=fast", "fc8: A schedule is a number or a call.*Received: 'fast'"),
        ("fc8=-1", "fc8 must be a number in .*Received: '-1'"),
        ("fc8=inf", "fc8 must be a number in .*Received: 'inf'"),
        ("fc8=linaer(1)", "fc8: Unknown schedule 'linaer'. Did you mean 'linear'"),
    ],
)
def test_a_multiplier_that_cannot_be_read_is_refused(text, message):
    with pytest.raises(ValueError, match=f"rate_multipliers.*{message}"):
        TrainConfig(rate_multipliers=(text,))


def test_a_layer_has_one_multiplier():
    with pytest.raises(ValueError, match="each layer once. Received: 'fc8 = 3'"):
        TrainConfig(rate_multipliers=("fc8=10", "fc7=1", "fc8 = 3"))


def test_multipliers_of_layers_are_read_in_their_order():
    texts = ("conv*=piecewise((1, 0), (0.5,))", "fc8 = linear(10, end=1)")
    multipliers = TrainConfig(rate_multipliers=texts).by_layer("rate_multipliers")
    assert list(multipliers.items()) == [
        ("conv*", Piecewise((1, 0), (0.5,))),
        ("fc8", Linear(10, end=1)),
    ]


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
        {"momentum": 0.0, "weight_decay": 0.0, "color_noise": "0", "dropout": "0"},
        {"learning_rate": "0"},
        {"learning_rate": "cosine(0.1, warmup=0.99)"},
    ],
)
def test_values_at_the_ends_of_their_ranges_are_accepted(settings):
    TrainConfig(**settings)


# === Described ===


def test_every_setting_is_explained_where_it_is_defined():
    tree = ast.parse(inspect.getsource(keras_alexnet.training.config))
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
        TrainConfig(recipe="caffe", **settings)
