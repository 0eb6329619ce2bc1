"""What the package says when something is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(name: str, kind: str, known: Iterable[str], hint: str = "") -> str:
    """Says that a name is unknown, which one is nearest, and which there are."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f" Did you mean {nearest[0]!r}?" if nearest else ""
    available = ", ".join(known) + (f"; {hint}" if hint else "")
    return f"Unknown {kind} {name!r}.{guess} Available: {available}."
