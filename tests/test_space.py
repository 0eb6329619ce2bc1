"""Search spaces: what they declare, what values of them become, what they refuse."""

import dataclasses
import json

import keras_tuner
import pytest

from keras_alexnet.schedules import Cosine, Dexp, Linear, Plateau, Step, parse_schedule
from keras_alexnet.training.config import TrainConfig, get_recipe
from keras_alexnet.tuning import Choice, Range, SearchSpace, get_preset, get_space
from keras_alexnet.tuning.parameters import DROPOUT, LEARNING_RATE, PRESETS

DIGITS = get_recipe("digits")


def configured(space, config=DIGITS, **values):
    hp = keras_tuner.HyperParameters()
    hp.values = {name.replace("__", "."): value for name, value in values.items()}
    return get_space(space).configure(hp, config)


def drawn(space, config, count):
    """Values as Keras Tuner's own random search draws them."""
    hp = keras_tuner.HyperParameters()
    space.declare(hp, config)
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_loss", "min"), hyperparameters=hp, seed=1
    )
    for _ in range(count):
        one = hp.copy()
        one.values = oracle._random_values()
        yield one


# === Presets ===


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("recipe", ["digits", "alexnet-2012"])
def test_whatever_is_drawn_from_a_preset_is_a_configuration(name, recipe):
    space, config = get_preset(name), get_recipe(recipe)
    space.check(config)
    kinds = set()
    for hp in drawn(space, config, 60):
        values, made = space.configure(hp, config)
        assert set(values) == set(hp.values)
        kinds.add(values["learning_rate.kind"])
        # Only the parameters of the kind that was drawn.
        assert {one.split(".")[1] for one in values if one.count(".") == 2} <= {
            values["learning_rate.kind"],
            values.get("dropout.kind"),
        }
        assert (made.data, made.epochs, made.seed) == ("digits", config.epochs, 0)
    assert kinds == set(LEARNING_RATE["kind"].values)


def test_the_values_of_2012_are_in_the_middle():
    _, made = configured("recipe", get_recipe("alexnet-2012"))
    source = get_recipe("alexnet-2012")
    assert made.momentum == source.momentum
    assert made.weight_decay == pytest.approx(source.weight_decay)
    assert made.global_batch_size == source.global_batch_size
    assert made.dropout == source.dropout and made.color_noise == source.color_noise
    schedule = parse_schedule(made.learning_rate)
    # Divided by ten three times, by the paper; the boundaries are close to its log's.
    assert (schedule.value, schedule.factor) == (0.01, pytest.approx(0.1))
    assert schedule.boundaries == pytest.approx((0.275, 0.56, 0.868), abs=0.012)
    dexp = configured("schedules", learning_rate__kind="dexp")[1].learning_rate
    assert parse_schedule(dexp) == Dexp(0.01, target_factor=250.0, levels=4)


def test_the_default_preset_changes_the_two_schedules_only():
    for hp in drawn(get_preset("schedules"), DIGITS, 20):
        _, made = get_preset("schedules").configure(hp, DIGITS)
        changed = {
            field.name
            for field in dataclasses.fields(TrainConfig)
            if getattr(made, field.name) != getattr(DIGITS, field.name)
        }
        assert changed <= {"learning_rate", "dropout"}


@pytest.mark.parametrize(
    "kind, values, schedule",
    [
        ("step", {"factor": 0.2, "drops": 1}, Step(0.02, 0.2, (0.666667,))),
        ("linear", {"end": 0.1}, Linear(0.02, end=0.002)),
        ("cosine", {"warmup": 0.05}, Cosine(0.02, warmup=0.05)),
        # A tenth of 30 epochs.
        ("plateau", {"factor": 0.1, "patience": 0.1}, Plateau(0.02, 0.1, patience=3)),
    ],
)
def test_values_become_the_schedule_that_they_say(kind, values, schedule):
    values = {f"learning_rate__{kind}__{name}": one for name, one in values.items()}
    _, made = configured(
        "schedules", learning_rate__kind=kind, learning_rate__value=0.02, **values
    )
    assert parse_schedule(made.learning_rate) == schedule


def test_augmentation_is_multiplied_and_flips_stay_off():
    _, made = configured("recipe", augmentation_magnitude=2.0)
    assert (made.crop_padding, made.rotation, made.zoom) == (6, 20.0, 0.2)
    assert made.color_noise == "0.2" and made.horizontal_flip is False


def test_hyperparameters_survive_keras_tuners_messages_between_hosts(capsys):
    for hp in drawn(get_preset("everything"), DIGITS, 10):
        sent = keras_tuner.HyperParameters.from_proto(hp.to_proto())
        space = get_preset("everything")
        assert space.configure(sent, DIGITS) == space.configure(hp, DIGITS)


# === Narrowed and extended ===


