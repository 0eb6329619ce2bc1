"""Errors, loss and confusion against plain loops over images."""

import contextlib
import json
import math
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from devices import logical_cpus
from sklearn import metrics

from keras_alexnet.evaluation import (
    Evaluation,
    Evaluator,
    evaluate,
    match_classes,
)
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.model import Metadata
from keras_alexnet.weights.labels import imagenet_classes

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


@pytest.mark.parametrize("predicted", [CLASSES, 4], ids=["all", "some"])
def test_scores_of_classes_are_scikit_learns(predicted):
    rng = np.random.default_rng(1)
    probabilities = rng.random((IMAGES, CLASSES))
    probabilities[:, predicted:] = 0
    # The last class has no images, and in "some" cases is not predicted either.
    labels = rng.integers(0, CLASSES - 1, IMAGES)
    evaluation = Evaluation(probabilities, labels)
    found = evaluation.predictions
    precision, recall, f1, images = metrics.precision_recall_fscore_support(
        labels, found, labels=range(CLASSES), zero_division=np.nan
    )
    scores = evaluation.by_class()
    np.testing.assert_array_equal(scores["images"], images)
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose(scores[name], expected, err_msg=name)
    assert evaluation.balanced_metrics() == pytest.approx(
        {
            "balanced_accuracy": recall[:-1].mean(),
            "macro_f1": metrics.f1_score(labels, found, average="macro"),
        }
    )
    never = sorted(set(labels) - set(found))
    np.testing.assert_array_equal(evaluation.never_predicted(), never)


def test_the_surest_mistakes_come_first():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.05, 0.95]], "f4")
    evaluation = Evaluation(probabilities, np.array([0, 1, 0, 0]))
    np.testing.assert_array_equal(evaluation.mistakes(9), [3, 2, 1])
    np.testing.assert_array_equal(evaluation.mistakes(1), [3])


# === Running a model ===


def softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def vectors(count):
    return np.random.default_rng(0).normal(size=(count, CLASSES)).astype("float32")


def batched(count, batch, replicas=1, damaged=()):
    """A batch for each replica in turn; what fills up or is damaged weighs 0."""
    step = batch * replicas
    total = -(-count // step) * step
    weights = (np.arange(total) < count).astype("float32")
    weights[list(damaged)] = 0
    x = np.resize(vectors(count), (total, CLASSES))
    labels = np.resize(np.arange(count, dtype=np.int32), total)
    return tf.data.Dataset.from_tensor_slices((x, labels, weights)).batch(batch)


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("count, batch", [(7, 3), (12, 6), (5, 8), (1, 1), (9, 4)])
def test_every_image_counts_exactly_once_and_in_order(count, batch, replicas):
    strategy = logical_cpus(replicas) if replicas > 1 else None
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Softmax()])
    evaluation = evaluate(model, batched(count, batch, replicas), strategy=strategy)
    np.testing.assert_allclose(
        evaluation.probabilities, softmax(vectors(count)), rtol=1e-5
    )
    np.testing.assert_array_equal(evaluation.labels, np.arange(count))
    np.testing.assert_array_equal(evaluation.positions, np.arange(count))


def test_what_is_damaged_does_not_count():
    model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Softmax()])
    evaluation = evaluate(model, batched(9, 4, damaged=(0, 5)))
    np.testing.assert_array_equal(evaluation.labels, [1, 2, 3, 4, 6, 7, 8])
    np.testing.assert_array_equal(evaluation.positions, [1, 2, 3, 4, 6, 7, 8])


def test_no_images_at_all_are_refused():
    model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Softmax()])
    with pytest.raises(ValueError, match="no images"):
        evaluate(model, batched(2, 2, damaged=(0, 1)))


def test_the_step_is_traced_once_and_sees_new_weights():
    traces = []

    class Traced(keras.layers.Dense):
        def call(self, x):
            traces.append(x)
            return super().call(x)

    layer = Traced(CLASSES, activation="softmax")
    model = keras.Sequential([keras.Input((CLASSES,)), layer])
    evaluator, batches = Evaluator(model), batched(9, 4)
    traces.clear()
    evaluator(batches)
    layer.set_weights([np.eye(CLASSES), np.zeros(CLASSES)])
    again = evaluator(batches)
    assert len(traces) == 1
    np.testing.assert_allclose(again.probabilities, softmax(vectors(9)), rtol=1e-5)


@pytest.mark.parametrize(("max_bytes", "reads"), [(2**20, 1), (300, 4)])
def test_small_batches_are_read_once_for_several_evaluations(
    monkeypatch, max_bytes, reads
):
    monkeypatch.setattr("keras_alexnet.evaluation.MAX_BYTES", max_bytes)
    evaluator = Evaluator(
        keras.Sequential([keras.Input((CLASSES,)), keras.layers.Softmax()])
    )
    begun = []

    def images():
        begun.append(True)
        yield from batched(9, 4).as_numpy_iterator()

    signature = batched(9, 4).element_spec
    dataset = tf.data.Dataset.from_generator(images, output_signature=signature)
    batches = evaluator.repeated(dataset)
    for _ in range(3):
        np.testing.assert_array_equal(evaluator(batches).labels, np.arange(9))
    assert len(begun) == reads


