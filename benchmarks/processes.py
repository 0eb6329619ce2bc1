"""Calls in processes of their own, whose memory is nobody else's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_PROGRAM = """
import importlib, json, sys
module, function, arguments = json.loads(sys.argv[1])
result = getattr(importlib.import_module(module), function)(*arguments)
print(json.dumps(result))
"""


def call_in_a_process(function: Callable[..., Any], *arguments: object) -> Any:
    """Calls a function in a new process.

    Args:
        function: A module's.
        *arguments: What JSON can hold.

    Returns:
        What the function returns, which JSON can hold too.

    Raises:
        RuntimeError: The process failed; its last words are in the message.
    """
    what = json.dumps([function.__module__, function.__qualname__, arguments])
    # TensorFlow writes a page to the standard error about its own start-up.
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, what], capture_output=True, text=True
    )
    if result.returncode:
        raise RuntimeError(
            f"{function.__qualname__}{arguments} failed in its process: "
            f"{result.stderr[-2000:]}"
        )
    return json.loads(result.stdout.splitlines()[-1])
