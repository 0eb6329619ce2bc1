"""Every named network gives the numbers of an implementation that is not ours.

The other side is ONNX Runtime. Its graphs are written here, layer by layer, from the
papers' and programs' own figures; of our network they see nothing but the weights.
"""

import gc

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from reduced import VARIANTS, changed, randomise, reduced

import keras_alexnet

# Largest difference between two logits, of the largest logit.
TOLERANCE = 1e-5


class Graph:
    """An ONNX graph that grows by one operation per call; images are NCHW."""

    def __init__(self, weights):
        self.weights = weights  # Layer name -> (kernel, bias), as Keras keeps them.
        self.nodes, self.constants = [], []

    def add(self, operation, *inputs, outputs=1, **attributes):
        names = [f"{operation}_{len(self.nodes)}_{index}" for index in range(outputs)]
        node = helper.make_node(operation, inputs, names, **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def constant(self, values):
        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(values)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def number(self, value):
        return self.constant(np.float32(value))

    def conv(self, x, name, stride=1, pads=(0, 0, 0, 0), group=1):
        """Pads are those of top, left, bottom and right."""
        kernel, bias = self.weights[name]
        weights = self.constant(kernel.transpose(3, 2, 0, 1)), self.constant(bias)
        return self.add(
            "Conv", x, *weights, strides=[stride] * 2, pads=pads, group=group
        )

    def relu(self, x):
        return self.add("Relu", x)

    def lrn(self, x, alpha, k):
        """ONNX divides alpha by the size."""
        return self.add("LRN", x, size=5, alpha=alpha, beta=0.75, bias=k)

    def lrn_per_tower(self, x, alpha, k):
        towers = self.add("Split", x, outputs=2, axis=1, num_outputs=2)
        return self.add("Concat", *[self.lrn(t, alpha, k) for t in towers], axis=1)

    def spatial_norm(self, x):
        """x / (1 + 1e-3 / 25 * sum over 5x5 pixels of x^2) ^ 0.75."""
        mean = self.add(
            "AveragePool",
            self.add("Mul", x, x),
            kernel_shape=[5, 5],
            pads=[2, 2, 2, 2],
            count_include_pad=1,
        )
        scaled = self.add("Mul", mean, self.number(1e-3))
        base = self.add("Add", scaled, self.number(1.0))
        return self.add("Div", x, self.add("Pow", base, self.number(0.75)))

    def pool(self, x, ceil=False):
        return self.add(
            "MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=int(ceil)
        )

    def adaptive_average(self, x, size, cells=6):
        """PyTorch's rule, one cell after the other."""
        if size == cells:
            return x
        rows = []
        for i in range(cells):
            row = [self._cell(x, i, j, size, cells) for j in range(cells)]
            rows.append(self.add("Concat", *row, axis=3))
        return self.add("Concat", *rows, axis=2)

    def _cell(self, x, i, j, size, cells):
        first = np.array([i, j]) * size // cells
        end = -(-(np.array([i, j]) + 1) * size // cells)
        cell = self.add("Slice", x, *map(self.constant, (first, end)), self.pixels())
        return self.mean(cell)

    def pixels(self):
        """The axes of height and width."""
        return self.constant(np.array([2, 3], "int64"))

    def mean(self, x, keepdims=1):
        return self.add("ReduceMean", x, self.pixels(), keepdims=keepdims)

    def halve(self, x):
        """What the dropout of 2012 does at test time."""
        return self.add("Mul", x, self.number(0.5))

    def dense(self, x, name, size=None):
        """With `size`, x are maps of size x size pixels, flattened by channel first."""
        kernel, bias = self.weights[name]
        if size:
            x = self.add("Flatten", x)
            maps = kernel.reshape(size, size, -1, kernel.shape[1])
            kernel = maps.transpose(2, 0, 1, 3).reshape(kernel.shape)
        weights = self.constant(kernel.T), self.constant(bias)
        return self.add("Gemm", x, *weights, transB=1)

    def run(self, output, images):
        nchw = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        graph = helper.make_graph(
            self.nodes,
            "reference",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, nchw.shape)],
            [
                helper.make_tensor_value_info(
                    output, TensorProto.FLOAT, ["batch", "classes"]
                )
            ],
            self.constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8
        )
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return session.run([output], {"x": nchw})[0]


