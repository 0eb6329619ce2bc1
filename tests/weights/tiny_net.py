"""A network of 700 weights in every format, and what every reader must make of it.

Each weight says where it belongs: it is a function of its layer and of its position in
the layout that PyTorch, Caffe and ONNX share. Runs under Python 2.7 too, because the
recipes in `fixtures/` use it.
"""

# Name, then (out, in / groups, height, width) or (out, in). Grouped as in 2012: conv2,
# conv4 and conv5 are two towers.
SHAPES = [
    ("conv1", (2, 3, 5, 5)),
    ("conv2", (4, 1, 5, 5)),
    ("conv3", (4, 4, 3, 3)),
    ("conv4", (4, 2, 3, 3)),
    ("conv5", (2, 2, 3, 3)),
    ("fc6", (6, 8)),
    ("fc7", (4, 6)),
    ("fc8", (3, 4)),
]
TORCH_KEYS = ["features." + str(i) for i in (0, 3, 6, 8, 10)]
TORCH_KEYS += ["classifier." + str(i) for i in (1, 4, 6)]
IMAGE_SIZE = 28


def value(layer, position, scale=256.0):
    """Returns a weight; exact in float16 and float32.

    Args:
        layer: Position of the layer in SHAPES.
        position: Position of the weight in the flattened array; of a bias, counted on
            after the kernel's.
    """
    return ((position * 37 + layer * 11) % 101 - 50) / scale


def kernel(layer):
    """Returns a kernel in PyTorch's layout, as nested lists flattened."""
    size = 1
    for length in SHAPES[layer][1]:
        size *= length
    return [value(layer, position) for position in range(size)]


def bias(layer):
    """Returns a bias."""
    size = len(kernel(layer))
    return [value(layer, size + i) for i in range(SHAPES[layer][1][0])]


def image():
    """Returns an image, (channels, height, width) flattened."""
    size = 3 * IMAGE_SIZE * IMAGE_SIZE
    return [value(9, position, 32.0) for position in range(size)]
