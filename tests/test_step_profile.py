"""The profile of a training step: it adds up, and each part has a place."""

import json

import pytest

from keras_alexnet.benchmarks.networks import ALEXNET_MINI
from keras_alexnet.benchmarks.questions import Options, ask
from keras_alexnet.benchmarks.step_profile import Places, Step, make_step, profile
from keras_alexnet.benchmarks.tracing import Operation

TINY = Step(network=ALEXNET_MINI, batch_size=2, repetitions=1)


@pytest.fixture(scope="module")
def places() -> Places:
    return make_step(TINY)[0]


@pytest.mark.parametrize(
    "name, kind, layer, work",
    [
        ("mini/conv1_1/Conv2D", "Conv2D", "conv1", "product, forward"),
        (
            "mini/relu1/Relu",
            "_MklNativeFusedConv2D",
            "conv1",
            "product with bias and activation, forward",
        ),
        (
            "gradient_tape/mini/conv1/Conv2DBackpropFilter",
            "_MklNativeConv2DBackpropFilter",
            "conv1",
            "product, gradient to weights",
        ),
        (
            "gradient_tape/mini/conv2/Conv2DBackpropInput",
            "Conv2DBackpropInput",
            "conv2",
            "product, gradient to input",
        ),
        (
            "gradient_tape/mini/fc6/MatMul/MatMul_1",
            "MatMul",
            "fc6",
            "product, gradient to weights",
        ),
        ("mini/fc6/Cast", "Cast", "fc6", "casts, forward"),
        ("gradient_tape/mini/relu1/ReluGrad", "ReluGrad", "relu1", "ReLU, gradient"),
        ("mini/norm1_1/call", "PartitionedCall", "norm1", "normalisation, forward"),
        ("mini/pool1/MaxPool", "MaxPool", "pool1", "pooling, forward"),
        ("decayed_momentum/L2Loss", "L2Loss", "optimizer", "optimizer, L2Loss"),
        ("compile_loss/x/Mean", "Mean", "loss", "softmax and loss, forward"),
        ("Equal_1", "Equal", "step", "metrics and others"),
    ],
)
def test_operations_have_a_layer_and_a_kind(places, name, kind, layer, work):
    assert places.of(Operation(name, kind, 0, 1)) == (layer, work)


def test_a_profile_adds_up_to_the_step(tmp_path, capsys):
    ask("step_profile", Options(out=tmp_path, quick=True))
    answers = json.loads((tmp_path / "step_profile.json").read_text())["results"]
    for precision, found in answers.items():
        rows = [row["milliseconds"] for row in found["places"]]
        assert sum(rows) == pytest.approx(found["milliseconds"])
        assert sum(found["kinds"].values()) == pytest.approx(found["milliseconds"])
        assert min(rows) >= 0
        assert ("casts, gradient" in found["kinds"]) == (precision == "bfloat16")
    printed = capsys.readouterr().out
    assert printed.count("host: no operation runs") >= 2


def test_gradients_of_normalisations_are_found():
    kinds = profile(TINY)["places"]
    gradients = {
        row["layer"] for row in kinds if row["kind"] == "normalisation, gradient"
    }
    assert gradients == {"norm1", "norm2"}