# === The networks, each from its own source ===
P1, P2 = (1, 1, 1, 1), (2, 2, 2, 2)


def hidden(g, x, size, after=lambda x: x):
    x = after(g.relu(g.dense(x, "fc6", size)))
    x = after(g.relu(g.dense(x, "fc7")))
    return g.dense(x, "fc8")


def paper(g, x, size):
    # Section 3.3: alpha multiplies the sum, and ONNX divides it by 5.
    for block in ("conv1", "conv2"):
        x = g.conv(x, block, 4) if block == "conv1" else g.conv(x, block, 1, P2, 2)
        x = g.pool(g.lrn(g.relu(x), alpha=5e-4, k=2.0))
    x = g.relu(g.conv(x, "conv3", 1, P1))
    x = g.relu(g.conv(x, "conv4", 1, P1, 2))
    x = g.pool(g.relu(g.conv(x, "conv5", 1, P1, 2)))
    return hidden(g, x, 6)


def mini(g, x, size):
    for block, groups in (("conv1", 1), ("conv2", 2)):
        x = g.relu(g.conv(x, block, 1, P2, groups))
        x = g.pool(g.lrn(x, alpha=5e-4, k=2.0))
    x = g.relu(g.conv(x, "conv3", 1, P1))
    x = g.relu(g.conv(x, "conv4", 1, P1, 2))
    x = g.pool(g.relu(g.conv(x, "conv5", 1, P1, 2)))
    return hidden(g, x, 2)


def source(g, x, size, towers=2):
    # layers-145.cfg: per tower, conv1 - rnorm - pool - ReLU, and so on; with one tower
    # layers-145-half.cfg.
    lrn = g.lrn_per_tower if towers == 2 else g.lrn
    x = g.conv(x, "conv1", 4, (0, 0, 3, 3))
    x = g.relu(g.pool(lrn(x, alpha=1e-4, k=2.0), ceil=True))
    x = g.relu(g.conv(x, "conv2", 1, P2, towers))
    x = g.pool(g.spatial_norm(lrn(x, alpha=1e-4, k=2.0)), ceil=True)
    x = g.relu(g.conv(x, "conv3", 1, P1))
    x = g.relu(g.conv(x, "conv4", 1, P1, towers))
    x = g.relu(g.pool(g.conv(x, "conv5", 1, P1, towers), ceil=True))
    return hidden(g, x, 6, after=g.halve)


def half(g, x, size):
    return source(g, x, size, towers=1)


def bvlc_alexnet(g, x, size, pool_first=False):
    for block in ("conv1", "conv2"):
        x = g.conv(x, block, 4) if block == "conv1" else g.conv(x, block, 1, P2, 2)
        x = g.relu(x)
        if pool_first:
            x = g.lrn(g.pool(x, ceil=True), alpha=1e-4, k=1.0)
        else:
            x = g.pool(g.lrn(x, alpha=1e-4, k=1.0), ceil=True)
    x = g.relu(g.conv(x, "conv3", 1, P1))
    x = g.relu(g.conv(x, "conv4", 1, P1, 2))
    x = g.pool(g.relu(g.conv(x, "conv5", 1, P1, 2)), ceil=True)
    return hidden(g, x, 6)


def caffenet(g, x, size):
    return bvlc_alexnet(g, x, size, pool_first=True)


def one_tower(g, x, pads):
    x = g.pool(g.relu(g.conv(x, "conv1", 4, pads)))
    x = g.pool(g.relu(g.conv(x, "conv2", 1, P2)))
    x = g.relu(g.conv(x, "conv3", 1, P1))
    x = g.relu(g.conv(x, "conv4", 1, P1))
    return g.pool(g.relu(g.conv(x, "conv5", 1, P1)))


def torchvision(g, x, size):
    x = one_tower(g, x, P2)
    # 224 leaves 6 pixels, 288 leaves 8: 288 -> 71 -> 35 -> 17 -> 8.
    return hidden(g, g.adaptive_average(x, {224: 6, 288: 8}[size]), 6)


