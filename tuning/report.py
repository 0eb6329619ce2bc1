"""What a search found, for people and for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.errors import UserError
from keras_alexnet.files import replacing, write_whole
from keras_alexnet.tuning import figures
from keras_alexnet.tuning.comparison import Comparison
from keras_alexnet.tuning.encoding import columns_of
from keras_alexnet.tuning.importance import Importance, importance
from keras_alexnet.tuning.parallel_coordinates import parallel_coordinates
from keras_alexnet.tuning.ranking import Direction, has_result, ranked
from keras_alexnet.tuning.report_text import report_text
from keras_alexnet.tuning.trials import Trial

LEADERBOARD = "leaderboard.csv"
REPORT = "report.md"
FIGURES = "figures"


def write_report(
    directory: Path,
    trials: Sequence[Trial],
    *,
    objective: str,
    direction: Direction,
    comparison: Comparison | None = None,
) -> Path:
    """Writes leaderboard.csv, report.md and the figures of a search.

    Each file takes the place of one from before when it is complete. The leaderboard
    comes first, so that a failure to draw costs no numbers.

    Args:
        directory: Where to write; it is made where it is missing.
        trials: All trials, in the order in which they were made, failed ones included.
        objective: The metric that was searched for, such as `"val_top1_error"`.
        direction: `"min"` or `"max"`.
        comparison: The best configuration against the default one with fresh seeds.

    Returns:
        The path of report.md.

    Raises:
        ValueError: The direction is neither of the two.
        OSError: Something cannot be written.
    """
    if direction not in ("min", "max"):
        raise UserError(f"direction must be 'min' or 'max'. Received: {direction!r}")
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / LEADERBOARD, _leaderboard(trials, direction))
    found = importance(trials, direction)
    drawn = _draw(directory / FIGURES, trials, objective, direction, found)
    text = report_text(
        trials,
        objective=objective,
        direction=direction,
        found=found,
        comparison=comparison,
        pictures=[f"{FIGURES}/{name}" for name in drawn],
    )
    write_whole(directory / REPORT, text)
    return directory / REPORT


def _leaderboard(trials: Sequence[Trial], direction: Direction) -> str:
    """Returns a table of all trials, the ranked ones first."""
    best_first = ranked(trials, direction)
    others = [trial for trial in trials if not has_result(trial)]
    names = [column.name for column in columns_of([t.values for t in trials])]
    before = ("rank", "name", "status", "objective")
    after = ("epochs", "seconds", "error")
    # A hyperparameter may be called epochs.
    headings = [f"{n} (setting)" if n in before + after else n for n in names]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*before, *headings, *after])
    for place, trial in enumerate([*best_first, *others], 1):
        row: list[Any] = [place if has_result(trial) else None, trial.name]
        row += [trial.status, trial.objective]
        row += [trial.values.get(name) for name in names]
        row += [len(trial.history), round(trial.seconds, 1), trial.error]
        writer.writerow(row)
    return text.getvalue()


def _draw(
    directory: Path,
    trials: Sequence[Trial],
    objective: str,
    direction: Direction,
    found: Importance,
) -> list[str]:
    """Draws what there is something to draw of; returns the files' names."""
    searched = (trials, objective, direction)
    results = sum(has_result(trial) for trial in trials)
    pictures = {}
    if results:
        pictures["objective.png"] = lambda path: figures.objectives(*searched, path)
        pictures["curves.png"] = lambda path: figures.curves(*searched, path)
    if results > 1:
        pictures["parallel_coordinates.png"] = lambda path: parallel_coordinates(
            *searched, path, found.names if found.is_reliable else ()
        )
    if found.names:
        pictures["importance.png"] = lambda path: figures.importances(found, path)
    if pictures:
        directory.mkdir(exist_ok=True)
    for name, draw in pictures.items():
        with replacing(directory / name) as partial:
            draw(partial)
    return list(pictures)
