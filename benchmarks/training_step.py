"""How fast is a training step of alexnet_2012, against textbook Keras and PyTorch?

Textbook Keras is what one writes from the paper with Keras's own layers. PyTorch runs
eagerly and through torch.compile, in float32 and under autocast to bfloat16, in both
memory layouts. All have the same layers, weights, batch and loss, dropout, SGD with
momentum and weight decay. Beside them: matrix products at their best size, which bound
what any of them can reach, and a memory copy.

    keras-alexnet benchmark training_step
"""

from __future__ import annotations

import tensorflow as tf

from keras_alexnet.benchmarks.contest import Contest, check_outputs
from keras_alexnet.benchmarks.limits import Limits, product_rate
from keras_alexnet.benchmarks.networks import (
    compiled_for_training,
    images_and_labels,
    network_for,
    ours,
    textbook,
    weights_of,
)
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.benchmarks.timing import fastest, times_faster

BATCH_SIZE = 128
# Forward and backward, without the gradient of the images.
FLOP_PER_IMAGE = 4.14e9
TEXTBOOK = "textbook float32"


def run(options: Options) -> None:
    """Measures and reports."""
    network = network_for(options.quick)
    batch_size = 8 if options.quick else BATCH_SIZE
    images, labels = images_and_labels(network, batch_size)
    model = ours(network)
    weights = weights_of(model)
    sample = images[:4]
    expected = model.predict_on_batch(sample)
    batch = tf.constant(images), tf.constant(labels)
    contest = Contest(options)

    def keras_step(model, dtype="float32", **how):
        check_outputs(model(sample, training=False).numpy(), expected, dtype)
        compiled_for_training(model, **how)
        return lambda: model.train_on_batch(*batch)

    contest.enter("keras_alexnet float32", keras_step(model))
    contest.enter(
        "keras_alexnet bfloat16",
        keras_step(ours(network, "bfloat16"), "bfloat16"),
    )
    limits = Limits(contest, options.quick)
    for name, jit_compile in ((TEXTBOOK, False), (f"{TEXTBOOK}, jit", True)):
        contest.invite(
            name,
            lambda jit_compile=jit_compile: keras_step(
                textbook(network, weights), textbook=True, jit_compile=jit_compile
            ),
        )
    with contest.optional("PyTorch"):
        from keras_alexnet.benchmarks.peers.torch_peer import Peer

        peer = Peer(network, weights, expected)
        for mode in peer.modes(compiled=not options.quick):
            contest.invite(
                str(mode), lambda mode=mode: peer.training_step(mode, images, labels)
            )
    seconds, rates = limits.split(contest.run())
    report = Report("training_step", options, batch_size=batch_size, rates=rates)
    baseline = TEXTBOOK if TEXTBOOK in seconds else "keras_alexnet float32"
    report.add(
        f"batch {batch_size}", seconds, batch_size, baseline, skipped=contest.skipped
    )
    _say(report, seconds, batch_size, rates)
    report.write()


def _say(report: Report, seconds: dict, batch_size: int, rates: dict) -> None:
    """Prints the ratios that matter."""
    for name, rate in rates.items():
        report.say(f"{name}, 10^9 a second", rate / 1e9, ".0f")
    best = fastest(seconds, "keras_alexnet*")
    for dtype in ("float32", "bfloat16"):
        name = f"keras_alexnet {dtype}"
        if TEXTBOOK in seconds:
            report.say(
                f"{name}, times {TEXTBOOK}", times_faster(seconds, name, TEXTBOOK)
            )
        work = FLOP_PER_IMAGE * batch_size
        shares = [work / time / product_rate(rates, dtype) for time in seconds[name]]
        if not report.options.quick:
            report.say(
                f"{name}, share of the matrix product's speed",
                sorted(shares)[len(shares) // 2],
                ".0%",
            )
    if peer := fastest(seconds, "torch*"):
        report.say(f"{best}, times {peer}", times_faster(seconds, best, peer))
