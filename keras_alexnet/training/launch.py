"""Several hosts on one machine, to try what a cluster does.

On a cluster, each host runs the command itself, with its own TF_CONFIG.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO

from keras_alexnet.errors import UserError

# How long the others have to notice that one has died, before they are stopped.
PATIENCE_SECONDS = 60


def launch(hosts: int, arguments: Sequence[str]) -> int:
    """Runs a command of `keras-alexnet` in several processes that train together.

    Returns:
        0, or the exit code of the first process that failed.

    Raises:
        ValueError: There are no hosts, or no command.
    """
    if hosts < 1:
        raise UserError(f"--hosts must be at least 1. Received: {hosts}")
    if not arguments:
        raise UserError(
            "There is no command to launch: keras-alexnet launch --hosts 2 -- train ..."
        )
    addresses = _free_addresses(hosts)
    processes: list[subprocess.Popen] = []
    readers = []
    with _forwarded_signals(processes):
        try:
            for index in range(hosts):
                process = _start(index, addresses, arguments)
                processes.append(process)
                if process.stdout is not None:
                    copying = process.stdout, f"[host {index}] "
                    readers.append(threading.Thread(target=_copy_lines, args=copying))
                    readers[-1].start()
            return _wait(processes)
        finally:
            for process in processes:
                process.kill()
            for reader in readers:
                reader.join()


def _start(
    index: int, addresses: list[str], arguments: Sequence[str]
) -> subprocess.Popen:
    task = {"type": "worker", "index": index}
    config = {"cluster": {"worker": addresses}, "task": task}
    # The first one's progress bar needs the terminal; the others' lines get a prefix.
    piped = (
        {} if index == 0 else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    )
    return subprocess.Popen(
        [sys.executable, "-m", "keras_alexnet", *arguments],
        env={**os.environ, "TF_CONFIG": json.dumps(config)},
        # Signals reach each exactly once: through this process.
        start_new_session=True,
        **piped,
    )


def _wait(processes: list[subprocess.Popen]) -> int:
    """Waits for all; when one fails, for the others only so long."""
    code, deadline = 0, None
    while any(process.poll() is None for process in processes):
        failed = [process.returncode for process in processes if process.returncode]
        if failed and deadline is None:
            code, deadline = failed[0], time.monotonic() + PATIENCE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.1)
    code = code or max((process.returncode for process in processes), key=abs)
    # A process that a signal ended has the signal's number, negative.
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _forwarded_signals(processes: list[subprocess.Popen]) -> Iterator[None]:
    def forward(number: int, _) -> None:
        for process in processes:
            process.send_signal(number)

    # A terminal that is closed sends SIGHUP, to this process only.
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _copy_lines(stream: IO[bytes], prefix: str) -> None:
    for line in stream:
        sys.stdout.write(prefix + line.decode(errors="replace"))
        sys.stdout.flush()


def _free_addresses(count: int) -> list[str]:
    """Returns addresses on loopback that nobody uses at this moment."""
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
