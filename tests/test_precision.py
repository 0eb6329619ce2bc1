"""Precision: what is chosen, from invented facts about devices."""

import dataclasses

import pytest
import tensorflow as tf

from keras_alexnet.processor import first_processor
from keras_alexnet.training import precision
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.precision import (
    Support,
    bfloat16_support,
    choose_precision,
    cpu_support,
    gpu_support,
    keep_choice,
    precision_of_run,
    read_flags,
)
from keras_alexnet.training.run_directory import RunDirectory

NATIVE = Support(True, "CPU with amx_bf16")
EMULATED = Support(False, "CPU without avx512_bf16 and amx_bf16")
UNKNOWN = Support(None, "not measured on arm64")

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
        ("Sapphire Rapids", Support(True, "CPU with avx512_bf16, amx_bf16")),
        ("Zen 4", Support(True, "CPU with avx512_bf16")),
        ("Skylake", EMULATED),
    ],
)
def test_x86_processors_say_what_they_know(cpu, found):
    assert cpu_support("x86_64", read_flags(first_processor(CPUINFO[cpu]))) == found


def test_flags_of_other_processors_are_read_but_not_relied_upon():
    flags = read_flags(first_processor(CPUINFO["Graviton 3"]))
    assert flags == {"fp", "asimd", "bf16"}
    assert cpu_support("aarch64", flags).native is None
    assert cpu_support("arm64", None).native is None


def test_what_is_not_said_is_not_known():
    # Windows.
    assert cpu_support("AMD64", None).native is None
    assert read_flags(first_processor("processor\t: 0\n")) == frozenset()


def test_without_onednn_nothing_is_native():
    flags = read_flags(first_processor(CPUINFO["Zen 4"]))
    assert cpu_support("x86_64", flags, onednn=False).native is False


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
    assert gpu_support(capabilities).native is native


def test_the_gpus_count_where_there_are_any(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"])
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"device_name": "NVIDIA A100", "compute_capability": (8, 0)},
    )
    assert bfloat16_support() == Support(True, "GPU of compute capability 8.0")


@pytest.mark.parametrize(
    "support, name",
    [(NATIVE, "bfloat16"), (EMULATED, "float32"), (UNKNOWN, "float32")],
)
def test_auto_is_bfloat16_where_that_is_native(support, name):
    chosen = choose_precision("auto", support)
    assert chosen.name == name
    assert support.evidence in chosen.reason


@pytest.mark.parametrize("support", [NATIVE, EMULATED, UNKNOWN])
@pytest.mark.parametrize("asked", ["float32", "bfloat16", "float16"])
def test_what_is_asked_for_is_chosen_anywhere(asked, support):
    chosen = choose_precision(asked, support)
    assert chosen.name == asked
    assert chosen.reason.startswith("as asked for")
    assert chosen.policy == ("float32" if asked == "float32" else f"mixed_{asked}")


@pytest.mark.parametrize("support", [NATIVE, EMULATED, UNKNOWN])
def test_slow_bfloat16_is_warned_of(support):
    slow = "may be slower than float32" in choose_precision("bfloat16", support).reason
    assert slow == (support is not NATIVE)


@dataclasses.dataclass
class OneOf:
    """The first of some hosts, of which some lack bfloat16."""

    without: int
    count: int = 2

    def total(self, numbers):
        return [self.without]


def test_auto_is_the_same_on_all_hosts(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_support", lambda: NATIVE)
    config, run = TrainConfig(precision="auto"), RunDirectory(tmp_path)
    assert precision_of_run(config, run, OneOf(without=0)).name == "bfloat16"
    chosen = precision_of_run(config, run, OneOf(without=1))
    assert chosen.name == "float32" and "1 of 2 hosts" in chosen.reason


@pytest.mark.parametrize("began, now", [(NATIVE, EMULATED), (EMULATED, NATIVE)])
def test_a_choice_stays_on_another_machine(tmp_path, monkeypatch, began, now):
    config, run = TrainConfig(precision="auto"), RunDirectory(tmp_path)
    chosen = choose_precision("auto", began)
    keep_choice(config, run, chosen)
    monkeypatch.setattr(precision, "bfloat16_support", lambda: now)
    alone = OneOf(without=int(not now.native), count=1)
    again = precision_of_run(config, run, alone, resume=True)
    assert again.name == chosen.name
    assert again.reason.startswith("as when the run began")


def test_only_a_choice_is_kept(tmp_path):
    run = RunDirectory(tmp_path)
    keep_choice(
        TrainConfig(precision="bfloat16"), run, choose_precision("bfloat16", NATIVE)
    )
    assert not list(tmp_path.iterdir())
    keep_choice(TrainConfig(precision="auto"), run, choose_precision("auto", NATIVE))
    assert run.read_json("precision.json") == {"precision": "bfloat16"}


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", '{"precision": "float8"}'])
def test_a_damaged_choice_is_named(tmp_path, text):
    (tmp_path / "precision.json").write_text(text)
    config = TrainConfig(precision="auto")
    with pytest.raises(ValueError, match="precision.json is damaged: "):
        precision_of_run(
            config, RunDirectory(tmp_path), OneOf(without=0, count=1), resume=True
        )
