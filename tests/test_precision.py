"""Precision: what is chosen, from invented facts about devices."""

import dataclasses

import pytest
import tensorflow as tf

from keras_alexnet.processor import first_processor
from keras_alexnet.training import precision
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.precision import (
    bfloat16_support,
    choose_precision,
    cpu_support,
    gpu_support,
    read_flags,
)
from keras_alexnet.training.run_directory import RunDirectory

NATIVE = (True, "CPU with amx_bf16")
EMULATED = (False, "CPU without avx512_bf16 and amx_bf16")
UNKNOWN = (None, "not measured on arm64")

# The first lines of /proc/cpuinfo on machines of each kind, shortened.
CPUINFO = {
    "Sapphire Rapids": "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16\n",
    "Zen 4": "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n",
    "Skylake": "processor\t: 0\nflags\t\t: fpu avx2 avx512f\n",
    "Graviton 3": "processor\t: 0\nFeatures\t: fp asimd bf16\n",
}


@pytest.mark.parametrize(
    "cpu, found",
    [
        ("Sapphire Rapids", (True, "CPU with avx512_bf16, amx_bf16")),
        ("Zen 4", (True, "CPU with avx512_bf16")),
        ("Skylake", EMULATED),
    ],
)
def test_x86_processors_say_what_they_know(cpu, found):
    assert cpu_support("x86_64", read_flags(first_processor(CPUINFO[cpu]))) == found


def test_flags_of_other_processors_are_read_but_not_relied_upon():
    flags = read_flags(first_processor(CPUINFO["Graviton 3"]))
    assert flags == {"fp", "asimd", "bf16"}
    assert cpu_support("aarch64", flags)[0] is None
    assert cpu_support("arm64", None)[0] is None


def test_what_is_not_said_is_not_known():
    # Windows.
    assert cpu_support("AMD64", None)[0] is None
    assert read_flags(first_processor("processor\t: 0\n")) == frozenset()


def test_without_onednn_nothing_is_native():
    flags = read_flags(first_processor(CPUINFO["Zen 4"]))
    assert cpu_support("x86_64", flags, onednn=False)[0] is False


@pytest.mark.parametrize(
    "capabilities, native",
    [
        ([(8, 0)], True),
        ([(9, 0), (8, 6)], True),
        ([(7, 5)], False),
        ([(8, 0), (7, 0)], False),
        ([(8, 0), None], None),
    ],
)
def test_gpus_compute_it_from_ampere_on(capabilities, native):
    assert gpu_support(capabilities)[0] is native


def test_the_gpus_count_where_there_are_any(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"])
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"device_name": "NVIDIA A100", "compute_capability": (8, 0)},
    )
    assert bfloat16_support() == (True, "GPU of compute capability 8.0")


@dataclasses.dataclass
class OneOf:
    """The first of some hosts, of which some lack bfloat16."""

    without: int
    count: int = 1

    def total(self, numbers):
        return [self.without]


@pytest.fixture(params=[NATIVE, EMULATED, UNKNOWN], ids=["yes", "no", "unknown"])
def support(request, monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_support", lambda: request.param)
    return request.param


def choose(asked, support, **options):
    return choose_precision(asked, OneOf(without=int(not support[0])), **options)


def test_auto_is_bfloat16_where_that_is_native(support):
    name, reason = choose("auto", support)
    assert name == ("bfloat16" if support is NATIVE else "float32")
    assert support[1] in reason


@pytest.mark.parametrize("asked", ["float32", "bfloat16", "float16"])
def test_what_is_asked_for_is_chosen_anywhere(asked, support):
    name, reason = choose(asked, support)
    assert name == asked and reason.startswith("as asked for")
    slow = asked == "bfloat16" and support is not NATIVE
    assert slow == ("may be slower than float32" in reason)
    assert choose(asked, support, begun=True)[1].startswith("as when the run began")


def test_auto_is_the_same_on_all_hosts(monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_support", lambda: NATIVE)
    assert choose_precision("auto", OneOf(without=0, count=2))[0] == "bfloat16"
    name, reason = choose_precision("auto", OneOf(without=1, count=2))
    assert name == "float32" and "1 of 2 hosts" in reason


def test_the_choice_of_an_earlier_version_is_kept(tmp_path):
    """Which wrote it to a file of its own, and `auto` to config.json."""
    (tmp_path / "config.json").write_text(TrainConfig(precision="auto").to_json())
    (tmp_path / "precision.json").write_text('{"precision": "bfloat16"}')
    assert RunDirectory(tmp_path).config().precision == "bfloat16"


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"precision": "float8"}'])
def test_a_damaged_choice_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "precision.json").write_text(text)
    with pytest.raises(ValueError, match="precision"):
        RunDirectory(tmp_path).config()