def slim(g, x, size):
    x = g.relu(g.conv(one_tower(g, x, (0, 0, 0, 0)), "fc6"))
    # With global_pool, slim averages over the places before the last layer.
    x = g.mean(g.relu(g.conv(x, "fc7")))
    return g.add("Squeeze", g.conv(x, "fc8"), g.pixels())


# The graph, and the size of its images.
REFERENCES = {
    "alexnet_2012": (paper, 227),
    "alexnet_2012_source": (source, 224),
    "alexnet_2012_half": (half, 224),
    "bvlc_alexnet": (bvlc_alexnet, 227),
    "caffenet": (caffenet, 227),
    "alexnet_owt": (torchvision, 224),
    "alexnet_slim_v2": (slim, 224),
}


def difference(architecture, reference, size, batch=2):
    """Largest difference of two logits, of the largest logit."""
    # The spread of pixels whose mean was subtracted: LRN tells its conventions apart.
    rng = np.random.default_rng(1)
    images = rng.normal(0, 60, (batch, size, size, 3)).astype("float32")
    model = keras_alexnet.build(
        architecture, input_shape=(size, size, 3), classifier_activation=None
    )
    randomise(model)
    found = model.predict(images, verbose=0)
    graph = Graph({layer.name: layer.get_weights() for layer in model.layers})
    del model
    keras.backend.clear_session()
    expected = graph.run(reference(graph, "x", size), images)
    assert found.shape == expected.shape and np.abs(expected).max() > 0
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "reference", "size"),
    [("alexnet_2012", paper, 227), ("alexnet_mini", mini, 28)],
)
def test_logits_of_the_default_networks(name, reference, size):
    assert difference(name, reference, size) <= TOLERANCE


@pytest.mark.parametrize(
    "architecture", [reduced, pytest.param(str, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_at_reduced_and_at_full_width(name, architecture):
    found = difference(architecture(name), *REFERENCES[name])
    print(f"{name}: {found:.1e}")
    gc.collect()
    assert found <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "size"),
    [
        # 54-27-13-6 pixels if the last window is clipped, 54-26-12-5 if it is left out.
        ("bvlc_alexnet", 224),
        ("caffenet", 224),
        # 8x8 pixels, averaged to 6x6.
        ("alexnet_owt", 288),
        # 7x7 pixels, an answer for each of 3x3 places.
        ("alexnet_slim_v2", 288),
    ],
)
def test_logits_for_images_of_other_sizes(name, size):
    found = difference(reduced(name), REFERENCES[name][0], size, batch=1)
    assert found <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "layer", "options"),
    [
        ("alexnet_2012", "norm1", {"alpha_over_size": True}),
        ("alexnet_2012", "norm2", {"k": 1.0}),
        ("alexnet_2012_source", "pad1", {"padding": ((3, 0), (3, 0))}),
        ("alexnet_2012_source", "norm1", {"groups": 1}),
        ("alexnet_2012_source", "norm2", {"groups": 1}),
        ("alexnet_2012_source", "norm2", {"alpha_over_size": False}),
        ("alexnet_2012_source", "spatial_norm2", {"k": 2.0}),
        ("alexnet_2012_source", "spatial_norm2", {"alpha": 25e-3}),
        ("alexnet_2012_source", "drop6", {"rate": 0.0}),
        ("alexnet_2012_half", "spatial_norm2", {"size": 3}),
        ("bvlc_alexnet", "norm2", {"k": 2.0}),
        ("alexnet_owt", "pad1", {"padding": ((0, 3), (0, 3))}),
    ],
)
def test_a_wrong_convention_would_be_noticed(name, layer, options):
    wrong = changed(reduced(name), layer, **options)
    found = difference(wrong, *REFERENCES[name], batch=1)
    assert found > 10 * TOLERANCE


def test_a_wrong_order_would_be_noticed():
    for name, other in (("bvlc_alexnet", caffenet), ("caffenet", bvlc_alexnet)):
        assert difference(reduced(name), other, 227, batch=1) > 10 * TOLERANCE
