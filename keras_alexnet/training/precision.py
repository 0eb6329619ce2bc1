"""Precision: what a run computes in, and whether its devices do so natively."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Collection, Mapping, Sequence

import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.processor import first_processor
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.hosts import Hosts
from keras_alexnet.training.run_directory import RunDirectory

# Keras's names for them: computations in it, weights in float32.
POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
# Instructions of x86 processors for products of bfloat16 matrices, as Linux calls them.
INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
# From NVIDIA's Ampere on.
FIRST_CAPABILITY = (8, 0)
# Where a run keeps what `auto` chose.
CHOICE = "precision.json"


@dataclasses.dataclass(frozen=True)
class Support:
    """Whether bfloat16 is computed natively.

    Attributes:
        native: None where nothing says so.
        evidence: What says so, for people.
    """

    native: bool | None
    evidence: str


@dataclasses.dataclass(frozen=True)
class Precision:
    """What a run computes in.

    Attributes:
        name: `"float32"`, `"bfloat16"` or `"float16"`.
        reason: Why, and what is known about the devices, for people.
    """

    name: str
    reason: str

    @property
    def policy(self) -> str:
        """Keras's name for it."""
        return POLICIES[self.name]


def precision_of_run(
    config: TrainConfig, run: RunDirectory, hosts: Hosts, *, resume: bool = False
) -> Precision:
    """Decides what a run computes in, the same on all hosts.

    What `auto` chose when the run began stays, whatever machine it is continued on.

    Args:
        config: What is asked for.
        run: The run's directory, which need not exist yet.
        hosts: All of them must call this.
        resume: Whether the run goes on.

    Returns:
        The decision.

    Raises:
        ValueError: The file that holds the earlier choice is damaged.
    """
    support = bfloat16_support()
    (hosts_without,) = hosts.total([int(not support.native)])
    if hosts_without and support.native:
        support = Support(False, f"{hosts_without} of {hosts.count} hosts have not")
    if config.precision == "auto" and resume and (run / CHOICE).is_file():
        begun = run.read_json(CHOICE)
        if begun not in [{"precision": name} for name in POLICIES]:
            raise UserError(f"{run / CHOICE} is damaged: it names no precision.")
        return choose_precision(begun["precision"], support, "as when the run began")
    return choose_precision(config.precision, support)


def keep_choice(config: TrainConfig, run: RunDirectory, precision: Precision) -> None:
    """Writes down what `auto` chose, for when the run is continued."""
    if config.precision == "auto":
        run.write_json(CHOICE, {"precision": precision.name})


def choose_precision(
    asked: str, support: Support, why: str = "as asked for"
) -> Precision:
    """Decides what to compute in.

    Args:
        asked: `"auto"`, or a precision, which it then is.
        support: Of bfloat16, on the devices that are used.
        why: Why what is asked for is.

    Returns:
        The decision. `auto` is bfloat16 where that is native, float32 elsewhere, and
        never float16, whose range is too small for some networks.
    """
    if asked == "auto":
        name = "bfloat16" if support.native else "float32"
        return Precision(name, _describe(support))
    if asked != "bfloat16":
        return Precision(asked, why)
    reason = f"{why}; {_describe(support)}"
    if not support.native:
        reason += ", so it may be slower than float32"
    return Precision(asked, reason)


def _describe(support: Support) -> str:
    known = {True: "native", False: "not native", None: "perhaps not native"}
    return f"bfloat16 is {known[support.native]} here ({support.evidence})"


def bfloat16_support() -> Support:
    """Finds out whether this host computes bfloat16 natively: its GPUs, if it has any.

    Returns:
        What is known.
    """
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return gpu_support([x.get("compute_capability") for x in details])
    processor = first_processor()
    return cpu_support(
        platform.machine(),
        read_flags(processor) if processor else None,
        onednn=os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0",
    )


def gpu_support(capabilities: Sequence[tuple[int, int] | None]) -> Support:
    """Says whether GPUs compute bfloat16 natively.

    Args:
        capabilities: Their compute capabilities, None for what is not of NVIDIA.
    """
    if None in capabilities:
        return Support(None, "a GPU without compute capability")
    least = min(capabilities)
    return Support(
        least >= FIRST_CAPABILITY, "GPU of compute capability {}.{}".format(*least)
    )


def cpu_support(
    machine: str, flags: Collection[str] | None, *, onednn: bool = True
) -> Support:
    """Says whether TensorFlow computes bfloat16 natively on a processor.

    Args:
        machine: Its kind, as `platform.machine()` calls it.
        flags: What it knows, as Linux calls it; None where nothing says.
        onednn: Whether TensorFlow uses oneDNN, which alone has the instructions.
    """
    if machine.lower() not in ("x86_64", "amd64"):
        # Some know it, but no measurement shows that TensorFlow makes use of that.
        return Support(None, f"not measured on {machine}")
    if not onednn:
        return Support(False, "oneDNN is off, by TF_ENABLE_ONEDNN_OPTS")
    if flags is None:
        return Support(None, "this system does not say what its CPU knows")
    found = [name for name in INSTRUCTIONS if name in flags]
    if found:
        return Support(True, f"CPU with {', '.join(found)}")
    return Support(False, f"CPU without {' and '.join(INSTRUCTIONS)}")


def read_flags(processor: Mapping[str, str]) -> frozenset[str]:
    """Returns the instructions that a processor of `first_processor` knows."""
    # Linux calls them Features on Arm.
    values = processor.get("flags") or processor.get("Features", "")
    return frozenset(values.split())
