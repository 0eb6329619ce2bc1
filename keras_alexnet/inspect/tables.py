"""Tables for the terminal, a pipe or a file, printed with Rich."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

# In a file or a pipe there is no width to fit.
console = Console(width=None if sys.stdout.isatty() else 160)


def make_table(
    title: str | None, headings: Iterable[str], rows: Iterable[Iterable[str]] = ()
) -> Table:
    """Returns a table of plain text.

    Args:
        title: What stands above it.
        headings: One for each column; a leading `>` aligns the column at the right.
        rows: The cells, in which brackets are no markup.
    """
    table = Table(title=title and Text(title, style="table.title"))
    for heading in headings:
        justify = "right" if heading.startswith(">") else "left"
        table.add_column(heading.removeprefix(">"), justify=justify)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
