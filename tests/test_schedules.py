"""Schedules against their formulas, and the errors of what is written wrongly."""

import math
import types

import keras
import numpy as np
import pytest

from keras_alexnet.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Curriculum,
    Dexp,
    Exp,
    Exponential,
    Jdexp,
    Linear,
    Piecewise,
    Plateau,
    Step,
    parse_schedule,
    per_epoch,
)

ALL = [
    Constant(0.1),
    Step(0.1),
    Piecewise((0.1, 0.02, 0.0), (0.25, 0.75)),
    Cosine(0.1, end=0.01, warmup=0.2),
    Linear(0.1, end=0.02),
    Linear(0.1, target_factor=10),
    Exponential(0.1, end=0.001),
    Exp(0.1, target_factor=250),
    Dexp(0.1, target_factor=100, levels=3),
    Jdexp(0.1),
    Plateau(0.1, factor=0.5, patience=2, drops=4, min_delta=0.0, monitor="val_loss"),
    Curriculum(0.5, gamma=5),
]


def test_every_kind_is_tried_here():
    assert {type(schedule) for schedule in ALL} == set(SCHEDULES.values())


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_constant_stays(progress):
    assert Constant(0.05)(progress) == 0.05


@pytest.mark.parametrize(
    "progress, drops",
    [(0.0, 0), (0.2799, 0), (0.28, 1), (0.5, 1), (0.57, 2), (0.86, 3), (1.0, 3)],
)
def test_step_drops_by_ten_at_its_three_boundaries(progress, drops):
    assert Step(0.01)(progress) == pytest.approx(0.01 * 10.0**-drops)


def test_step_takes_any_factor_and_boundaries():
    schedule = Step(1.0, factor=0.5, boundaries=(0.25, 0.75))
    values = [schedule(p) for p in (0, 0.25, 0.5, 0.75, 1)]
    assert values == [1.0, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    "progress, value", [(0, 0.1), (0.25, 0.08), (0.5, 0.06), (1, 0.02)]
)
def test_linear_is_a_straight_line(progress, value):
    assert Linear(0.1, end=0.02)(progress) == pytest.approx(value)


@pytest.mark.parametrize(
    "progress, value",
    [
        (0, 1.0),
        (1 / 3, 0.75),  # cos 60 degrees = 1/2
        (0.5, 0.5),
        (2 / 3, 0.25),
        (1, 0.0),
    ],
)
def test_cosine_falls_along_half_a_cosine(progress, value):
    assert Cosine(1.0)(progress) == pytest.approx(value, abs=1e-12)
    between = Cosine(0.5, end=0.1)(progress)
    assert between == pytest.approx(0.1 + 0.4 * value)


def test_cosine_rises_linearly_in_the_warm_up_and_meets_the_cosine():
    schedule = Cosine(0.8, end=0.2, warmup=0.25)
    assert schedule(0.0) == 0.0
    assert schedule(0.125) == pytest.approx(0.4)
    assert schedule(0.25) == pytest.approx(0.8)
    assert schedule(0.25 - 1e-9) == pytest.approx(0.8, rel=1e-6)
    assert schedule(0.625) == pytest.approx(0.5)
    assert schedule(1.0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "progress, value",
    [(0, 1.0), (0.7362, 1.0), (0.737, 0.1), (0.791, 0.0), (0.9, 0.0), (1, 0.0)],
)
def test_piecewise_takes_its_values_from_their_boundaries_on(progress, value):
    assert Piecewise((1, 0.1, 0), (0.737, 0.791))(progress) == value


def test_piecewise_without_boundaries_is_constant():
    assert Piecewise((0.3,), ())(0.5) == 0.3


@pytest.mark.parametrize("progress", [0, 0.2, 0.5, 1])
def test_exponential_is_a_straight_line_of_logarithms(progress):
    value = Exponential(0.1, end=0.001)(progress)
    assert math.log10(value) == pytest.approx(-1 - 2 * progress)


# === Those of the 2012 program ===


