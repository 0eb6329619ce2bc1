"""What the package says when something is wrong."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake by the user: what was wrong, what was received, and what to do.

    The command line prints it in one line and exits with 2. Other exceptions, a
    `ValueError` of a library among them, keep their traceback.
    """


class TrainingFailed(RuntimeError):
    """Training cannot go on, though nothing about the command was wrong."""


def unknown(
    name: str,
    kind: str,
    known: Iterable[str],
    hint: str = "",
    also: Iterable[str] = (),
) -> str:
    """Says that a name is unknown, which one is nearest, and which there are.

    Args:
        name: What was asked for.
        kind: What it should have been the name of.
        known: What there is.
        hint: What else there is, in words.
        also: The names that the hint stands for.
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(name, [*known, *also], n=1, cutoff=0.5)
    guess = f" Did you mean {nearest[0]!r}?" if nearest else ""
    available = ", ".join(known) + (f"; {hint}" if hint else "")
    return f"Unknown {kind} {name!r}.{guess} Available: {available}."


def check_packages(extra: str, *packages: str) -> None:
    """Raises a UserError unless what an extra brings is installed."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            raise UserError(
                f"This needs the package {package}, which is not installed: "
                f'pip install "keras-alexnet[{extra}]"'
            ) from None
