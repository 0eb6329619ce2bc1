"""What could not be used, and why: nothing is left out without being named."""

from __future__ import annotations

import csv
import io
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from keras_alexnet.errors import UserError
from keras_alexnet.files import write_whole

NAMED_IN_ERRORS = 3


class Skipped:
    """The names of what could not be used, each once, with the reason.

    Shared by the parts of a source and by the threads that read them.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._damaged: list[str] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._reasons)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        with self._lock:
            return iter(list(self._reasons.items()))

    @property
    def damaged(self) -> int:
        """How many should have been examples."""
        return len(self._damaged)

    def add(self, name: str, reason: str, *, damaged: bool = True) -> None:
        """Names something, unless it has been named before.

        Args:
            name: A path, or a place in a data set.
            reason: Why it could not be used, in a few words.
            damaged: Whether it should have been an example; False for files that were
                never taken for one, such as notes beside the images.
        """
        with self._lock:
            if name not in self._reasons:
                self._reasons[name] = reason
                if damaged:
                    self._damaged.append(name)

    def check(self, total: int, max_skipped: float = 0.01) -> None:
        """Raises once too many examples are damaged.

        A single one never is too many, so that a small set can have one.

        Args:
            total: The number of examples, damaged or not.
            max_skipped: The largest share of them that may be damaged.

        Raises:
            ValueError: There are more; the first ones are named.
        """
        if self.damaged <= max(1, max_skipped * total):
            return
        with self._lock:
            first = [
                f"{name} ({self._reasons[name]})"
                for name in self._damaged[:NAMED_IN_ERRORS]
            ]
        raise UserError(
            f"{self.damaged:,} of {total:,} images cannot be read, more than the "
            f"{max_skipped:.3g} of them that max_skipped allows. The first: "
            f"{'; '.join(first)}. Repair them and delete skipped.csv, or allow more."
        )

    def write(self, path: Path) -> None:
        """Writes all names and reasons as a CSV file."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["name", "reason"])
        writer.writerows(self)
        # As file names are, which need not be UTF-8.
        write_whole(path, os.fsencode(text.getvalue()))

    def read(self, path: Path) -> None:
        """Adds the names in a file that `write` wrote, if it is there.

        What is to be left out for its ending must have been added before: the file
        does not tell it from what is damaged.
        """
        if path.is_file():
            text = os.fsdecode(path.read_bytes())
            for row in list(csv.reader(io.StringIO(text, newline="")))[1:]:
                self.add(*row)

    def print(self) -> None:
        """Names everything, and says how many there are."""
        for name, reason in self:
            # A name may hold bytes that no terminal can show.
            print(f"Left out {name}: {reason}".encode("utf-8", "replace").decode())
        if len(self):
            print(f"{len(self)} unreadable files were left out.")


def reason(error: tf.errors.OpError) -> str:
    """Returns TensorFlow's message without the operation that it came from."""
    message = error.message.split("[Op:")[0]
    # A graph says where in it, behind or before the message.
    if asserted := re.search(r"(?:assertion failed: \[|data: b')(.*?)['\]]", message):
        return asserted[1]
    # Pillow's decoders are called from the graph, and bring where they were called.
    if python := re.search(r"Error: ([^\n]*)\s+Traceback", message):
        return python[1]
    if message.startswith("Graph execution error"):
        # Where in the program, a message, where in the graph.
        message = message.split("\n\t [[{{")[0].rsplit("\n\n", 1)[-1]
    return message.split("{{")[-1].split("}} ")[-1].strip().splitlines()[0]