def test_a_space_is_narrowed_and_extended_in_python():
    space = (
        get_preset("schedules")
        .only("learning_rate")
        .with_(
            {
                "learning_rate.kind": "cosine",
                "momentum": Range(0.85, 0.95),
                "norm": Choice(("lrn", "none")),
            }
        )
    )
    values, made = configured(space)
    assert set(values) == {
        "learning_rate.value",
        "learning_rate.cosine.warmup",
        "momentum",
        "norm",
    }
    assert (made.learning_rate, made.momentum) == ("cosine(0.01, warmup=0.05)", 0.9)


def test_what_a_space_does_not_mention_stays_as_it_is():
    space = SearchSpace({"learning_rate.value": Range(0.01, 0.03)})
    _, made = configured(space)
    # The recipe's kind and warm-up.
    assert parse_schedule(made.learning_rate) == Cosine(0.02, warmup=0.05)
    assert made.dropout == DIGITS.dropout


def test_a_space_is_read_from_a_file(tmp_path):
    path = tmp_path / "space.json"
    values = {
        "preset": "schedules",
        "only": ["dropout.kind", "dropout.value"],
        "parameters": {
            "weight_decay": {"low": 1e-4, "high": 1e-3, "log": True},
            "learning_rate": ["cosine(0.02)", "dexp(0.01)"],
        },
        "fix": {"dropout.kind": "curriculum", "momentum": 0.95},
    }
    path.write_text(json.dumps(values))
    searched, made = configured(path)
    assert set(searched) == {"dropout.value", "weight_decay", "learning_rate"} | {
        name for name in searched if name == "dropout.curriculum.gamma"
    }
    assert made.dropout == "curriculum(0.5, gamma=10)"
    assert (made.learning_rate, made.momentum) == ("cosine(0.02)", 0.95)
    assert SearchSpace.from_dict(get_space(path).to_dict()) == get_space(path)


def test_kinds_left_out_take_their_parameters_along():
    space = get_preset("schedules").with_({"dropout.kind": ["constant", "cosine"]})
    hp = keras_tuner.HyperParameters()
    space.declare(hp, DIGITS)
    names = {one.name for one in hp.space if one.name.startswith("dropout.")}
    assert names == {"dropout.kind", "dropout.value", "dropout.cosine.end"}
    assert set(DROPOUT["kind"].values) > {"constant", "cosine"}


# === Mistakes ===


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Range(0.1, 0.01), "low must be below high. Received: low=0.1"),
        (lambda: Range(0, 1, log=True), "low must be positive with log"),
        (lambda: Range(0.5, 3, whole=True), "must be whole numbers"),
        (lambda: Range(0, float("inf")), "high must be a finite number"),
        (lambda: Choice(()), "nothing to choose from"),
        (lambda: Choice((1, "a")), "values of one type"),
        (lambda: Choice(("a", "a")), "given twice"),
        (lambda: get_space("schedule"), "Did you mean 'schedules'"),
        (lambda: get_space("none.json"), "Cannot read none.json: No such file"),
        (lambda: SearchSpace({"momentun": [0.9]}), "Did you mean 'momentum'"),
        (lambda: SearchSpace({"epochs": [1, 2]}), "Unknown parameter 'epochs'"),
        (lambda: SearchSpace({"momentum": None}), "a parameter is a value, a list"),
        (lambda: SearchSpace({"momentum": {"low": 0.1}}), "the range has no high"),
        (
            lambda: SearchSpace({"momentum": {"min": 0.9, "high": 1}}),
            "Unknown attribute of a range 'min'",
        ),
        (lambda: SearchSpace.from_dict({"only": "dropout"}), "must be a JSON list"),
        (lambda: SearchSpace.from_dict({"presets": []}), "Did you mean 'preset'"),
        (lambda: get_preset("schedules").only("norm"), "Unknown parameter of this"),
        (
            lambda: SearchSpace({"momentum": 0.9}).check(DIGITS),
            "The search space is empty",
        ),
        (
            lambda: SearchSpace({"momentum": Range(0.5, 1.5)}).check(DIGITS),
            r"momentum = 1.5: momentum must be in \[0, 1\)",
        ),
        (
            lambda: SearchSpace({"dropout.value": Range(0.5, 1.5)}).check(DIGITS),
            r"dropout.value = 1.5: dropout must be a number in \[0, 1.0\)",
        ),
        (
            lambda: SearchSpace({"learning_rate.kind": ["cosin"]}).check(DIGITS),
            "Did you mean 'cosine'",
        ),
        (
            lambda: SearchSpace({"dropout.drop9.value": Range(0, 0.5)}).check(DIGITS),
            "Unknown parameter 'dropout.drop9.value'",
        ),
    ],
)
def test_mistakes_are_explained_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_space_is_named(tmp_path):
    path = tmp_path / "space.json"
    for content, message in [("{", "is not JSON"), ("[]", "does not hold a search")]:
        path.write_text(content)
        with pytest.raises(ValueError, match=f"space.json.*{message}"):
            get_space(path)
