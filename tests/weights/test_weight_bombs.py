"""Files made to harm: each raises one clear error, quickly, and runs nothing."""

import gzip
import io
import json
import os
import pickle
import pickletools
import resource
import struct
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import writers

from keras_alexnet.weights import WeightFileError, read_mean, read_weights

FIXTURES = Path(__file__).parent / "fixtures"
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


class Command:
    """What Python's own unpickler would run."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def refuse(path, data, match=None, read=read_weights):
    """Checks that a file is refused, and at what cost."""
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(WeightFileError, match=match) as caught:
        read(path)
    assert time.process_time() - start < 10
    assert len(str(caught.value)) < 2000 and "\n" not in str(caught.value)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert growth < 300 * 1024, f"{growth} kB"


def as_zip(pickled, compression=zipfile.ZIP_STORED):
    """Returns a PyTorch archive around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", bytes(16))
    return file.getvalue()


def as_npy(pickled):
    """Returns a NumPy file around a pickle."""
    header = (
        b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
    )
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + pickled


def as_legacy(pickled):
    """Returns a legacy PyTorch file around a pickle."""
    parts = [1001, {"little_endian": True}]
    start = MAGIC + b"".join(pickle.dumps(part, 2) for part in parts)
    return start + pickled + pickle.dumps([], 2)


