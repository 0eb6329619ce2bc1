"""Schedules against their formulas, and the errors of what is written wrongly."""

import math

import numpy as np
import pytest

from keras_alexnet.schedules import Constant, Cosine, Linear, Step, parse_schedule

ALL = [
    Constant(0.1),
    Step(0.1),
    Cosine(0.1, end=0.01, warmup=0.2),
    Linear(0.1, end=0.02),
]


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
    ],
)
def test_what_is_written_wrongly_is_refused(text, message):
    with pytest.raises(ValueError) as raised:
        parse_schedule(text)
    assert message in str(raised.value)
