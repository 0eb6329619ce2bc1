"""The loop: what it does about steps that go wrong, and what it points out."""

import functools
import math
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from devices import logical_cpus

import keras_alexnet
from keras_alexnet.errors import UserError
from keras_alexnet.training.callbacks import FlatLossHint
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.loop import Diverged, SkippedSteps, run
from keras_alexnet.training.optimizer import DecayedMomentum
from keras_alexnet.training.strategy import make_deterministic, use_xla
from keras_alexnet.training.train import train

STEPS, PER_REPLICA = 6, 2


def replicated_model(replicas=2):
    strategy = logical_cpus(replicas)
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "softmax")])
        model.compile(
            DecayedMomentum(0.1, weight_decay=0.0),
            "sparse_categorical_crossentropy",
            weighted_metrics=[],
        )
        model.optimizer.build(model.trainable_variables)
    return strategy, model


def batches(bad, replicas=2):
    """Batches for each replica in turn; `bad` are the (step, replica) with a NaN."""
    images = np.ones((STEPS * replicas, PER_REPLICA, 3), "float32")
    for step, replica in bad:
        images[step * replicas + replica, 0, 0] = np.nan
    labels = np.zeros(images.shape[:2], "int32")
    return lambda: tf.data.Dataset.from_tensor_slices((images, labels))


def run_with(bad, **arguments):
    strategy, model = replicated_model()
    done, _ = run(model, batches(bad), strategy=strategy, ends=[STEPS], **arguments)
    return done, model


def test_a_step_with_nan_is_skipped_and_named_with_its_replica(capsys):
    done, model = run_with([(2, 1)])
    assert done == STEPS
    output = capsys.readouterr().out
    assert "Step 3 was not applied: gradients were not finite on replica 1." in output
    assert output.count("was not applied") == 1
    assert np.isfinite(model.get_weights()[0]).all()
    assert int(model.optimizer.iterations.numpy()) == STEPS


@pytest.mark.parametrize("at_once", [1, 4, 6, 16])
def test_every_step_is_looked_at_however_many_at_once(capsys, monkeypatch, at_once):
    monkeypatch.setattr(SkippedSteps, "STEPS_AT_ONCE", at_once)
    run_with([(1, 0), (STEPS - 1, 0)])
    output = capsys.readouterr().out
    assert output.count("was not applied") == 2
    assert "Step 2 was not applied" in output
    assert f"Step {STEPS} was not applied" in output


def test_too_many_in_a_row_end_the_run():
    bad = [(step, 0) for step in range(1, STEPS)]
    with pytest.raises(Diverged, match="3 steps in a row, up to step 4.*--clip-norm"):
        run_with(bad, most_skipped=2)
    assert run_with(bad, most_skipped=STEPS)[0] == STEPS


def test_checkpoints_are_asked_for_after_each_step_but_not_at_the_end():
    saved = []
    run_with(
        [],
        is_due=lambda step: step % 2 == 0,
        save=lambda step, epoch, logs: saved.append((step, logs is not None)),
    )
    assert saved == [(2, False), (4, False), (6, True)]


def test_batches_can_be_prepared_on_the_device():
    seen = []

    def prepare(batch):
        images, labels = batch
        seen.append(images.device)
        return tf.zeros_like(images), labels

    _, model = run_with([(0, 0)], prepare=prepare)
    assert len(seen) == 2  # Traced once for each replica.
    np.testing.assert_allclose(model.get_weights()[0].std(axis=0) > 0, True)


def test_callbacks_get_of_an_evaluation_what_fit_gives_them():
    seen = []
    callback = keras.callbacks.LambdaCallback()
    callback.on_test_end = lambda logs: seen.append(dict(logs))
    run_with([], callbacks=[callback], validate=lambda: {"val_loss": 2.0})
    assert seen == [{"loss": 2.0}]


def test_where_no_terminal_is_an_epoch_is_a_line_that_says_what_is_left(
    capsys, monkeypatch
):
    strategy, model = replicated_model()
    # An epoch of two steps asks four times: it takes 90 seconds.
    now = iter(range(0, 10_000, 30))
    monkeypatch.setattr("keras_alexnet.training.callbacks.time.monotonic", now.__next__)
    run(model, batches([]), strategy=strategy, ends=[2, 4, 6])
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("Epoch")]
    assert lines[0].startswith("Epoch 1/3: learning_rate 0.1, loss ")
    assert [line.partition("; ")[2] for line in lines] == [
        *("90 s, 3 min left", "90 s, 90 s left", "90 s"),
    ]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named(monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf'pip install "keras-alexnet\[{name}\]"'):
        train(TrainConfig(), tmp_path / "run", trackers=[name])
    assert not (tmp_path / "run").exists()


# === Hints ===


def first_epoch(loss, classes=1000, epoch=0, warmup=0.0):
    hint = FlatLossHint(warmup / 10)  # Epochs of the 10 of the run.
    hint.set_params({"epochs": 10})
    hint.set_model(
        keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 1), classes=classes)
    )
    hint.on_epoch_end(epoch, {"loss": loss, "val_loss": loss})