CONTAINERS = {
    "zip": as_zip,
    "npy": as_npy,
    "legacy": as_legacy,
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_pickle_runs_anything(container, tmp_path):
    canary = tmp_path / "canary"
    shell = f"touch {canary}"
    code = f"open({str(canary)!r}, 'w')"
    text = code.encode()
    pickles = []
    for protocol in (2, 3, 4, 5):
        pickles += [
            pickle.dumps(Command(os.system, shell), protocol),
            pickle.dumps(Command(eval, code), protocol),
            pickle.dumps(Command(exec, code), protocol),
            pickle.dumps({"model_state": Command(eval, code)}, protocol),
            pickle.dumps([Command(__import__, "antigravity")], protocol),
            pickle.dumps(Command(getattr, {}, "get"), protocol),
            pickle.dumps(Command(pickle.loads, pickle.dumps(1)), protocol),
            pickle.dumps(Command(np.load, str(canary)), protocol),
            pickle.dumps(Command(open, str(canary), "w"), protocol),
        ]
    argument = b"X" + struct.pack("<I", len(text)) + text
    for module, name in (
        (b"__builtin__", b"eval"),
        (b"builtins", b"eval"),
        (b"numpy.core.multiarray", b"eval"),
        (b"numpy.testing._private.utils", b"runstring"),
        (b"torch.storage", b"_load_from_bytes"),
        (b"torch", b"load"),
        (b"collections", b"namedtuple"),
        (b"torch._utils", b"__builtins__"),
    ):
        named = b"c" + module + b"\n" + name + b"\n"
        pickles += [
            b"\x80\x02" + named + argument + b"\x85R.",
            b"\x80\x02" + named + argument + b"\x85\x81.",
            b"\x80\x02(" + named + argument + b"o.",
            b"\x80\x02(" + argument + b"i" + module + b"\n" + name + b"\n.",
            b"\x80\x02" + named + b"}b.",
        ]
    # Inert classes stay inert, whatever is done to them, and however they are called.
    for named in (
        b"coptions\nos.system\n",
        b"cutil\neval\n",
        b"cargparse\nNamespace\n",
    ):
        pickles += [
            b"\x80\x02" + named + argument + b"\x85R.",
            b"\x80\x02"
            + named
            + argument
            + b"\x85\x81}X\x07\0\0\0__del__"
            + named
            + b"sb.",
        ]
    pickles += [
        b"\x80\x02\x82\x01.",
        b"\x80\x02P1\n.",
        b"\x80\x05\x97\x98.",
        b"cos\nsystem\n",
    ]
    for pickled in pickles:
        refuse(tmp_path / "weights", CONTAINERS[container](pickled))
        assert not canary.exists()


def _array(shape, data=b"\0" * 16, order=b"\x89", dtype=b"f4"):
    """Returns the instructions of a NumPy array whose shape is anything."""
    dtype = b"cnumpy\ndtype\nU" + bytes([len(dtype)]) + dtype + b"K\0K\1\x87R"
    dtype += b"(K\3U\1<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"
    state = b"(K\1" + shape + dtype + order + b"T" + struct.pack("<i", len(data)) + data
    return start + state + b"tb"


def _number(value):
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + data


def _layers(kernel, bias):
    """Returns the dict of a NumPy file whose layers share one kernel and bias."""
    pair = b"](" + kernel + bias + b"eq\7"
    items = [b"U\5conv%d" % i + (pair if i == 1 else b"h\7") for i in range(1, 6)]
    return b"\x80\x02}(" + b"".join(items) + b"u."


PICKLE_BOMBS = {
    "a long integer": b"\x80\x02\x8b"
    + struct.pack("<i", 2**31 - 1)
    + b"\1" * 64
    + b".",
    "a negative size": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "a negative string": b"\x80\x02T\xff\xff\xff\xff.",
    "a huge text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"a.",
    "a huge frame": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"a.",
    "a huge memo": b"\x80\x02]r\xff\xff\xff\xff0r\xfe\xff\xff\xff.",
    "nested lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "nested tuples": b"\x80\x02)" + b"\x85" * 400_000 + b".",
    "a nested key": b"\x80\x02})" + b"\x85" * 400_000 + b"Ns.",
    "nested inert state": b"\x80\x02coptions\na\n)R)" + b"\x85" * 400_000 + b"b.",
    "a ring": b"\x80\x02]q\0h\0a.",
    "a ring as key": b"\x80\x02}q\0h\0Ns.",
    "a dict in itself": b"\x80\x02}q\0U\x0bmodel_stateh\0s.",
    "layers in themselves": b"\x80\x02}U\x06layers]q\0h\0as.",
    "many lists": b"\x80\x02" + b"]" * 1_000_000 + b".",
    "many marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
    "many copies": b"\x80\x02]" + b"2" * 1_000_000 + b".",
    "nothing on the stack": b"\x80\x02R.",
    "below a mark": b"\x80\x02N(\x85.",
    "no mark": b"\x80\x02t.",
    "an unknown memo": b"\x80\x02h\7.",
    "never ending": b"\x80\x02" + b"N0" * 600_000,
    "a line that never ends": b"\x80\x02c" + b"a" * 100_000,
    "many dicts of a big one": (
        b"\x80\x02ccollections\nOrderedDict\nq\0]q\1("
        + b"K\1K\2\x86" * 20_000
        + b"eh\1\x85R"
        + b"h\0h\1\x85R0" * 20_000
        + b"."
    ),
    "many long encodings": (
        b"\x80\x02X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\0"
        b"c_codecs\nencode\nq\1" + b"h\1h\0U\6latin1\x86R" * 30_000 + b"."
    ),
    "a huge array": _layers(
        _array(b"(" + _number(2**39) + _number(2**39) + b"t"), _array(b"K\4\x85")
    ),
    "a negative array": _layers(
        _array(b"(" + _number(-4) + _number(-1) + b"t"), _array(b"K\4\x85")
    ),
    "an array of eight dimensions": _layers(
        _array(b"(" + _number(2**39) * 9 + b"t"), _array(b"K\4\x85")
    ),
    "an array of no size": _layers(_array(b"(K\0K\4t", b""), _array(b"K\4\x85")),
    "an array of objects": _layers(
        _array(b"(K\2K\2t", b"\1" * 32, dtype=b"O8"), _array(b"K\4\x85")
    ),
    "a dtype of records": _layers(
        _array(b"K\4\x85", dtype=b"f4,f4"), _array(b"K\4\x85")
    ),
    "an array in itself": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN\x85Rq\0"
    b"(K\1)cnumpy\ndtype\nU\1O\x85R\x89]h\0atb.",
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_pickle_bombs_are_refused(container, tmp_path):
    for pickled in PICKLE_BOMBS.values():
        refuse(tmp_path / "weights", CONTAINERS[container](pickled))


def test_bombs_are_what_they_say(tmp_path):
    shape = b"(K\1K\1K\1K\4t"
    (tmp_path / "sound").write_bytes(as_npy(_layers(_array(shape), _array(b"K\4\x85"))))
    assert read_weights(tmp_path / "sound").layers["conv5"].kernel.shape == (1, 1, 1, 4)
    # Python's own tools follow those that are sound up to the end.
    for name in (
        "a ring",
        "nested tuples",
        "an array in itself",
        "many long encodings",
    ):
        *_, last = pickletools.genops(PICKLE_BOMBS[name])
        assert last[0].name == "STOP"


def _tensor(shape, strides, offset=b"K\0", count=b"K\4"):
    """Returns a state dict with one tensor."""
    storage = b"(U\7storagectorch\nFloatStorage\nU\0010U\3cpu" + count + b"tQ"
    return (
        b"\x80\x02}U\x11features.0.weightctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + offset
        + shape
        + strides
        + b"\x89}tRs."
    )


@pytest.mark.parametrize(
    "state",
    [
        _tensor(b"(" + _number(2**39) * 4 + b"t", b"(K\0K\0K\0K\0t"),
        _tensor(b"(K\x40K\x40K\x40K\x40t", b"(K\0K\0K\0K\0t"),
        _tensor(b"(K\1K\1K\1K\4t", b"(K\0K\0K\0K\4t"),
        _tensor(b"(K\1K\1K\1K\4t", b"(K\0K\0K\0" + _number(2**39) + b"t"),
        _tensor(b"(K\1K\1K\1K\4t", b"(K\1K\1K\1K\1t", _number(2**39)),
        _tensor(b"(K\1K\1K\1K\4t", b"(K\1K\1K\1K\1t", _number(-1)),
        _tensor(b"(K\1K\1K\1" + _number(-4) + b"t", b"(K\1K\1K\1K\1t"),
        _tensor(b"(K\1K\1K\1K\4t", b"(K\1K\1K\1" + _number(-1) + b"t"),
        _tensor(b"(K\1t", b"(K\1K\1t"),
        _tensor(b"]", b"]"),
    ],
)
def test_tensors_outside_their_storage_are_refused(state, tmp_path):
    # Beside sound layers, so that the tensor is looked at.
    from keras_alexnet.weights import pytorch, unpickle

    sound = {
        key: (lambda: np.zeros((1, 1, 1, 1), "f4"))
        if "weight" in key and "features" in key
        else (lambda: np.zeros(1, "f4"))
        for index in (0, 3, 6, 8, 10)
        for key in (f"features.{index}.weight", f"features.{index}.bias")
    }
    assert pytorch.from_state_dict(sound, "torch").layers

    def storage(key):
        return memoryview(bytes(16))

    with pytest.raises(WeightFileError):
        value, _ = unpickle.load(memoryview(state))
        tensor = pytorch._array(value["features.0.weight"], storage, "<")
        pytorch.from_state_dict(sound | {"features.0.weight": lambda: tensor}, "torch")
        # A tensor without dimensions is sound, but no kernel.
        assert tensor.ndim == 0


def test_compressed_bombs_are_refused(tmp_path):
    path = tmp_path / "weights"
    pickled = b"\x80\x02B" + struct.pack("<I", 200 << 20) + bytes(200 << 20) + b"."
    refuse(path, as_zip(pickled, zipfile.ZIP_DEFLATED), "too many")
    # A declared size that is a lie, in the index and in the member's header.
    honest = as_zip(b"\x80\x02B\0\0\1\0" + bytes(1 << 16) + b".", zipfile.ZIP_DEFLATED)
    for size in (0, 1, 2**31, 2**32 - 2):
        lying = honest.replace(
            struct.pack("<I", (1 << 16) + 8), struct.pack("<I", size)
        )
        assert lying != honest
        refuse(path, lying)


def test_hostile_archives_are_refused(tmp_path):
    path = tmp_path / "weights"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for index in range(40_000):
            archive.writestr(f"{index}", b"")
    refuse(path, file.getvalue(), "index")
    sound = as_zip(pickle.dumps({}, 2))
    # Encrypted, and compressed in a way that is not known.
    for offset, value in ((6, b"\1"), (8, b"\x0c")):
        index = sound.index(b"PK\1\2") + offset + 2
        refuse(path, sound[:index] + value + sound[index + 1 :])
    for start in (2**31, 2**32 - 2):
        end = sound.rindex(b"PK\5\6") + 16
        refuse(path, sound[:end] + struct.pack("<I", start) + sound[end + 4 :])


def test_numpy_headers_are_not_evaluated(tmp_path):
    canary = tmp_path / "canary"
    body = pickle.dumps({}, 2)
    call = f"__import__('os').system('touch {canary}')".encode()
    for header in (
        call,
        b"{'descr': " + call + b", 'fortran_order': False, 'shape': (), }",
        b"(" * 60_000,
        b"-" * 60_000,
        b"{'descr': '|O', 'fortran_order': False, 'shape': (" + b"9" * 5000 + b",), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999,), }",
    ):
        start = b"\x93NUMPY\1\0" + struct.pack("<H", len(header))
        refuse(tmp_path / "weights", start + header + body, "header")
    start = b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1)
    refuse(tmp_path / "weights", start + b"{" * 100)
    assert not canary.exists()


