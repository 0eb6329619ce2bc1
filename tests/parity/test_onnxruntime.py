"""The networks against ONNX Runtime, on graphs written from the definition of ONNX."""

import keras
import numpy as np
import onnxruntime
import pytest

from keras_alexnet.benchmarks.models import ours
from keras_alexnet.benchmarks.networks import ALEXNET_2012, ALEXNET_MINI, weights_of
from keras_alexnet.benchmarks.peers.onnx_graph import onnx_graph


@pytest.mark.parametrize("network", [ALEXNET_2012, ALEXNET_MINI])
def test_logits_and_probabilities_are_those_of_onnx_runtime(network):
    model = ours(network)
    # Mean-free pixels, so that both normalisations are far from the identity.
    images = np.random.default_rng(0).uniform(-120, 120, (2, *model.input_shape[1:]))
    images = images.astype("float32")

    graph = onnx_graph(network, weights_of(network))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    logits, probabilities = session.run(None, {"images": images.transpose(0, 3, 1, 2)})

    both = keras.Model(model.input, [model.get_layer("fc8").output, model.output])
    our_logits, our_probabilities = (y.numpy() for y in both(images))
    assert np.abs(our_logits - logits).max() <= 1e-5 * np.abs(logits).max()
    np.testing.assert_allclose(our_probabilities, probabilities, atol=1e-5)