@pytest.mark.parametrize("progress", [0, 0.25, 0.6, 1])
def test_linear_and_exp_divide_by_the_target_factor(progress):
    base, factor = 0.01, 250
    linear = base * (1 - progress) + base / factor * progress
    assert Linear(base, target_factor=factor)(progress) == pytest.approx(linear)
    # As its first version wrote it, with logarithms to the base of the base rate.
    power = 1 + progress * (math.log(base / factor) / math.log(base) - 1)
    assert Exp(base, factor)(progress) == pytest.approx(base**power)


@pytest.mark.parametrize(
    "begin, rate", [(0, 0.01), (0.25, 0.00159), (0.5, 0.000252), (0.75, 0.00004)]
)
def test_dexp_has_the_published_rates(begin, rate):
    # layer-params-imagenet-1gpu.cfg of cuda-convnet2; three digits are published.
    for progress in (begin + 0.001, begin + 0.1, begin + 0.25):
        assert Dexp(0.01, 250, 4)(progress) == pytest.approx(rate, rel=3e-3)
    assert Dexp(0.01, 250, 4)(0.0) == 0.01


@pytest.mark.parametrize("levels", [2, 3, 7, 10])
def test_dexp_keeps_a_level_up_to_its_edge(levels):
    schedule = Dexp(1.0, 100, levels)
    for level in range(levels):
        edge = (level + 1) / levels
        assert schedule(edge) == pytest.approx(100 ** (-level / (levels - 1)))
        if level < levels - 1:
            assert schedule(edge + 1e-9) < 0.99 * schedule(edge)


@pytest.mark.parametrize(
    "progress, exponent",
    [
        (0.1, 0),  # The first level has none before it.
        (0.2499, 0),
        (0.26, 1),
        (0.375, 1),
        (0.376, 0.5),
        (0.5, 0.5),
        (0.51, 2),
        (0.7, 1.5),
        (0.8, 3),
        (0.88, 2.5),
        (0.9, 3),  # Over at 0.9.
        (1.0, 3),
    ],
)
def test_jdexp_goes_half_a_level_back_in_second_halves(progress, exponent):
    expected = 0.01 * 250 ** (-exponent / 3)
    assert Jdexp(0.01, 250, 4)(progress) == pytest.approx(expected)


def test_jdexp_does_not_jump_before_a_fifth_of_the_run():
    # The second of ten levels has its second half from 0.15 to 0.2.
    assert Jdexp(1.0, 512, 10)(0.19) == pytest.approx(1 / 2)
    assert Jdexp(1.0, 512, 10)(0.29) == pytest.approx(1 / math.sqrt(2 * 4))


# === Curriculum ===


@pytest.mark.parametrize("gamma", [1.0, 10.0])
def test_curriculum_keeps_units_with_the_probability_of_its_paper(gamma):
    kept_at_last = 0.6
    schedule = Curriculum(1 - kept_at_last, gamma)
    assert schedule(0.0) == 0.0
    for progress in (0.05, 0.3, 1.0):
        theta = (1 - kept_at_last) * math.exp(-gamma * progress) + kept_at_last
        assert 1 - schedule(progress) == pytest.approx(theta)


def test_curriculum_is_nearly_there_before_half_of_the_run():
    assert Curriculum(0.5)(0.49) > 0.99 * 0.5


# === Plateau ===


@pytest.mark.parametrize(
    "errors, drops",
    [
        ([], 0),
        ([0.9], 0),
        ([0.9, 0.8, 0.7, 0.6], 0),
        ([0.9, 0.9], 0),
        ([0.9, 0.9, 0.9], 1),  # Two epochs without a new lowest.
        ([0.9, 0.95, 0.91], 1),
        ([0.9, 0.95, 0.8, 0.85], 0),  # A new lowest between them.
        ([0.9, 0.95, 0.8, 0.85, 0.85], 1),
        ([0.9] * 4, 1),  # The count begins again after a drop.
        ([0.9] * 5, 2),
        ([0.9] * 7, 3),
        ([0.9] * 100, 3),  # And after the last nothing happens.
        ([0.9] * 7 + [0.1] * 9, 3),
        ([0.9, 0.8995, 0.899], 1),  # 0.001 is not lower by more than 0.001.
        ([0.9, math.nan, math.nan], 1),
    ],
)
def test_plateau_drops_when_the_error_stops_falling(errors, drops):
    schedule = Plateau(0.01, patience=2)
    assert schedule.after(errors) == pytest.approx(0.01 * 0.1**drops)
    assert schedule.after(tuple(errors)) == schedule.after(errors)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("patience", [1, 3])