def test_safetensors_headers_are_bounded(tmp_path):
    path = tmp_path / "weights"
    huge = {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 16]}
    for entry in (
        huge,
        {**huge, "shape": [2**40]},
        {**huge, "shape": [4], "data_offsets": [0, 2**63]},
        {**huge, "shape": [4], "data_offsets": [16, 0]},
        {**huge, "shape": [-4]},
        {**huge, "shape": [4], "dtype": "F4"},
        {**huge, "shape": "4"},
        [],
    ):
        header = json.dumps({"features.0.weight": entry}).encode()
        refuse(path, struct.pack("<Q", len(header)) + header + bytes(16))
    refuse(path, struct.pack("<Q", 60_000) + b'{"a":' + b"[" * 60_000)
    refuse(path, struct.pack("<Q", 2_000_000) + b"{" + b" " * 2_000_000, "header")


def _bytes(number, data):
    size, varint = len(data), b""
    while True:
        varint += bytes([size & 127 | (128 if size > 127 else 0)])
        size >>= 7
        if not size:
            return bytes([number << 3 | 2]) + varint + data


def test_protobuf_bombs_are_refused(tmp_path):
    path = tmp_path / "weights"
    refuse(path, b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(10))
    refuse(path, b"\x12" + b"\xff" * 100)
    refuse(path, _bytes(2, b"\x08\1") * 300_000)
    nested = b""
    for _ in range(2000):
        nested = _bytes(2, nested)
    refuse(path, nested)
    for dims in ([2**40, 2**40], [-1, 4], [2**63 - 1], [0], [4] * 40, [1] * 500_000):
        net = writers.caffe_net()
        shape = net.layer[1].blobs[0].shape
        del shape.dim[:]
        shape.dim.extend(dims)
        refuse(path, net.SerializeToString())
        graph = writers.onnx_graph()
        del graph.graph.initializer[0].dims[:]
        graph.graph.initializer[0].dims.extend(dims)
        refuse(path, graph.SerializeToString())
    mean = writers.mean_blob()
    mean.num = 2**31 - 1
    refuse(path, mean.SerializeToString(), read=read_mean)


