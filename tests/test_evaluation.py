"""Errors, loss and confusion against plain loops over images."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_alexnet.evaluation import Evaluation, evaluate

IMAGES, CLASSES = 50, 7


def random_evaluation(seed=0, levels=None) -> Evaluation:
    """Random probabilities, of few distinct values (hence ties) if `levels` is set."""
    rng = np.random.default_rng(seed)
    scores = rng.random((IMAGES, CLASSES)) + 0.01
    if levels:
        scores = rng.integers(1, levels + 1, (IMAGES, CLASSES)).astype(float)
    else:
        scores /= scores.sum(axis=1, keepdims=True)
    return Evaluation(scores.astype("float32"), rng.integers(0, CLASSES, IMAGES))


def top_k_error(probabilities, labels, k) -> float:
    """The 2012 program's rule: those that are equal share the places that are left."""
    credit = 0.0
    for row, label in zip(probabilities, labels, strict=True):
        likelier = sum(p > row[label] for p in row)
        equal = sum(p == row[label] for p in row)
        places = k - likelier
        if places > 0:
            credit += min(1.0, places / equal)
    return 1 - credit / len(labels)


@pytest.mark.parametrize("k", [1, 2, 5, CLASSES])
@pytest.mark.parametrize("levels", [None, 2, 4], ids=["distinct", "2", "4"])
def test_top_k_error_with_and_without_ties(levels, k):
    evaluation = random_evaluation(levels=levels)
    counted = top_k_error(evaluation.probabilities, evaluation.labels, k)
    assert evaluation.top_k_error(k) == pytest.approx(counted, abs=1e-12)


@pytest.mark.parametrize("k", [1, 5])
def test_constant_output_is_right_in_k_of_all_classes(k):
    evaluation = Evaluation(np.full((20, 10), 0.1), np.arange(20) % 10)
    assert evaluation.top_k_error(k) == pytest.approx(1 - k / 10)


def test_places_beyond_the_number_of_classes_are_always_right():
    assert random_evaluation().top_k_error(CLASSES + 3) == 0.0


def test_output_that_is_not_a_number_is_wrong():
    evaluation = Evaluation(np.full((4, 10), np.nan), np.arange(6, 10))
    assert evaluation.top_k_error(1) == 1.0
    assert evaluation.top_k_error(5) == 1.0
    assert math.isnan(evaluation.loss)


def test_loss_is_the_mean_negative_log_probability_of_the_true_class():
    evaluation = random_evaluation()
    total = 0.0
    for row, label in zip(evaluation.probabilities, evaluation.labels, strict=True):
        total -= math.log(row[label])
    assert evaluation.loss == pytest.approx(total / IMAGES, rel=1e-5)


def test_loss_of_a_probability_of_zero_is_finite():
    evaluation = Evaluation(np.array([[0.0, 1.0]], "float32"), np.array([0]))
    assert evaluation.loss == pytest.approx(-math.log(np.finfo("float32").tiny))


@pytest.mark.parametrize("label_type", ["int64", "uint8"])
def test_confusion_counts_true_against_predicted_classes(label_type):
    evaluation = random_evaluation()
    counted = np.zeros((CLASSES, CLASSES), int)
    for row, label in zip(evaluation.probabilities, evaluation.labels, strict=True):
        counted[label, max(range(CLASSES), key=lambda c: row[c])] += 1
    labels = evaluation.labels.astype(label_type)
    confusion = Evaluation(evaluation.probabilities, labels).confusion()
    np.testing.assert_array_equal(confusion, counted)
    assert confusion.sum() == IMAGES


def test_confusion_does_not_overflow_small_label_types():
    evaluation = Evaluation(np.eye(200)[[150, 199]], np.array([150, 199], "uint8"))
    confusion = evaluation.confusion()
    assert confusion.shape == (200, 200)
    assert confusion[150, 150] == confusion[199, 199] == 1


def test_metrics_are_loss_top_1_and_top_5():
    evaluation = random_evaluation(levels=3)
    assert evaluation.metrics() == {
        "loss": evaluation.loss,
        "top1_error": evaluation.top_k_error(1),
        "top5_error": evaluation.top_k_error(5),
    }


def test_every_image_counts_when_the_last_batch_is_smaller():
    model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Softmax()])
    x = np.random.default_rng(0).normal(size=(7, CLASSES)).astype("float32")
    labels = list(range(7))
    evaluation = evaluate(model, tf.data.Dataset.from_tensor_slices(x).batch(3), labels)
    written_out = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(evaluation.probabilities, written_out, rtol=1e-5)
    np.testing.assert_array_equal(evaluation.labels, labels)
