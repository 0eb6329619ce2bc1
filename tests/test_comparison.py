"""Best against default: same seeds, paired differences, what the spread allows."""

import dataclasses
import json
import statistics

import numpy as np
import pytest
from scipy.stats import ttest_rel

import keras_alexnet
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.loop import Interrupted
from keras_alexnet.tuning.compare import (
    Paired,
    Runs,
    compare,
)
from keras_alexnet.tuning.trial_process import (
    Outcome,
    failure,
    train_in_process,
)

BEST = TrainConfig(learning_rate="0.02")
DEFAULT = TrainConfig(learning_rate="0.01")


def metrics(error):
    return {"top1_error": error, "top5_error": error / 2, "loss": 2 * error}


class FakeTraining:
    """Returns errors by learning rate and seed, and remembers what it was asked."""

    def __init__(self, errors):
        self.errors = errors
        self.asked, self.directories = [], []

    def __call__(self, config, run_dir):
        self.asked.append((config.learning_rate, config.seed))
        self.directories.append(run_dir)
        error = self.errors[config.learning_rate, config.seed]
        if isinstance(error, Interrupted):
            raise error
        if isinstance(error, Exception):
            return failure(error)
        return Outcome(metrics=metrics(error))


ERRORS = {
    ("0.02", 1000): 0.03,
    ("0.01", 1000): 0.05,
    ("0.02", 1001): 0.06,
    ("0.01", 1001): 0.07,
    ("0.02", 1002): 0.04,
    ("0.01", 1002): 0.07,
}


def test_both_are_trained_with_each_seed_in_directories_of_their_own(tmp_path):
    training = FakeTraining(ERRORS)
    compare(BEST, DEFAULT, tmp_path, train=training)
    expected = [(rate, s) for s in (1000, 1001, 1002) for rate in ("0.02", "0.01")]
    assert training.asked == expected
    assert len(set(training.directories)) == 6
    assert {path.parent for path in training.directories} == {tmp_path / "comparison"}


def test_another_best_configuration_does_not_meet_the_runs_of_the_first(tmp_path):
    first, second = FakeTraining(ERRORS), FakeTraining(ERRORS)
    compare(BEST, DEFAULT, tmp_path, train=first)
    compare(dataclasses.replace(BEST, momentum=0.8), DEFAULT, tmp_path, train=second)
    shared = {*first.directories} & {*second.directories}
    assert len(shared) == 3 and all("default" in path.name for path in shared)


def test_differences_are_paired_by_seed(tmp_path):
    comparison = compare(BEST, DEFAULT, tmp_path, train=FakeTraining(ERRORS))
    paired = comparison.paired("top1_error")
    np.testing.assert_allclose(paired.differences, (-0.02, -0.01, -0.03))
    assert paired.mean == pytest.approx(-0.02)
    assert paired.deviation == pytest.approx(0.01)
    assert paired.is_clear
    written = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert written["best"]["metrics"]["1001"]["top1_error"] == 0.06


def test_chance_is_that_of_the_paired_t_test():
    ours, theirs = [0.03, 0.06, 0.04, 0.05], [0.05, 0.07, 0.07, 0.06]
    one, other = (
        Runs({seed: {"loss": x} for seed, x in enumerate(errors)})
        for errors in (ours, theirs)
    )
    paired = one.minus(other, "loss")
    assert paired.p_value == pytest.approx(ttest_rel(ours, theirs).pvalue)


@pytest.mark.parametrize(
    "differences, mean, exceeds",
    [
        ((), None, False),
        ((-0.5,), -0.5, False),
        ((0.1, 0.1), 0.1, True),
        # One lucky seed is no win.
        ((-0.10, 0.01, 0.03), -0.02, False),
    ],
)
def test_few_or_equal_differences_claim_no_chance(differences, mean, exceeds):
    paired = Paired(differences)
    assert paired.mean == (mean and pytest.approx(mean))
    assert paired.is_clear is exceeds
    assert paired.p_value is None or len(differences) > 2


def test_a_run_that_fails_is_recorded_and_its_seed_does_not_count(tmp_path):
    errors = {**ERRORS, ("0.01", 1001): OSError("no room\nfor more")}
    comparison = compare(BEST, DEFAULT, tmp_path, train=FakeTraining(errors))
    assert comparison.failures == ["default, seed 1001: OSError: no room for more"]
    assert 1001 in comparison.best.metrics and 1001 not in comparison.default.metrics
    np.testing.assert_allclose(
        comparison.paired("top1_error").differences, (-0.02, -0.03)
    )


def test_an_interruption_ends_it(tmp_path):
    errors = {**ERRORS, ("0.02", 1001): Interrupted(15)}
    with pytest.raises(Interrupted):
        compare(BEST, DEFAULT, tmp_path, train=FakeTraining(errors))


@pytest.mark.parametrize(
    "changes, seeds, message",
    [
        ({}, (0, 1), "seed 0 was used by the search"),
        ({}, (), "needs seeds"),
        ({}, (5, 5), "each of them once"),
        ({"data": "folder:photos"}, (5,), "same data"),
        ({"test_fraction": 0.5}, (5,), "same test_fraction"),
    ],
)
def test_what_would_be_unfair_is_refused(tmp_path, changes, seeds, message):
    other = dataclasses.replace(DEFAULT, **changes)
    with pytest.raises(ValueError, match=message):
        compare(BEST, other, tmp_path, seeds, FakeTraining({}))
    assert not list(tmp_path.iterdir())


def test_a_real_comparison_is_continued_where_it_stopped(tmp_path, capfd):
    tiny = dataclasses.replace(
        keras_alexnet.get_recipe("digits"),
        **{"epochs": 1, "global_batch_size": 256, "norm": "none"},
        **{"image_size": 16, "resize_size": 16, "crop_padding": 0, "width": 0.25},
    )
    done = []

    def interrupted_after_one(config, run_dir):
        if done:
            raise Interrupted(15)
        done.append(train_in_process(config, run_dir))
        return done[-1]

    arguments = (tiny, tiny, tmp_path, (1000,))
    with pytest.raises(Interrupted):
        compare(*arguments, interrupted_after_one)
    (finished,) = tmp_path.glob("comparison/*/result.json")
    when = finished.stat().st_mtime_ns
    capfd.readouterr()
    comparison = compare(*arguments)
    assert finished.stat().st_mtime_ns == when
    # Equal configurations with equal seeds are equal, so the difference is exact.
    assert comparison.paired("top1_error").differences == (0.0,)
    assert statistics.fmean(comparison.best.values("loss").values()) > 0
    # A line for each run: no progress bars, no messages of TensorFlow's.
    printed = capfd.readouterr()
    lines = printed.out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "best, seed 1000",
        "default, seed 1000",
    ]
    assert not printed.err