def test_hdf5_bombs_are_refused(tmp_path):
    path, secret = tmp_path / "weights", tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["a"] = np.zeros((5, 5, 3, 2), "f4")

    def build(kernel):
        with h5py.File(path, "w") as file:
            group = file.create_group("layers/conv1/vars")
            group.attrs["name"] = "conv1"
            kernel(group)
            group["1"] = np.zeros(2, "f4")
        return path.read_bytes()

    shape = (5, 5, 3, 2)
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource(str(secret), "a", shape)
    for kernel in (
        lambda g: g.create_dataset("0", (1 << 16, 1 << 16, 3, 2), "f4"),
        lambda g: g.create_dataset(
            "0", (1 << 14,) * 2, "f4", chunks=True, fillvalue=1.0
        ),
        lambda g: g.create_dataset(
            "0", data=np.zeros((4096, 4096), "f4"), compression=9
        ),
        lambda g: g.create_dataset("0", shape, "f4", external=[(str(secret), 0, 600)]),
        lambda g: g.create_virtual_dataset("0", layout),
        lambda g: g.__setitem__("0", h5py.ExternalLink(str(secret), "a")),
        lambda g: g.__setitem__("0", h5py.SoftLink("/layers/conv1/vars/0")),
        lambda g: g.__setitem__("0", g),
        lambda g: g.__setitem__("0", "text"),
        lambda g: g.__setitem__("0", np.zeros(shape, "i4")),
        lambda g: g.__setitem__("0", np.zeros(shape, "f4,f4")),
    ):
        refuse(path, build(kernel))
    with h5py.File(path, "w", libver="latest") as file:
        file.create_group("layers")
    refuse(path, path.read_bytes(), "version")


def test_the_code_in_a_keras_file_is_not_read(tmp_path):
    path, canary = tmp_path / "a.keras", tmp_path / "canary"
    writers.write_keras(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"].append(
        {"module": "os", "class_name": "system", "config": f"touch {canary}"}
    )
    for text in (json.dumps(config), "[" * 100_000, "{}", "\0"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, text if name == "config.json" else data)
        if text.startswith('{"'):
            assert read_weights(path).name == "alexnet_mini"
        else:
            refuse(path, path.read_bytes())
    assert not canary.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"PK\3\4",
        b"\x89HDF\r\n\x1a\n",
        b"\x93NUMPY",
        b"\x1f\x8b",
        b"\x80\x02",
        b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(100),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\x7fELF" + bytes(100),
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        bytes(1000),
        b"\xff" * 1000,
        b"hello world\n" * 100,
        gzip.compress(pickle.dumps({"features.0.weight": 1}, 2), mtime=0),
        pickle.dumps({"features.0.weight": 1}, 2),
        as_npy(pickle.dumps({}, 4)),
        as_zip(pickle.dumps({"epoch": 1}, 2)),
    ],
)
def test_other_files_are_refused(data, tmp_path):
    refuse(tmp_path / "alexnet.pth", data, "alexnet.pth")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "pipe"):
        with pytest.raises(WeightFileError, match="No such weights file"):
            read_weights(path)


def test_a_whole_pytorch_model_gets_advice(tmp_path):
    class_name = b"ctorchvision.models.alexnet\nAlexNet\n"
    refuse(
        tmp_path / "weights",
        as_zip(b"\x80\x02" + class_name + b")\x81}b."),
        r"torchvision\.models\.alexnet\.AlexNet.*state_dict",
    )
