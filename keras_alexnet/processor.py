"""The processor: what it is, and how much of it there is for this process."""

from __future__ import annotations

import os
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Not everywhere.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def first_processor(text: str | None = None) -> dict[str, str]:
    """Returns what Linux says of the first processor.

    Args:
        text: By default what `/proc/cpuinfo` holds.

    Returns:
        Values by field, such as `"model name"`; none on other systems.
    """
    if text is None:
        text = CPUINFO.read_text() if CPUINFO.is_file() else ""
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
