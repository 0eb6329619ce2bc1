"""The networks that benchmarks compare: the same ones for everybody."""

import numpy as np

from keras_alexnet import build
from keras_alexnet.benchmarks import models
from keras_alexnet.benchmarks.comparison import Comparison
from keras_alexnet.benchmarks.limits import add_limits, report_limits
from keras_alexnet.benchmarks.networks import sample_images
from keras_alexnet.benchmarks.operations import OPERATIONS
from keras_alexnet.benchmarks.peers.textbook_peer import textbook
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report


def test_the_work_of_alexnet_2012_is_what_the_paper_s_layers_have():
    # conv1 to conv5 and fc6 to fc8, multiply-adds of one image.
    convolutions = 105_415_200 + 223_948_800 + 149_520_384 + 112_140_288 + 74_760_192
    dense = 9216 * 4096 + 4096 * 4096 + 4096 * 1000
    assert models.multiply_adds(build("alexnet_2012")) == convolutions + dense
    forward = [x.work("forward", "float32", 3) for x in OPERATIONS if x.kernel]
    assert forward == [
        6 * x for x in (105_415_200, 223_948_800, 112_140_288, 74_760_192)
    ]
    # dx, x and dy of four images in bfloat16.
    moved = OPERATIONS[0].work("gradient", "bfloat16", 4)
    assert moved == 3 * 2 * 4 * 55 * 55 * 96


def test_textbook_keras_computes_what_ours_does():
    ours = models.ours("alexnet_mini")
    peer = textbook("alexnet_mini")
    assert peer.count_params() == ours.count_params()
    images = sample_images("alexnet_mini", 3)
    np.testing.assert_allclose(
        peer.predict_on_batch(images), ours.predict_on_batch(images), atol=1e-5
    )


def test_rates_of_the_limits_follow_from_the_work_and_the_median(
    in_this_process, tmp_path
):
    report = Report("limits", Options(quick=True, out=tmp_path))
    with Comparison(report) as comparison:
        work = add_limits(comparison)
    product32, product16, copy = work
    seconds = {
        product32: [9.0, 2.0, 1.0],
        "somebody": [1.0],
        product16: [0.5] * 3,
        copy: [4.0] * 3,
    }
    rates, others = report_limits(report, work, seconds)
    assert others == {"somebody": [1.0]}
    assert rates == {
        "float32": 2 * 128**3 / 2.0,
        "bfloat16": 2 * 128**3 / 0.5,
        "copy": 2 * 2**16 / 4.0,  # 64 KiB are read and written.
    }
