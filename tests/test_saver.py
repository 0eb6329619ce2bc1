"""Checkpoints are written beside training, and a failure does not end it."""

import os
import threading

import keras
import numpy as np
import pytest
from safetensors import SafetensorError

from keras_alexnet.training.checkpoint import CheckpointStore, best_step, restore
from keras_alexnet.training.optimizer import DecayedMomentum
from keras_alexnet.training.saver import Saver


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def saver(tmp_path, keep=2, **rules):
    return Saver(CheckpointStore(tmp_path / "checkpoints", keep), **rules)


def test_a_checkpoint_holds_the_values_of_the_moment_it_was_asked_for(model, tmp_path):
    ours = saver(tmp_path)
    model.set_weights([np.full((3, 2), 1.0), np.full(2, 1.0)])
    ours.save(7, model, {"history": [1]})
    model.set_weights([np.full((3, 2), 2.0), np.full(2, 2.0)])
    ours.close()
    checkpoint = ours.store.load()
    assert checkpoint.step == 7 and checkpoint.record["history"] == [1]
    restore(checkpoint, model)
    np.testing.assert_array_equal(model.get_weights()[0], np.full((3, 2), 1.0))


def test_steps_taken_meanwhile_do_not_reach_the_checkpoint(tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(DecayedMomentum(0.1), "mse")
    x, y = np.ones((4, 3), "float32"), np.zeros((4, 2), "float32")
    model.train_on_batch(x, y)
    expected = [np.array(v) for v in (*model.weights, *model.optimizer.variables)]
    ours, may_write = saver(tmp_path), threading.Event()
    save = ours.store.save
    monkeypatch.setattr(ours.store, "save", lambda *a: may_write.wait(60) and save(*a))
    ours.save(1, model, {})
    for _ in range(3):
        model.train_on_batch(x, y)
    may_write.set()
    ours.close()
    restore(ours.store.load(), model)
    found = [np.array(v) for v in (*model.weights, *model.optimizer.variables)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_does_not_wait_for_the_disk(model, tmp_path, monkeypatch):
    ours, may_write = saver(tmp_path), threading.Event()
    save = ours.store.save
    monkeypatch.setattr(ours.store, "save", lambda *a: may_write.wait(60) and save(*a))
    ours.save(1, model, {})
    assert ours.store.steps() == []  # Here it goes on, and nothing is written yet.
    may_write.set()
    ours.close()
    assert ours.store.steps() == [1]


def test_the_newest_and_the_best_stay(model, tmp_path):
    ours = saver(tmp_path, keep=2)
    errors = {1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3, 5: 0.1}
    history = []
    for step, error in errors.items():
        history.append({"step": step, "val_top1_error": error})
        ours.save(step, model, {}, best_step(history))
    ours.close()
    assert ours.store.steps() == [2, 4, 5]


def test_a_write_that_fails_is_reported_and_the_next_may_succeed(
    model, tmp_path, monkeypatch, capsys
):
    ours = saver(tmp_path)
    ours.save(1, model, {})
    ours.wait()

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    ours.save(2, model, {})
    ours.wait()
    assert not ours.attempt("history.csv", lambda: full())
    monkeypatch.undo()
    assert ours.store.steps() == [1]
    assert [path.name for path in ours.store.directory.glob(".partial-*")] == []
    assert ours.failures == [
        "the checkpoint of step 2 could not be written: No space left on device",
        "history.csv could not be written: No space left on device",
    ]
    assert "checkpoint of step 2 could not be written" in capsys.readouterr().err
    ours.save(3, model, {})
    ours.close()
    assert ours.store.steps() == [1, 3]


def test_steps_and_time_call_for_checkpoints(model, tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    ours = saver(tmp_path, every_steps=10, every_seconds=60)
    assert [step for step in range(1, 25) if ours.is_due(step)] == [10, 20]
    now = 59.0
    assert not ours.is_due(3)
    now = 60.0
    assert ours.is_due(3)
    ours.save(3, model, {})
    ours.wait()
    assert not ours.is_due(4)
    now = 121.0
    assert ours.is_due(4)
    assert not saver(tmp_path).is_due(10)


def test_a_host_that_is_not_the_chief_writes_nothing(model, tmp_path):
    ours = saver(tmp_path, writes=False)
    ours.save(1, model, {})
    ours.close()
    assert not (tmp_path / "checkpoints").exists()


def test_what_a_killed_process_left_is_deleted(model, tmp_path):
    ours = saver(tmp_path)
    ours.save(1, model, {})
    ours.close()
    directory = ours.store.directory
    for name in (".partial-step-000000002.safetensors", "step-000000002.safetensors"):
        (directory / name).write_bytes(b"half")
    ours.store.discard_unfinished()
    assert sorted(path.name for path in directory.iterdir()) == [
        "step-000000001.json",
        "step-000000001.safetensors",
    ]


def test_the_file_formats_own_error_counts_as_a_failing_write(
    model, tmp_path, monkeypatch
):
    def full(*_):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("keras_alexnet.training.checkpoint.save_file", full)
    ours = saver(tmp_path)
    ours.save(1, model, {})
    ours.close()
    assert "No space left" in ours.failures[0]
