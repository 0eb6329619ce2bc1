"""Tables for the terminal, a pipe or a file, printed with Rich."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# In a file or a pipe there is no width to fit, and no box to draw.
console = Console(width=None if sys.stdout.isatty() else 1000)


def make_table(
    title: str | None, headings: Iterable[str], rows: Iterable[Iterable[str]] = ()
) -> Table:
    """Returns a table of plain text.

    Args:
        title: What stands above it.
        headings: One for each column; a leading `>` aligns the column at the right.
        rows: The cells, in which brackets are no markup.
    """
    table = Table(
        title=title and Text(title, style="table.title"),
        title_justify="center" if console.is_terminal else "left",
        box=box.HEAVY_HEAD if console.is_terminal else None,
        pad_edge=console.is_terminal,
        # A title is cut into lines as wide as the table.
        min_width=0 if console.is_terminal else len(title or ""),
    )
    for heading in headings:
        justify = "right" if heading.startswith(">") else "left"
        table.add_column(heading.removeprefix(">"), justify=justify)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
