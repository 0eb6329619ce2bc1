"""The tiny network in the formats whose real writers are installed for the tests."""

import dataclasses

import keras
import numpy as np
import onnx
import tiny_net
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from onnx import TensorProto, helper

import keras_alexnet
from keras_alexnet.architectures import get_architecture

NAMES = [name for name, _ in tiny_net.SHAPES]


def torch_order():
    """Returns kernels and biases in PyTorch's layout, by name."""
    return {
        name: (
            np.array(tiny_net.kernel(index), np.float32).reshape(shape),
            np.array(tiny_net.bias(index), np.float32),
        )
        for index, (name, shape) in enumerate(tiny_net.SHAPES)
    }


def expected():
    """Returns kernels and biases in our layout, element by element."""
    result = {}
    for index, (name, shape) in enumerate(tiny_net.SHAPES):
        if len(shape) == 4:
            outs, ins, height, width = shape
            kernel = np.empty((height, width, ins, outs), np.float32)
            for o, i, y, x in np.ndindex(shape):
                position = ((o * ins + i) * height + y) * width + x
                kernel[y, x, i, o] = tiny_net.value(index, position)
        else:
            outs, ins = shape
            kernel = np.empty((ins, outs), np.float32)
            for o in range(outs):
                for i in range(ins):
                    row = i
                    if name == "fc6":
                        # 2 channels of 2 x 2 pixels.
                        channel, y, x = i // 4, i // 2 % 2, i % 2
                        row = (y * 2 + x) * 2 + channel
                    kernel[row, o] = tiny_net.value(index, o * ins + i)
        result[name] = (kernel, np.array(tiny_net.bias(index), np.float32))
    return result


def check(weight_file, names=tuple(NAMES)):
    """Compares weights with what each element's position says, bit by bit."""
    assert tuple(weight_file.layers) == names
    weights = expected()
    for name in names:
        for found, array in zip(weight_file.layers[name], weights[name], strict=True):
            assert found.dtype == np.float32 and found.flags.c_contiguous
            np.testing.assert_array_equal(found, array, err_msg=name, strict=True)


def model(**options):
    """Builds the tiny network: alexnet_mini with other widths, without LRN."""
    mini = get_architecture("alexnet_mini")
    widths = {name: shape[0] for name, shape in tiny_net.SHAPES}

    def narrow(spec):
        options = dict(spec.options)
        if spec.role == "conv":
            options["filters"] = widths[spec.name]
        elif spec.role == "dense" and options["units"]:
            options["units"] = widths[spec.name]
        return dataclasses.replace(spec, options=options)

    tiny = dataclasses.replace(
        mini,
        classes=3,
        features=tuple(map(narrow, mini.features)),
        top=tuple(map(narrow, mini.top)),
    )
    return keras_alexnet.build(tiny, **{"norm": None, **options})


def write_keras(path, **options):
    """Saves the tiny network, with `Model.save_weights` or `Model.save`."""
    net = model(**options)
    for name, weights in expected().items():
        net.get_layer(name).set_weights(weights)
    if str(path).endswith(".weights.h5"):
        net.save_weights(path)
    else:
        # Under any name: Keras insists on the ending.
        net.save(path)
    keras.backend.clear_session()


# === Caffe ===
_OPTIONAL, _REPEATED = 1, 3
_TYPES = {"double": 1, "float": 2, "int64": 3, "int32": 5, "string": 9, "message": 11}


