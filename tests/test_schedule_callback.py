"""The callback that follows schedules: the same values however a run is cut."""

import copy

import keras
import numpy as np
import pytest

from keras_alexnet.layers import ClassicDropout, ScheduledDropout
from keras_alexnet.schedules import (
    Constant,
    Cosine,
    Curriculum,
    Dexp,
    Linear,
    Piecewise,
    Plateau,
    Step,
)
from keras_alexnet.training import callbacks
from keras_alexnet.training.callbacks import ScheduleCallback

STEPS, PER_EPOCH = 40, 4
ERRORS = [0.9, 0.8, 0.8, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]


class Recorded(keras.optimizers.SGD):
    """An optimizer with multipliers that remembers every assignment."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.multipliers = {"fc8": 1.0, "biases": 1.0}
        self.assigned = []

    def set_multiplier(self, name, value):
        self.multipliers[name] = value
        self.assigned.append((name, value))

    @property
    def learning_rate(self):
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self.assigned.append(("learning_rate", value))
        keras.optimizers.SGD.learning_rate.fset(self, value)


def model():
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(2, name="fc6"),
            ScheduledDropout(0.1, name="drop6"),
            ClassicDropout(0.2, name="drop7"),
            keras.layers.Dense(2, name="fc8"),
        ]
    )
    network.compile(Recorded(learning_rate=0.5), "mse")
    network.optimizer.assigned.clear()
    return network


def follow(callback, network, first=0, last=STEPS):
    """Goes through steps as the loop does, and returns what each would be made with."""
    values = []
    callback.set_model(network)
    network.optimizer.iterations.assign(first)
    callback.on_train_begin()
    for step in range(first, last):
        callback.on_train_batch_begin(step)
        values.append(
            {
                "learning_rate": float(network.optimizer.learning_rate),
                "drop6": network.get_layer("drop6").rate,
                "drop7": network.get_layer("drop7").rate,
                **network.optimizer.multipliers,
            }
        )
        if (step + 1) % PER_EPOCH == 0:
            error = ERRORS[step // PER_EPOCH]
            callback.on_epoch_end(step // PER_EPOCH, {"val_top1_error": error})
    return values


@pytest.mark.parametrize("ahead", [7, 256])
def test_each_step_has_the_values_of_its_progress(monkeypatch, ahead):
    monkeypatch.setattr(callbacks, "STEPS_AHEAD", ahead)
    rate, dropout, factor = Cosine(0.1, warmup=0.1), Curriculum(0.5), Linear(2.0)
    callback = ScheduleCallback(STEPS, rate, dropout, multipliers={"biases": factor})
    for step, values in enumerate(follow(callback, model())):
        assert values["learning_rate"] == pytest.approx(rate(step / STEPS))
        assert values["drop6"] == pytest.approx(dropout(step / STEPS), abs=1e-6)
        assert values["drop7"] == values["drop6"]
        assert values["biases"] == factor(step / STEPS)
        assert values["fc8"] == 1.0


def test_what_has_no_schedule_stays_as_it_is():
    values = follow(ScheduleCallback(STEPS), network := model())
    assert values == values[:1] * STEPS
    assert values[0]["learning_rate"] == 0.5 and values[0]["drop7"] == 0.2
    assert network.optimizer.assigned == []


def test_dropout_may_differ_from_layer_to_layer():
    callback = ScheduleCallback(STEPS, dropout={"drop7": Linear(0.5)})
    values = follow(callback, model())
    assert [row["drop6"] for row in values] == pytest.approx([0.1] * STEPS)
    expected = [0.5 * (1 - step / STEPS) for step in range(STEPS)]
    assert [row["drop7"] for row in values] == pytest.approx(expected, abs=1e-6)


SETTINGS = [
    {"learning_rate": Cosine(0.1, warmup=0.1), "dropout": Curriculum(0.5)},
    {"learning_rate": Dexp(0.01), "dropout": {"drop6": Step(0.5)}},
    {"learning_rate": Plateau(0.1, patience=2)},
    {
        "learning_rate": Constant(0.1),
        "multipliers": {"fc8": Piecewise((1, 0.1, 0), (0.6, 0.8))},
    },
]


@pytest.mark.parametrize("cut", [1, 4, 13, 20, 39])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: str(s["learning_rate"]))
def test_a_continued_run_has_the_values_of_one_that_never_stopped(settings, cut):
    whole = follow(ScheduleCallback(STEPS, **settings), model())
    follow(ScheduleCallback(STEPS, **settings), network := model(), last=cut)
    history = [{"val_top1_error": error} for error in ERRORS[: cut // PER_EPOCH]]
    callback = ScheduleCallback(STEPS, **settings, history=history)
    # Layers and optimizer have the values that the configuration starts with again.
    rest = follow(callback, model(), first=cut)
    assert rest == whole[cut:]
    assert len(network.optimizer.assigned) > 0


def test_a_plateau_drops_at_the_first_step_after_the_error_stopped_falling():
    callback = ScheduleCallback(STEPS, Plateau(0.1, patience=2))
    rates = [row["learning_rate"] for row in follow(callback, model())]
    # The second error without a new lowest is that of the fourth epoch; then those of
    # the seventh and of the ninth.
    drops = [0] * 16 + [1] * 12 + [2] * 8 + [3] * 4
    assert rates == pytest.approx([0.1 * 0.1**drop for drop in drops])


def test_values_are_assigned_only_when_they_change():
    callback = ScheduleCallback(
        STEPS,
        Step(0.1, boundaries=(0.25, 0.5)),
        multipliers={"biases": Constant(2.0), "fc8": Piecewise((1, 0), (0.5,))},
    )
    follow(callback, network := model())
    assigned = network.optimizer.assigned
    assert [name for name, _ in assigned].count("learning_rate") == 3
    assert [value for name, value in assigned if name == "biases"] == [2.0]
    assert [value for name, value in assigned if name == "fc8"] == [1, 0]


def test_the_history_may_grow_without_being_counted_twice():
    history = [{"val_top1_error": 0.9}]
    callback = ScheduleCallback(STEPS, Plateau(0.1, patience=2), history=history)
    history.append({"val_top1_error": 0.9})
    callback.on_epoch_end(1, history[-1])
    callback.set_model(network := model())
    callback.on_train_begin()
    callback.on_train_batch_begin(0)
    assert float(network.optimizer.learning_rate) == pytest.approx(0.1)


def test_it_works_in_fit_and_can_be_copied_before():
    callback = ScheduleCallback(8, Linear(0.1), dropout=Linear(0.5))
    network = model()
    images, labels = np.zeros((8, 3)), np.zeros((8, 2))
    network.fit(
        images,
        labels,
        batch_size=2,
        epochs=2,
        callbacks=[copy.deepcopy(callback)],
        verbose=0,
    )
    assert float(network.optimizer.learning_rate) == pytest.approx(0.1 * (1 - 7 / 8))
    assert network.get_layer("drop6").rate == pytest.approx(0.5 * (1 - 7 / 8))


# === Mistakes ===


def test_a_missing_error_is_named_with_what_there_is():
    callback = ScheduleCallback(STEPS, Plateau(0.1))
    message = "watches 'val_top1_error'.*There is: loss, val_loss"
    with pytest.raises(ValueError, match=message):
        callback.on_epoch_end(0, {"val_loss": 1.0, "loss": 2.0})
    with pytest.raises(ValueError, match="There is: nothing"):
        callback.on_epoch_end(0)
    with pytest.raises(ValueError, match="There is: epoch"):
        ScheduleCallback(STEPS, Plateau(0.1), history=[{"epoch": 1}])


def test_other_schedules_ask_nothing_of_the_history():
    callback = ScheduleCallback(STEPS, Cosine(0.1), history=[{"epoch": 1}])
    callback.on_epoch_end(0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"dropout": Plateau(0.5)},
        {"dropout": {"drop6": Plateau(0.5)}},
        {"multipliers": {"fc8": Plateau(1.0)}},
    ],
)
def test_only_the_learning_rate_follows_a_plateau(arguments):
    with pytest.raises(ValueError, match="Only the learning rate may follow"):
        ScheduleCallback(STEPS, **arguments)


def test_a_layer_that_does_not_drop_is_refused_with_the_nearest():
    callback = ScheduleCallback(STEPS, dropout={"drop8": Linear(0.5)})
    callback.set_model(model())
    with pytest.raises(ValueError, match="dropout layer 'drop8'. Did you mean 'drop7'"):
        callback.on_train_begin()


def test_a_run_has_steps():
    with pytest.raises(ValueError, match="total_steps must be positive. Received: 0"):
        ScheduleCallback(0)
