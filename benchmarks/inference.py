"""How fast does alexnet_2012 classify, against the systems that others serve it with?

Ours in three forms: `predict_on_batch`, a traced function, and the exported SavedModel,
which also subtracts the mean. Textbook Keras with `predict_on_batch`; PyTorch; OpenVINO
and ONNX Runtime, which read the same ONNX graph. Single images, and batches of 32.

    keras-alexnet benchmark inference
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.benchmarks.contest import Candidate, Contest, check_outputs
from keras_alexnet.benchmarks.networks import (
    Network,
    Weights,
    images_and_labels,
    network_for,
    ours,
    textbook,
    weights_of,
)
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.benchmarks.timing import fastest, times_faster
from keras_alexnet.export.saved_model import export_saved_model
from keras_alexnet.images.preprocessing import Preprocessing

BATCH_SIZES = (1, 32)
# Each repetition works on at least as many images, one batch after the other: single
# ones are over too soon.
LEAST_IMAGES = 32

DTYPES = ("float32", "bfloat16")
OURS = "keras_alexnet {dtype}, traced"


def run(options: Options) -> None:
    """Measures and reports."""
    entrants = Entrants(network_for(options.quick), options)
    report = Report("inference", options)
    for batch_size in (4,) if options.quick else BATCH_SIZES:
        contest = Contest(options)
        entrants.enter(contest, batch_size)
        seconds = measure(report, contest, batch_size, f"batch {batch_size}")
        _say(report, seconds, batch_size)
    report.write()


def measure(
    report: Report, contest: Contest, batch_size: int, case: str
) -> dict[str, list[float]]:
    """Times all candidates on enough batches, and reports.

    Args:
        report: Where to.
        contest: The candidates, each for one batch.
        batch_size: Images of a batch.
        case: What the report calls this.

    Returns:
        The seconds of each repetition, by candidate.
    """
    calls = max(1, LEAST_IMAGES // batch_size)

    def repeated(candidate: Candidate) -> Candidate:
        def repeat() -> None:
            for _ in range(calls):
                candidate()

        return repeat

    contest.candidates = {
        name: repeated(candidate) for name, candidate in contest.candidates.items()
    }
    seconds = contest.run()
    baseline = OURS.format(dtype="float32")
    report.add(case, seconds, batch_size * calls, baseline, contest.skipped)
    return seconds


def _say(report: Report, seconds: dict, batch_size: int) -> None:
    for dtype in DTYPES:
        best = fastest(seconds, f"keras_alexnet {dtype}*")
        theirs = {
            name: values
            for name, values in seconds.items()
            if dtype in name and not name.startswith("keras_alexnet")
        }
        if peer := fastest(theirs):
            report.say(
                f"batch {batch_size}, {best}, times {peer}",
                times_faster(seconds, best, peer),
            )


class Entrants:
    """Everyone who classifies, with the same weights.

    Args:
        network: What all of them build.
        options: Of the question.
    """

    def __init__(self, network: Network, options: Options):
        self._network, self._options = network, options
        self._images, _ = images_and_labels(network, 2)
        self._models = {dtype: ours(network, dtype) for dtype in DTYPES}
        self._weights = weights_of(self._models["float32"])
        self._expected = self._models["float32"].predict_on_batch(self._images)
        self._exports = {
            dtype: exported(model, network) for dtype, model in self._models.items()
        }
        self._textbook = textbook(network, self._weights)

    def enter(self, contest: Contest, batch_size: int, one_form: bool = False) -> None:
        """Enters candidates for one batch size.

        Args:
            contest: What they enter.
            batch_size: Images of a call.
            one_form: Whether each system takes part in one form for each dtype, the one
                that usually is its fastest.
        """
        images, _ = images_and_labels(self._network, batch_size)
        for dtype, model in self._models.items():
            self._enter_ours(contest, dtype, model, tf.constant(images), one_form)

        def invite(name: str, prepare: Callable, dtype: str = "float32") -> None:
            contest.invite(name, lambda: self._checked(prepare(images), dtype))

        if not one_form:
            invite("textbook float32", lambda x: _predicting(self._textbook, x))
        self._invite_torch(contest, images, one_form)
        with contest.optional("ONNX"):
            graph = _onnx_bytes(self._network, self._weights)
            with contest.optional("OpenVINO"):
                from keras_alexnet.benchmarks.peers import openvino_peer

                for dtype in DTYPES:
                    invite(
                        f"OpenVINO {dtype}",
                        lambda x, dtype=dtype: openvino_peer.inference(graph, x, dtype),
                        dtype,
                    )
            with contest.optional("ONNX Runtime"):
                from keras_alexnet.benchmarks.peers import onnxruntime_peer

                invite(
                    "ONNX Runtime float32",
                    lambda x: onnxruntime_peer.inference(graph, x),
                )

    def _enter_ours(
        self,
        contest: Contest,
        dtype: str,
        model: keras.Model,
        images: tf.Tensor,
        one_form: bool,
    ) -> None:
        traced = tf.function(model.predict_step, autograph=False)
        forms = {OURS.format(dtype=dtype): lambda: traced(images).numpy()}
        if not one_form:
            export = self._exports[dtype]
            forms |= {
                f"keras_alexnet {dtype}, predict_on_batch": _predicting(model, images),
                f"keras_alexnet {dtype}, SavedModel": lambda: export.serve(images)[
                    "probabilities"
                ].numpy(),
            }
        for name, candidate in forms.items():
            contest.enter(name, self._checked(candidate, dtype))

    def _invite_torch(
        self, contest: Contest, images: np.ndarray, one_form: bool
    ) -> None:
        with contest.optional("PyTorch"):
            from keras_alexnet.benchmarks.peers.torch_peer import Peer

            peer = Peer(self._network, self._weights, self._expected)
            # Compiling takes longer than everything else together.
            compiled = not (one_form or self._options.quick)
            for mode in peer.modes(compiled):
                if one_form and mode.layout == "channels_first":
                    continue
                contest.invite(
                    str(mode), lambda mode=mode: peer.inference(mode, images)
                )

    def _checked(self, candidate: Candidate, dtype: str) -> Candidate:
        """Returns a candidate that computes what we do."""
        outputs = candidate()
        common = min(len(outputs), len(self._expected))
        check_outputs(outputs[:common], self._expected[:common], dtype)
        return candidate


def exported(model: keras.Model, network: Network):
    """Exports a model and loads the SavedModel, which takes mean-free pixels here."""
    neutral = Preprocessing(
        network.image_size, network.image_size, 3, (0.0,) * 3, scale=1.0
    )
    with tempfile.TemporaryDirectory() as folder:
        names = list(map(str, range(network.classes)))
        export_saved_model(model, folder, neutral, names)
        return tf.saved_model.load(folder)


def _predicting(model: keras.Model, images: np.ndarray | tf.Tensor) -> Candidate:
    return lambda: model.predict_on_batch(images)


def _onnx_bytes(network: Network, weights: Weights) -> bytes:
    from keras_alexnet.benchmarks.peers.onnx_graph import onnx_graph

    return onnx_graph(network, weights).SerializeToString()