def test_plateau_does_what_that_of_keras_does(seed, patience):
    errors = np.random.default_rng(seed).choice([0.5, 0.4, 0.3, 0.2, 0.1], 30) + 0.1
    theirs = keras.callbacks.ReduceLROnPlateau(
        "val_top1_error", 0.1, patience, min_delta=0.001, min_lr=1e-5, mode="min"
    )
    theirs.set_model(types.SimpleNamespace(optimizer=types.SimpleNamespace()))
    theirs.model.optimizer.learning_rate = 0.01
    theirs.on_train_begin()
    for epoch in range(30):
        theirs.on_epoch_end(epoch, {"val_top1_error": errors[epoch]})
        ours = Plateau(0.01, patience=patience).after(errors[: epoch + 1])
        assert ours == pytest.approx(theirs.model.optimizer.learning_rate)


def test_plateau_alone_is_its_start():
    assert [Plateau(0.01)(progress) for progress in (0, 0.5, 1)] == [0.01] * 3


def test_plateau_knows_how_low_it_may_be():
    schedule = Plateau(0.01, patience=2)
    assert schedule.lowest(0.0) == schedule.lowest(0.0, epochs=10) == 0.01
    assert schedule.lowest(0.01) == pytest.approx(1e-5)
    lowest = [schedule.lowest(epoch / 10, epochs=10) for epoch in range(11)]
    # One epoch to fall, then two of patience for each drop.
    drops = [0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    assert lowest == pytest.approx([0.01 * 0.1**drop for drop in drops])


# === All of them ===


def test_values_of_epochs_are_those_of_their_first_steps():
    assert per_epoch(Linear(1.0), 4) == (1.0, 0.75, 0.5, 0.25)
    noise = per_epoch(Piecewise((0.1, 0.0), (0.736263,)), 91)
    assert noise == (0.1,) * 67 + (0.0,) * 24
    assert per_epoch(Constant(0.1), 3) == (0.1,) * 3


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_schedules_are_pure_functions_of_progress(schedule):
    points = np.linspace(0, 1, 11)
    forward = [schedule(p) for p in points]
    backward = [schedule(p) for p in points[::-1]]
    assert forward == backward[::-1]
    assert all(math.isfinite(value) and value >= 0 for value in forward)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_schedules_cannot_be_changed(schedule):
    with pytest.raises(AttributeError):
        schedule.value = 1.0


@pytest.mark.parametrize(
    "text, schedule",
    [
        ("0.1", Constant(0.1)),
        (" 1e-3 ", Constant(0.001)),
        (0.5, Constant(0.5)),
        (0, Constant(0.0)),
        ("constant(0.3)", Constant(0.3)),
        ("step(0.01)", Step(0.01)),
        ("step(0.01, boundaries=(0.5,))", Step(0.01, boundaries=(0.5,))),
        ("step(0.01, 0.3, (0.2, 0.4))", Step(0.01, 0.3, (0.2, 0.4))),
        ("linear(0.1, end=0.01)", Linear(0.1, 0.01)),
        (
            "cosine(0.05, end=0.001, warmup=0.1)",
            Cosine(0.05, end=0.001, warmup=0.1),
        ),
        ("piecewise((1, 0.1, 0), (0.7, 0.8))", Piecewise((1, 0.1, 0), (0.7, 0.8))),
        ("piecewise([1, 0], [0.5])", Piecewise((1, 0), (0.5,))),
        ("linear(0.1, target_factor=250)", Linear(0.1, target_factor=250)),
        ("exponential(0.1, 0.001)", Exponential(0.1, 0.001)),
        ("exp(0.1, target_factor=250)", Exp(0.1, 250)),
        ("dexp(0.01)", Dexp(0.01, 250.0, 4)),
        ("jdexp(0.01, target_factor=10, levels=2)", Jdexp(0.01, 10, 2)),
        ("plateau(0.01, patience=3)", Plateau(0.01, patience=3)),
        ("curriculum(0.5)", Curriculum(0.5, gamma=10)),
    ],
)
def test_written_form_is_that_of_a_call(text, schedule):
    assert parse_schedule(text) == schedule


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_what_a_schedule_prints_can_be_read_back(schedule):
    kind, rest = repr(schedule).split("(", 1)
    assert parse_schedule(f"{kind.lower()}({rest}") == schedule


@pytest.mark.parametrize(
    "text, message",
    [
        ("cosin(0.1)", "Unknown schedule 'cosin'. Did you mean 'cosine'?"),
        ("cosine(0.1, warm=0.1)", "Did you mean 'warmup'?"),
        ("cosine(0.1, 0, 0.1, 4)", "Invalid schedule"),
        ("linear()", "Invalid schedule"),
        ("cosine", "A schedule is a number or a call"),
        ("0.1, 0.2", "A schedule is a number or a call"),
        ("step(0.1", "A schedule is a number or a call"),
        ("", "A schedule is a number or a call"),
        ("linear(0.1, end=x)", "A schedule is a number or a call"),
        ("linear(__import__('os').getpid())", "A schedule is a number or a call"),
        ("cosine(0.1, warmup=1)", "warmup"),
        ("cosine(0.1, warmup=-0.1)", "warmup"),
        ("linear('fast')", "Invalid schedule"),
        ("step(0.1, boundaries=0.5)", "Invalid schedule"),
        ("step(0.1, factor=1e308)", "Invalid schedule"),
        ("linear(1e999)", "not finite"),
        ("piecewise((1, 1e999, 1), (0.2, 0.4))", "not finite"),
        ("piecewise((1, 'a', 1), (0.2, 0.4))", "Invalid schedule"),
        ("piecewise((1, 0.1), (0.2, 0.4))", "2 values, 2 boundaries"),
        ("piecewise((1, 0.1, 0), (0.4, 0.2))", "must ascend"),
        ("step(0.1, boundaries=(0.5, 0.5))", "must ascend"),
        ("step(0.1, boundaries=(25, 50))", "lie in [0, 1]"),
        ("step(0.1, factor=0)", "factor must be positive"),
        ("step(0.1, factor=-1)", "factor must be positive"),
        ("linear(1, 0.1, 5)", "Either end or target_factor"),
        ("linear(1, target_factor=0)", "target_factor must be positive"),
        ("exponential(0.1, end=0)", "end must be positive"),
        ("exponential(0, end=1)", "value must be positive"),
        ("exp(0.1, -2)", "target_factor must be positive"),
        ("exp(0.1)", "target_factor"),
        ("dexp(0.1, levels=1)", "levels must be a whole number, at least 2"),
        ("dexp(0.1, levels=2.5)", "levels must be a whole number"),
        ("jdexp(0.1, 'much')", "Invalid schedule"),
        ("dexp(0.1, tgtFactor=250)", "Did you mean 'target_factor'?"),
        ("plateau(0.1, patience=0)", "patience must be a whole number, at least 1"),
        ("plateau(0.1, drops=True)", "drops must be a whole number"),
        ("plateau(0.1, factor=1)", "factor must be in (0, 1)"),
        ("plateau(0.1, min_delta=-1)", "min_delta must not be negative"),
        ("plateau(0.1, monitor=3)", "monitor must be the name of a column"),
        ("curriculum(1)", "value must be in [0, 1)"),
        ("curriculum(0.5, gamma=0)", "gamma must be positive"),
        ("-" * 100_000 + "1", "A schedule is a number or a call"),
    ],
)
def test_what_is_written_wrongly_is_refused(text, message):
    with pytest.raises(ValueError) as raised:
        parse_schedule(text)
    assert message in str(raised.value)
