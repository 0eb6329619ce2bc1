"""Single operations of the network, in every implementation, measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from keras_alexnet.benchmarks.contest import Candidate, Contest, check_outputs
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.benchmarks.timing import fastest, summed, times_faster

# Of the activations, and of the kernel where there is one.
Function = Callable[..., tf.Tensor]

BATCH_SIZE = 64
DTYPES = ("float32", "bfloat16")
# Training is the forward pass and all gradients, inference the forward pass alone.
PURPOSES = ("training", "inference")


@dataclasses.dataclass(frozen=True)
class Case:
    """An operation at one place in the network.

    Attributes:
        name: The layer, and what it works on.
        shape: Height, width and channels of its input.
        implementations: Ours, by their names in the table of choices, or what could be
            one.
        peers: The usual way, which comes first, and others.
        kernel: Shape of the kernel, if it has one.
        first: Whether its input is the images, of which nobody takes the gradient.
    """

    name: str
    shape: tuple[int, int, int]
    implementations: Mapping[str, Function]
    peers: Mapping[str, Function]
    kernel: tuple[int, int, int, int] | None = None
    first: bool = False

    @property
    def baseline(self) -> str:
        """The candidate that the others are compared with."""
        return next(iter(self.peers))


def batch_size(options: Options) -> int:
    """Returns on how many images each operation works."""
    return 2 if options.quick else BATCH_SIZE


def contest(case: Case, dtype: str, purpose: str, options: Options) -> Contest:
    """Enters all implementations of an operation, once they have proved the same.

    Args:
        case: The operation.
        dtype: Of its input and its kernel.
        purpose: `"training"` or `"inference"`.
        options: Of the question.
    """
    random = np.random.default_rng(0)
    shapes = [(batch_size(options), *case.shape)] + (
        [case.kernel] if case.kernel else []
    )
    inputs = [
        tf.cast(random.standard_normal(shape, np.float32), dtype) for shape in shapes
    ]
    wide = [tf.cast(value, tf.float32) for value in inputs]
    expected = case.peers[case.baseline](*wide).numpy()
    entrants = Contest(options)
    functions = {
        **case.peers,
        **{f"keras_alexnet {name}": f for name, f in case.implementations.items()},
    }
    for name, function in functions.items():
        # Not all of them work on all devices.
        with entrants.optional(f"{case.name}, {dtype}, {purpose}: {name}"):
            outputs = tf.cast(tf.function(function)(*inputs), tf.float32)
            check_outputs(outputs.numpy(), expected, dtype)
            entrants.enter(name, _pass(case, function, inputs, purpose))
    return entrants


def measure(what: str, cases: Sequence[Case], options: Options, report: Report) -> None:
    """Measures operations for all purposes in all dtypes, and reports.

    Args:
        what: The cases together.
        cases: All with the same candidates.
        options: Of the question.
        report: Where to.
    """
    for purpose in PURPOSES:
        for dtype in DTYPES:
            seconds = totals(cases, dtype, purpose, options, report)
            baseline = cases[0].baseline
            best = fastest({k: v for k, v in seconds.items() if k != baseline})
            report.say(
                f"{what}, {dtype}, {purpose}: {best}, times {baseline}",
                times_faster(seconds, best, baseline),
            )


def totals(
    cases: Sequence[Case],
    dtype: str,
    purpose: str,
    options: Options,
    report: Report | None = None,
) -> dict[str, list[float]]:
    """Returns the seconds of each repetition over all cases together, by candidate.

    Args:
        cases: All with the same candidates.
        dtype: What they compute in.
        purpose: `"training"` or `"inference"`.
        options: Of the question.
        report: Where to report each case.
    """
    measured = []
    for case in cases:
        entrants = contest(case, dtype, purpose, options)
        seconds = entrants.run()
        measured.append(seconds)
        if report:
            name = f"{case.name}, {dtype}, {purpose}"
            images = batch_size(options)
            report.add(name, seconds, images, case.baseline, entrants.skipped)
    return summed(measured)


def _pass(
    case: Case, function: Function, inputs: list[tf.Tensor], purpose: str
) -> Candidate:
    """Returns what computes outputs, and in training gradients, and waits for them."""
    shape = function(*inputs).shape
    outer = tf.cast(tf.random.stateless_normal(shape, (0, 1)), inputs[0].dtype)
    sources = inputs[1:] if case.first else inputs

    @tf.function(autograph=False)
    def compute():
        if purpose == "inference":
            return _first(function(*inputs))
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs = function(*inputs)
        gradients = tape.gradient(outputs, sources, outer)
        return [_first(value) for value in (outputs, *gradients)]

    return lambda: tf.nest.map_structure(lambda value: value.numpy(), compute())


def _first(value: tf.Tensor) -> tf.Tensor:
    """Returns one element, so that nothing is copied back from a GPU."""
    return tf.reshape(value, (-1,))[0]
