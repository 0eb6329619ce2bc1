"""Importance of hyperparameters where it is known what the objective depends on."""

import numpy as np
import pytest

from keras_alexnet.training.config import TrainConfig
from keras_alexnet.tuning.importance import MIN_TRIALS, importance
from keras_alexnet.tuning.trials import Trial


def trials_of(settings, objectives, status="completed"):
    return [
        Trial(f"{number:04}", values, TrainConfig(), status, objective)
        for number, (values, objective) in enumerate(
            zip(settings, objectives, strict=True)
        )
    ]


def random_settings(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "rate": float(10 ** rng.uniform(-4, -1)),
            "momentum": float(rng.uniform(0.8, 0.99)),
            "norm": str(rng.choice(["lrn", "none"])),
            "batch": int(rng.choice([32, 64, 128])),
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("count, least", [(30, 0.6), (100, 0.9)])
def test_the_only_one_that_matters_comes_first_and_the_others_near_zero(count, least):
    settings = random_settings(count)
    # A valley in the logarithm of the rate.
    objectives = [(np.log10(v["rate"]) + 2.5) ** 2 for v in settings]
    found = importance(trials_of(settings, objectives))
    assert found.names[0] == "rate" and found.means[0] > least
    assert all(abs(mean) < 0.1 for mean in found.means[1:])
    assert found.is_reliable and found.explained > least


def test_of_two_that_matter_the_stronger_comes_first():
    settings = random_settings(100)
    objectives = [
        3 * (v["norm"] == "none") + abs(v["momentum"] - 0.9) / 0.1 for v in settings
    ]
    found = importance(trials_of(settings, objectives))
    assert found.names[:2] == ("norm", "momentum")
    assert found.means[1] > 0.05 > found.means[2]


def test_of_noise_nothing_is_claimed():
    rng = np.random.default_rng(1)
    trials = trials_of(random_settings(40), rng.normal(size=40))
    assert not importance(trials).is_reliable


def test_one_diverged_trial_does_not_outweigh_all_others():
    settings = random_settings(40)
    objectives = [(np.log10(v["rate"]) + 2.5) ** 2 for v in settings]
    objectives[7] = 1e30
    assert importance(trials_of(settings, objectives)).names[0] == "rate"


def conditional_settings(count):
    rng = np.random.default_rng(3)
    settings = []
    for _ in range(count):
        kind = str(rng.choice(["constant", "step", "cosine"]))
        values = {"kind": kind, "other": float(rng.uniform())}
        if kind == "step":
            values["factor"] = float(rng.uniform(0.1, 0.9))
        if kind == "cosine":
            values["warmup"] = float(rng.uniform(0, 0.3))
        settings.append(values)
    return settings


def test_what_a_kind_brings_is_not_credited_to_its_parameters():
    settings = conditional_settings(90)
    objectives = [float(v["kind"] != "cosine") for v in settings]
    found = importance(trials_of(settings, objectives))
    assert found.names[0] == "kind" and found.means[0] > 0.8
    assert all(abs(mean) < 0.05 for mean in found.means[1:])


def test_a_parameter_that_matters_where_it_is_active_is_found():
    settings = conditional_settings(150)
    objectives = [v.get("factor", 0.5) for v in settings]
    found = importance(trials_of(settings, objectives))
    assert found.names[0] == "factor"


def test_too_few_trials_give_no_numbers():
    found = importance(trials_of(random_settings(9), range(9)))
    assert not found.names and not found.is_reliable
    assert found.too_few.startswith("9 trials") and str(MIN_TRIALS) in found.too_few


def test_trials_without_a_result_do_not_count():
    settings = random_settings(12)
    trials = trials_of(settings[:9], range(9))
    trials += trials_of(settings[9:10], [None], "failed")
    trials += trials_of(settings[10:], [float("nan"), 1.0], "running")
    assert importance(trials).trials == 9


@pytest.mark.parametrize(
    "settings, objectives, why",
    [
        ([{"rate": 0.1}] * 12, range(12), "No hyperparameter varied."),
        (random_settings(12), [0.5] * 12, "All trials have the same result."),
    ],
)
def test_where_nothing_varies_there_are_no_numbers(settings, objectives, why):
    assert importance(trials_of(settings, objectives)).too_few == why