def _caffe_messages():
    """Declares the part of caffe.proto that weights need."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tiny_caffe.proto", package="tiny_caffe", syntax="proto2"
    )

    def declare(message, *fields):
        added = file.message_type.add(name=message)
        for name, number, kind, label, packed in fields:
            field = added.field.add(name=name, number=number, label=label)
            field.type = _TYPES.get(kind, _TYPES["message"])
            if kind not in _TYPES:
                field.type_name = f".tiny_caffe.{kind}"
            if packed:
                field.options.packed = True

    declare("BlobShape", ("dim", 1, "int64", _REPEATED, True))
    declare(
        "BlobProto",
        ("num", 1, "int32", _OPTIONAL, False),
        ("channels", 2, "int32", _OPTIONAL, False),
        ("height", 3, "int32", _OPTIONAL, False),
        ("width", 4, "int32", _OPTIONAL, False),
        ("data", 5, "float", _REPEATED, True),
        ("diff", 6, "float", _REPEATED, True),
        ("shape", 7, "BlobShape", _OPTIONAL, False),
        ("double_data", 8, "double", _REPEATED, True),
    )
    declare(
        "LayerParameter",
        ("name", 1, "string", _OPTIONAL, False),
        ("type", 2, "string", _OPTIONAL, False),
        ("bottom", 3, "string", _REPEATED, False),
        ("top", 4, "string", _REPEATED, False),
        ("blobs", 7, "BlobProto", _REPEATED, False),
    )
    declare(
        "V1LayerParameter",
        ("bottom", 2, "string", _REPEATED, False),
        ("top", 3, "string", _REPEATED, False),
        ("name", 4, "string", _OPTIONAL, False),
        ("type", 5, "int32", _OPTIONAL, False),
        ("blobs", 6, "BlobProto", _REPEATED, False),
    )
    declare(
        "NetParameter",
        ("name", 1, "string", _OPTIONAL, False),
        ("layers", 2, "V1LayerParameter", _REPEATED, False),
        ("layer", 100, "LayerParameter", _REPEATED, False),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"tiny_caffe.{name}")
        )
        for name in ("NetParameter", "BlobProto")
    }


CAFFE = _caffe_messages()
_V1_TYPES = {"Convolution": 4, "Data": 5, "InnerProduct": 14, "LRN": 15, "ReLU": 18}
_V1_TYPES |= {"Pooling": 17}


def caffe_net(*, v1=False, norm_first=True, double=False, fc8="fc8"):
    """Returns a NetParameter message."""
    net = CAFFE["NetParameter"](name="Tiny")
    weights = torch_order()
    block1 = ["LRN", "Pooling"] if norm_first else ["Pooling", "LRN"]
    kinds = [("data", "Data"), ("conv1", "Convolution"), ("relu1", "ReLU")]
    kinds += [(f"{kind.lower()}1", kind) for kind in block1]
    kinds += [(name, "Convolution") for name in NAMES[1:5]]
    kinds += [("pool5", "Pooling"), *((name, "InnerProduct") for name in NAMES[5:])]
    for name, kind in kinds:
        layer = (net.layers if v1 else net.layer).add()
        layer.name = fc8 if name == "fc8" else name
        layer.type = _V1_TYPES[kind] if v1 else kind
        layer.bottom.append("below")
        for array in weights.get(name, ()):
            blob = layer.blobs.add()
            if v1:
                shape = (1,) * (4 - array.ndim) + array.shape
                blob.num, blob.channels, blob.height, blob.width = shape
            else:
                blob.shape.dim.extend(array.shape)
            (blob.double_data if double else blob.data).extend(array.ravel().tolist())
    return net


def mean_blob():
    """Returns a mean image of 3 x 4 pixels: (1, channels, height, width)."""
    blob = CAFFE["BlobProto"](num=1, channels=3, height=3, width=4)
    blob.data.extend(range(36))
    return blob


# === ONNX ===
def onnx_graph(*, constants=False, transposed=True, floats=False, norm_first=True):
    """Returns a ModelProto shaped like bvlcalexnet's, or caffenet's."""
    nodes, initializers = [], []

    def weight(name, array):
        if floats:
            tensor = helper.make_tensor(
                name, TensorProto.FLOAT, array.shape, array.ravel().tolist()
            )
        else:
            tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        if constants:
            nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            initializers.append(tensor)

    x = "data_0"
    block1 = [
        ("LRN", {"size": 5}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2]}),
    ]
    for name, (kernel, bias) in torch_order().items():
        is_conv = kernel.ndim == 4
        if not is_conv and not transposed:
            kernel = kernel.T
        weight(f"{name}_w_0", kernel)
        weight(f"{name}_b_0", bias)
        if name == "fc6":
            nodes.append(helper.make_node("Flatten", [x], ["flat"]))
            x = "flat"
        inputs = [x, f"{name}_w_0", f"{name}_b_0"]
        options = {"group": 2} if name in ("conv2", "conv4", "conv5") else {}
        if is_conv:
            pads = [kernel.shape[-1] // 2] * 4
            node = helper.make_node("Conv", inputs, [name], pads=pads, **options)
        else:
            # A Gemm's transB is 0 unless it says otherwise.
            options = {"transB": 1} if transposed else {}
            node = helper.make_node("Gemm", inputs, [name], **options)
        nodes.append(node)
        x = name
        if name == "conv1":
            for kind, options in block1 if norm_first else block1[::-1]:
                nodes.append(helper.make_node(kind, [x], [f"{kind}1"], **options))
                x = f"{kind}1"
    images = helper.make_tensor_value_info("data_0", TensorProto.FLOAT, [1, 3, 28, 28])
    output = helper.make_tensor_value_info(x, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "tiny", [images], [output], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)])
