"""Files that were damaged at random: one clear error or a sound result, quickly."""

import random
import resource
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import writers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_alexnet.weights import (
    LAYER_NAMES,
    WeightFileError,
    read_mean,
    read_weights,
    recognise,
)

FIXTURES = Path(__file__).parent / "fixtures"
MUTATIONS = 2000
FORMATS = [
    "torch zip",
    "torch legacy",
    "safetensors",
    "npy",
    "caffe",
    "caffe v1",
    "mean",
    "onnx",
    "keras",
    "weights.h5",
]
_FILES = {
    "torch zip": "tiny_zip.pth",
    "torch legacy": "tiny_legacy.pth",
    "safetensors": "tiny.safetensors",
    "npy": "tiny_lists.npy",
}
_WATCHED = False
_EVENTS = []


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Returns a sound file of each format."""
    files = {form: (FIXTURES / name).read_bytes() for form, name in _FILES.items()}
    files["caffe"] = writers.caffe_net().SerializeToString()
    files["caffe v1"] = writers.caffe_net(v1=True).SerializeToString()
    files["mean"] = writers.mean_blob().SerializeToString()
    files["onnx"] = writers.onnx_graph(constants=True).SerializeToString()
    folder = tmp_path_factory.mktemp("keras")
    for form in ("keras", "weights.h5"):
        writers.write_keras(folder / f"a.{form}")
        files[form] = (folder / f"a.{form}").read_bytes()
    for form, data in files.items():
        # Whatever is imported on first use is imported now.
        (folder / "sound").write_bytes(data)
        (read_mean if form == "mean" else read_weights)(folder / "sound")
    return files


def _audit(event, _):
    forbidden = ("exec", "compile", "os.system", "os.exec", "subprocess", "socket")
    if _WATCHED and event.startswith((*forbidden, "pickle", "marshal", "os.spawn")):
        _EVENTS.append(event)


sys.addaudithook(_audit)


def read(form, path):
    """Reads a file and checks what comes of it."""
    global _WATCHED
    start = time.process_time()
    _WATCHED = True
    try:
        if form == "mean":
            assert read_mean(path).dtype == np.float32
            return
        weight_file = read_weights(path)
    except WeightFileError as error:
        assert len(str(error)) < 2000
        return
    finally:
        _WATCHED = False
        assert not _EVENTS, "a file of weights caused code to run"
        assert time.process_time() - start < 5
    recognise(weight_file)
    for name, (kernel, bias) in weight_file.layers.items():
        assert name in LAYER_NAMES
        assert kernel.dtype == bias.dtype == np.float32
        assert kernel.nbytes < 1 << 20


def mutate(data, draw):
    """Damages a file in one of the ways that break parsers."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        position = draw.randrange(len(data)) if data else 0
        # Headers and indices stand at the ends.
        if draw.random() < 0.3:
            position = min(position, draw.randrange(256))
        elif draw.random() < 0.2:
            position = max(0, len(data) - draw.randrange(1, 512))
        kind = draw.randrange(8)
        if kind == 0 and data:
            data[min(position, len(data) - 1)] ^= 1 << draw.randrange(8)
        elif kind == 1 and data:
            data[min(position, len(data) - 1)] = draw.randrange(256)
        elif kind == 2:
            extreme = draw.choice((-1, 0, 2**31 - 1, -(2**31), 2**62, -(2**63), 10**9))
            form = draw.choice(("<q", ">q", "<i"))
            number = (
                extreme if form[1] == "q" else max(min(extreme, 2**31 - 1), -(2**31))
            )
            packed = struct.pack(form, number)
            data[position : position + len(packed)] = packed
        elif kind == 3:
            del data[position:]
        elif kind == 4:
            del data[position : position + draw.randrange(1, 64)]
        elif kind == 5:
            data[position:position] = draw.randbytes(draw.randrange(1, 16))
        elif kind == 6:
            other = draw.randrange(len(data)) if data else 0
            piece = data[other : other + draw.randrange(1, 200)]
            data[position : position + len(piece)] = piece
        else:
            piece = data[position : position + draw.randrange(1, 200)]
            data[position:position] = piece * draw.randrange(1, 4)
    return bytes(data)


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_files_raise_one_error_or_load(form, samples, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "weights"
    for seed in range(MUTATIONS):
        draw = random.Random(f"{form} {seed}")
        path.write_bytes(mutate(samples[form], draw))
        try:
            read(form, path)
        except BaseException as error:
            raise AssertionError(f"mutation {seed} of {form}") from error
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert growth < 200 * 1024, f"{growth} kB of memory for a file of a few kB"


@pytest.mark.parametrize("form", FORMATS)
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tail=st.binary(max_size=300), kept=st.integers(0, 400))
def test_any_bytes_behind_a_sound_start_raise_one_error_or_load(
    form, samples, tmp_path, tail, kept
):
    path = tmp_path / "weights"
    path.write_bytes(samples[form][:kept] + tail)
    read(form, path)


@pytest.mark.parametrize("form", FORMATS)
def test_files_cut_anywhere_are_refused(form, samples, tmp_path):
    data = samples[form]
    path = tmp_path / "weights"
    for size in range(0, len(data), max(1, len(data) // 100)):
        path.write_bytes(data[:size])
        with pytest.raises(WeightFileError):
            (read_mean if form == "mean" else read_weights)(path)
