"""The oracles: a search that stops after every trial tries what another does."""

import keras_tuner
import pytest
from keras_tuner.engine.trial import TrialStatus

from keras_alexnet.training.config import get_recipe
from keras_alexnet.tuning import Range, SearchSpace, get_preset
from keras_alexnet.tuning.oracles import make_oracle

CONFIG = get_recipe("digits")


FEW = SearchSpace(
    {
        "norm": ["default", "none"],
        "dropout.kind": ["constant", "linear", "curriculum"],
        "groups": [1, 2],
        **{"dropout.value": 0.5, "dropout.linear.end": 0.1},
        "dropout.curriculum.gamma": 9.0,
    }
)


def tried(tuner, space, directory, interrupted, trials=30):
    """What is tried until an oracle ends its search."""

    def oracle():
        hp = keras_tuner.HyperParameters()
        space.declare(hp, CONFIG)
        objective = keras_tuner.Objective("val_loss", "min")
        one = make_oracle(tuner, hp, objective, trials=trials, epochs=9, seed=0)
        one._set_project_dir(directory, "search")
        return one

    current = oracle()
    current.save()
    found = []
    while True:
        trial = current.create_trial("tuner0")
        if trial.status == TrialStatus.STOPPED:
            return found
        values = trial.hyperparameters.values
        found.append(dict(values))
        score = values.get("learning_rate.value", 0) + values.get("momentum", 0)
        current.update_trial(trial.trial_id, {"val_loss": score})
        trial.status = TrialStatus.COMPLETED
        current.end_trial(trial)
        if interrupted:
            current = oracle()
            current.reload()


@pytest.mark.parametrize(
    "tuner, space, count",
    [
        ("random", get_preset("everything"), 30),
        # 9 + 3 + 1, 5 + 2 and 3: one sweep of nine epochs (Li et al. 2018, table 1,
        # with Keras Tuner's rounding).
        ("hyperband", get_preset("schedules"), 23),
        # Each kind of dropout with each norm and each number of towers.
        ("random", FEW, 12),
    ],
)
def test_an_interrupted_oracle_tries_the_same(tmp_path, tuner, space, count):
    whole = tried(tuner, space, tmp_path / "whole", False)
    assert len(whole) == count
    assert len({tuple(sorted(values.items())) for values in whole}) == count
    assert tried(tuner, space, tmp_path / "interrupted", True) == whole


def test_a_bayesian_search_learns_from_its_first_third(tmp_path):
    space = SearchSpace({"momentum": Range(0.8, 0.98)})
    values = tried("bayesian", space, tmp_path, True, trials=9)
    found = [one["momentum"] for one in values]
    assert len(found) == 9
    # The objective grows with it.
    assert min(found[3:]) < min(found[:3])
