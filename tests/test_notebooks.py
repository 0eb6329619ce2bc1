"""The notebooks of the course run, and are kept small, with their outputs."""

from pathlib import Path

import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "examples" / "notebooks"
SHORTEST = "1-build-and-train"
NOTEBOOKS = [
    pytest.param(path, marks=() if path.stem == SHORTEST else pytest.mark.slow)
    for path in sorted(FOLDER.glob("*.ipynb"))
]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_is_kept_with(path):
    kept = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 300_000
    run = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(run, timeout=600, kernel_name="python3").execute()
    for before, after in zip(kept.cells, run.cells, strict=True):
        # What is printed depends on rounding, but not what kind of output there is.
        kinds = [
            {one.output_type for one in cell.get("outputs", ()) if not is_error(one)}
            for cell in (before, after)
        ]
        assert kinds[0] == kinds[1]


def is_error(output):
    return output.get("name") == "stderr"


def test_there_are_three():
    assert len(NOTEBOOKS) == 3