@pytest.mark.parametrize("epoch, warmup", [(0, 0.0), (0, 0.4), (0, 1.0), (2, 2.5)])
def test_a_flat_loss_is_pointed_out_with_what_helps(epoch, warmup, capsys):
    first_epoch(6.9, epoch=epoch, warmup=warmup)
    output = capsys.readouterr().out
    assert f"{math.log(1000):.2f}" in output and "warmup=0.1" in output


@pytest.mark.parametrize(
    "loss, epoch, warmup", [(6.5, 0, 0.0), (6.9, 1, 0.0), (6.9, 0, 1.5)]
)
def test_a_falling_or_early_loss_is_not(loss, epoch, warmup, capsys):
    first_epoch(loss, epoch=epoch, warmup=warmup)
    assert capsys.readouterr().out == ""


# === XLA and determinism ===


def test_xla_is_chosen_by_device_and_the_reason_given():
    assert use_xla("on") == (True, "as asked for")
    assert use_xla("off") == (False, "as asked for")
    on, reason = use_xla("auto")
    assert on is bool(tf.config.list_physical_devices("GPU")) and reason


def test_what_cannot_be_deterministic_is_refused_with_the_reason():
    model = keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 1))
    with pytest.raises(ValueError, match="no deterministic gradient of max.*pool1"):
        make_deterministic(model, jit_compile=True)


# === Keras callbacks ===


class Recorder(keras.callbacks.Callback):
    """Notes what is called, with which number and which logs."""

    def __init__(self):
        super().__init__()
        self.calls = []
        for hook in ("train", "epoch", "train_batch"):
            for moment in ("begin", "end"):
                name = f"on_{hook}_{moment}"
                setattr(self, name, functools.partial(self._note, name))

    def _note(self, name, *number, logs=None):
        number = [one for one in number if isinstance(one, int)]
        self.calls.append((name, *number, sorted(set(logs or {}) - {"learning_rate"})))


def test_callbacks_are_called_as_fit_calls_them():
    ours, theirs = Recorder(), Recorder()
    strategy, model = replicated_model(1)
    images, labels = np.ones((12, 3), "float32"), np.zeros(12, "int32")
    model.fit(images, labels, batch_size=4, epochs=2, verbose=0, callbacks=[theirs])
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4).repeat()
    run(
        model,
        lambda: dataset,
        strategy=strategy,
        ends=[3, 6],
        callbacks=[ours],
    )
    assert ours.calls == theirs.calls


def test_keras_own_callbacks_work(tmp_path):
    strategy, model = replicated_model()
    errors = iter([0.5, 0.6, 0.7, 0.4])
    callbacks = [
        keras.callbacks.EarlyStopping("val_error", patience=1, mode="min"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
    ]
    done, _ = run(
        model,
        lambda: batches([])().repeat(),
        strategy=strategy,
        ends=[2, 4, 6, 8],
        callbacks=callbacks,
        validate=lambda: {"val_error": next(errors)},
    )
    assert done == 4  # The second epoch was no better, and it has waited one.
    assert (tmp_path / "log.csv").read_text().splitlines()[0].startswith("epoch,")
    assert sorted(path.name for path in tmp_path.glob("*.keras")) == [
        "1.keras",
        "2.keras",
    ]


# === Moving averages ===


def normalised_model(replicas):
    strategy = logical_cpus(replicas)
    with strategy.scope():
        model = keras_alexnet.build(
            "alexnet_mini",
            input_shape=(16, 16, 1),
            dropout=None,
            norm="batch_normalization",
        )
        model.compile(
            DecayedMomentum(0.01),
            "sparse_categorical_crossentropy",
            weighted_metrics=[],
        )
        model.optimizer.build(model.trainable_variables)
    return strategy, model


def images_with(bad, steps=3, replicas=2):
    images = np.random.default_rng(0).normal(size=(steps * replicas, 4, 16, 16, 1))
    for step, replica in bad:
        images[step * replicas + replica, 0, 0] = np.nan
    labels = np.zeros(images.shape[:2], "int32")
    return lambda: tf.data.Dataset.from_tensor_slices((images, labels))


def moving_averages(model):
    return [v for v in model.non_trainable_variables if "moving" in v.name]


def test_a_skipped_step_leaves_moving_averages_and_the_reported_loss_alone():
    strategy, model = normalised_model(2)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((logs["loss"], [v.numpy() for v in moving_averages(model)]))

    data = images_with([(1, 1)])
    run(model, data, strategy=strategy, ends=[3], callbacks=[Watch()])
    (_, first), (loss, second), (_, third) = seen
    assert np.isfinite(loss) and int(model.optimizer.skipped_steps.numpy()) == 1
    assert len(first) > 0
    for before, during, after in zip(first, second, third, strict=True):
        np.testing.assert_array_equal(before, during)
        assert np.isfinite(after).all() and (after != during).any()


def test_replicas_share_their_moving_averages():
    strategy, model = normalised_model(2)
    run(model, images_with([]), strategy=strategy, ends=[3])
    for variable in moving_averages(model):
        one, other = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(one, other)