WORKER = """
import json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras
import numpy as np
from keras_alexnet.evaluation import evaluate
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
x = np.arange(33, dtype="float32").reshape(11, 3) % 7
weights = (np.arange(12) < 11).astype("float32")
parts = np.resize(x, (12, 3)), np.arange(12, dtype="int32"), weights
# Of four in a step, each host has two.
batches = tf.data.Dataset.from_tensor_slices(parts).batch(2)
own = batches.shard(2, strategy.cluster_resolver.task_id)
found = evaluate(model, own, strategy=strategy)
print(json.dumps([found.labels.tolist(), found.probabilities.tolist()]))
"""


def test_two_hosts_have_the_evaluation_of_one():
    with contextlib.ExitStack() as sockets:
        bound = [sockets.enter_context(socket.socket()) for _ in range(2)]
        for one in bound:
            one.bind(("localhost", 0))
        addresses = [f"localhost:{one.getsockname()[1]}" for one in bound]
    workers = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        cluster = {"cluster": {"worker": addresses}, "task": task}
        workers.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER],
                env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    x = np.arange(33, dtype="float32").reshape(11, 3) % 7
    try:
        for worker in workers:
            output, errors = worker.communicate(timeout=120)
            assert worker.returncode == 0, errors
            labels, probabilities = json.loads(output.splitlines()[-1])
            assert labels == list(range(11))
            np.testing.assert_allclose(probabilities, softmax(x), rtol=1e-5)
    finally:
        for worker in workers:
            worker.kill()


# === Ten views ===


class Corner(keras.layers.Layer):
    """Probabilities that say what stands in a view's upper left corner, and beside."""

    def call(self, images):
        corner = images[:, 0, :2, 0]
        shares = corner / 1000
        return keras.ops.concatenate([shares, 1 - shares], axis=-1)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("resize, size", [(8, 5), (9, 5), (256, 227)])
def test_ten_views_are_corners_and_centre_mirrored_too(resize, size, replicas):
    strategy = logical_cpus(replicas) if replicas > 1 else None
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = keras.Sequential([keras.Input((size, size, 1)), Corner()])
    images = np.random.default_rng(0).uniform(0, 255, (4, resize, resize, 1))
    images = images.astype("float32")
    end = resize - size
    expected = np.zeros((4, 4))
    for top, left in (0, 0), (0, end), (end // 2, end // 2), (end, 0), (end, end):
        crop = images[:, top : top + size, left : left + size, 0]
        for view in crop, crop[:, :, ::-1]:
            # As the network sees them: minus the mean, times the scale.
            pair = (view[:, 0, :2] - 7) * 2 / 1000
            expected += np.concatenate([pair, 1 - pair], axis=-1) / 10
    evaluation = evaluate(
        model,
        tf.data.Dataset.from_tensor_slices((images, tf.range(4), tf.ones(4))).batch(
            4 // (strategy.num_replicas_in_sync if strategy else 1)
        ),
        strategy=strategy,
        views=10,
        preprocessing=Preprocessing(size, resize, 1, (7.0,), 2.0),
    )
    np.testing.assert_allclose(evaluation.probabilities, expected, atol=1e-5)


def test_the_centre_of_ten_views_is_the_one_view():
    preprocessing = Preprocessing(227, 256, 3, (0.0,) * 3, 1.0)
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    whole = preprocessing.resize(image)
    np.testing.assert_allclose(
        preprocessing.prepare(image), whole[14:241, 14:241], atol=0.01
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"views": 5}, "views must be 1 or 10. Received: 5"),
        ({"views": 10}, "need the preprocessing"),
        (
            {"views": 10, "preprocessing": Preprocessing(8, 8, 1, (0.0,), 1.0)},
            "larger than the network's input. Received: resize_size=8",
        ),
    ],
)
def test_views_that_are_impossible_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Evaluator(keras.Sequential([keras.Input((8, 8, 1))]), **options)


# === Classes ===


def test_classes_are_found_by_name_in_any_order_and_number():
    metadata = Metadata(class_names=("ant", "bee", "cat"))
    np.testing.assert_array_equal(match_classes(["cat", "ant"], metadata), [2, 0])


@pytest.mark.parametrize("order", ["wordnet", "ilsvrc2012"])
def test_classes_of_imagenet_are_found_by_wordnet_id_or_name(order):
    wnids, names = zip(*imagenet_classes(order), strict=True)
    metadata = Metadata(class_names=names, class_order=order)
    ids = ["n02123159", "n01440764", "n02012849"]  # Tiger cat, tench, the bird crane.
    expected = [wnids.index(one) for one in ids]
    np.testing.assert_array_equal(match_classes(ids, metadata), expected)
    found = match_classes(["tiger_cat", "tench"], metadata)
    np.testing.assert_array_equal(found, expected[:2])


@pytest.mark.parametrize(
    "names, metadata, message",
    [
        (["ant"], Metadata(), "does not know the names of its classes"),
        (
            ["cat", "art"],
            Metadata(class_names=("ant", "cat")),
            "does not have every class.*'art'.*ant, cat",
        ),
        (["x"], Metadata(class_names=("x", "x")), "Two classes.*'x'"),
        (
            ["n01440764", "goldfish"],
            Metadata(class_names=("tench", "goldfish"), class_order="wordnet"),
            "WordNet ids and others by words",
        ),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(names, metadata, message):
    with pytest.raises(ValueError, match=message):
        match_classes(names, metadata)
