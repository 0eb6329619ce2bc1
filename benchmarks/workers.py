"""Work to be timed, in this process or in another, several executions at a time.

On a GPU a step is asynchronous: executions are queued, and only the last is waited for.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable

# Executes something so many times, and returns when all of it is done.
Work = Callable[[int], object]


class WorkFailed(Exception):
    """What failed in another process, in one line."""


class Local:
    """Makes work by name, and times it, in this process."""

    def __init__(self):
        self._works: dict[str, Work] = {}

    def prepare(self, name: str, make: Callable[..., Work], arguments: dict) -> None:
        """Makes work and executes it once, which compiles it."""
        work = make(**arguments)
        work(1)
        self._works[name] = work

    def seconds(self, name: str, count: int) -> float:
        """Returns the seconds that one execution takes, of so many."""
        started = time.perf_counter()
        self._works[name](count)
        return (time.perf_counter() - started) / count

    def call(self, function: Callable, arguments: dict) -> object:
        """Calls a function once."""
        return function(**arguments)

    def clear(self) -> None:
        """Lets go of all work."""
        self._works.clear()

    close = clear


class Process:
    """The same in a process of its own, whose memory, flags and crashes are its own.

    It starts at once, and again after it has died, without what was prepared in it.
    Functions and arguments are those that can be pickled.
    """

    def __init__(self):
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()

    def _ask(self, *request: object) -> object:
        try:
            self._connection.send(request)
            succeeded, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(10)
            code = self._process.exitcode
            self.close()
            self._start()
            raise WorkFailed(f"its process died (exit code {code})") from None
        if not succeeded:
            raise WorkFailed(answer)
        return answer

    def prepare(self, name: str, make: Callable[..., Work], arguments: dict) -> None:
        """Makes work there and executes it once."""
        self._ask("prepare", name, make, arguments)

    def seconds(self, name: str, count: int) -> float:
        """Returns the seconds that one execution takes, of so many."""
        return self._ask("seconds", name, count)

    def call(self, function: Callable, arguments: dict) -> object:
        """Calls a function there, once."""
        return self._ask("call", function, arguments)

    def clear(self) -> None:
        """Lets go of all work there."""
        self._ask("clear")

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.terminate()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()


def _serve(connection) -> None:
    """Answers requests until the other side closes."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Functions are traced anew for every candidate: TensorFlow would warn of it.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    local = Local()
    while True:
        try:
            method, *arguments = connection.recv()
        except EOFError:
            return
        # What was asked for could not be imported, or anything else.
        except Exception as error:
            connection.send((False, summary(error)))
            continue
        try:
            connection.send((True, getattr(local, method)(*arguments)))
        except Exception as error:
            connection.send((False, summary(error)))


def summary(error: BaseException) -> str:
    """Returns one line about an error."""
    if isinstance(error, WorkFailed):
        return str(error)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]
