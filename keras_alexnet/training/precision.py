"""Precision: what a run computes in, and whether its devices do so natively."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence

import tensorflow as tf

from keras_alexnet.layers.implementations import has_onednn
from keras_alexnet.processor import first_processor
from keras_alexnet.training.hosts import Hosts

# Instructions of x86 processors for products of bfloat16 matrices, as Linux calls them.
INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
# From NVIDIA's Ampere on.
FIRST_CAPABILITY = (8, 0)


def choose_precision(
    asked: str, hosts: Hosts, *, begun: bool = False
) -> tuple[str, str]:
    """Decides what a run computes in, the same on all hosts.

    Args:
        asked: `"auto"`, or a precision, which it then is.
        hosts: All of them must call this.
        begun: Whether what is asked for was decided when the run began.

    Returns:
        A key of `model.POLICIES`, and the reason. `auto` is bfloat16 where that is
        native, float32 elsewhere, and never float16, whose range is too small for some
        networks.
    """
    native, evidence = bfloat16_support()
    (hosts_without,) = hosts.total([int(not native)])
    if hosts_without and native:
        native, evidence = False, f"{hosts_without} of {hosts.count} hosts have not"
    known = {True: "native", False: "not native", None: "perhaps not native"}
    support = f"bfloat16 is {known[native]} here ({evidence})"
    if asked == "auto":
        return "bfloat16" if native else "float32", support
    why = "as when the run began" if begun else "as asked for"
    if asked != "bfloat16":
        return asked, why
    slow = "" if native else ", so it may be slower than float32"
    return asked, f"{why}; {support}{slow}"


def bfloat16_support() -> tuple[bool | None, str]:
    """Finds out whether this host computes bfloat16 natively: its GPUs, if it has any.

    Returns:
        Whether it does, None where nothing says so; and what says so, for people.
    """
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return gpu_support([x.get("compute_capability") for x in details])
    processor = first_processor()
    return cpu_support(
        platform.machine(),
        read_flags(processor) if processor else None,
        onednn=has_onednn(),
    )


def gpu_support(
    capabilities: Sequence[tuple[int, int] | None],
) -> tuple[bool | None, str]:
    """Says whether GPUs compute bfloat16 natively.

    Args:
        capabilities: Their compute capabilities, None for what is not of NVIDIA.
    """
    if None in capabilities:
        return None, "a GPU without compute capability"
    least = min(capabilities)
    evidence = "GPU of compute capability {}.{}".format(*least)
    return least >= FIRST_CAPABILITY, evidence


def cpu_support(
    machine: str, flags: Collection[str] | None, *, onednn: bool = True
) -> tuple[bool | None, str]:
    """Says whether TensorFlow computes bfloat16 natively on a processor.

    Only oneDNN has the instructions; `flags` are those of Linux, None where nothing
    says.
    """
    if machine.lower() not in ("x86_64", "amd64"):
        # Some know it, but no measurement shows that TensorFlow makes use of that.
        return None, f"not measured on {machine}"
    if not onednn:
        return False, "TensorFlow computes without oneDNN: see TF_ENABLE_ONEDNN_OPTS"
    if flags is None:
        return None, "this system does not say what its CPU knows"
    found = [name for name in INSTRUCTIONS if name in flags]
    if found:
        return True, f"CPU with {', '.join(found)}"
    return False, f"CPU without {' and '.join(INSTRUCTIONS)}"


def read_flags(processor: Mapping[str, str]) -> frozenset[str]:
    """Returns the instructions that a processor of `first_processor` knows."""
    # Linux calls them Features on Arm.
    values = processor.get("flags") or processor.get("Features", "")
    return frozenset(values.split())
