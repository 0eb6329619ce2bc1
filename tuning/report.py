"""Report of a search: leaderboard.csv, report.md and figures."""

from __future__ import annotations

import csv
import io
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.errors import UserError
from keras_alexnet.files import replacing, write_whole
from keras_alexnet.tuning import figures
from keras_alexnet.tuning.compare import METRICS, Comparison, Paired, deviation
from keras_alexnet.tuning.importance import Importance, importance
from keras_alexnet.tuning.trials import Column, Direction, Trial, columns_of, ranked

LEADERBOARD, REPORT, FIGURES = "leaderboard.csv", "report.md", "figures"
TOP = 10
# More choices of a hyperparameter than that are counted, not listed.
MAX_CHOICES = 8
MAX_NAMES = 12

CAPTIONS = {
    "objective.png": "The result of every trial, in order, and the best so far.",
    "curves.png": "Learning rate and dropout of every trial, as far as it was trained, "
    "in the colour of its result.",
    "parallel_coordinates.png": "Every trial as a line through its settings to its "
    "result.",
    "importance.png": "How much each setting mattered.",
}


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
        UserError: The direction is neither of the two.
        OSError: Something cannot be written.
    """
    if direction not in ("min", "max"):
        raise UserError(f"direction must be 'min' or 'max'. Received: {direction!r}")
    directory.mkdir(parents=True, exist_ok=True)
    best_first = ranked(trials, direction)
    write_whole(directory / LEADERBOARD, _leaderboard(trials, best_first))
    found = importance(trials, direction)
    drawn = _draw(directory / FIGURES, trials, objective, direction, found)
    goal = "lowest" if direction == "min" else "highest"
    sections = [
        [f"# Search for the {goal} {objective}", _summary(trials)],
        _best(best_first, objective),
        _against_default(comparison) if best_first else [],
        _leaders(best_first, objective),
        _importance(found),
        _searched(trials),
        _failures(trials),
        _figures(drawn),
    ]
    text = "\n\n".join(paragraph for section in sections for paragraph in section)
    write_whole(directory / REPORT, text + "\n")
    return directory / REPORT


def _leaderboard(trials: Sequence[Trial], best_first: Sequence[Trial]) -> str:
    """Returns a table of all trials, the ranked ones first."""
    others = [trial for trial in trials if not trial.has_result]
    names = [column.name for column in columns_of([t.values for t in trials])]
    before = ("rank", "name", "status", "objective")
    after = ("epochs", "seconds", "error")
    # A hyperparameter may be called epochs.
    headings = [f"{n} (setting)" if n in before + after else n for n in names]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*before, *headings, *after])
    for rank, trial in enumerate([*best_first, *others], 1):
        row: list[Any] = [rank if trial.has_result else None, trial.name]
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
    results = sum(trial.has_result for trial in trials)
    order = found.names if found.is_reliable else ()
    drawings = {}
    if results:
        drawings["objective.png"] = (figures.objectives, *searched)
        drawings["curves.png"] = (figures.curves, *searched)
    if results > 1:
        drawings["parallel_coordinates.png"] = (
            *(figures.parallel_coordinates, *searched),
            order,
        )
    if found.names:
        drawings["importance.png"] = (figures.importances, found)
    if drawings:
        directory.mkdir(exist_ok=True)
    for name, (draw, *arguments) in drawings.items():
        with replacing(directory / name) as partial:
            draw(*arguments).savefig(partial, dpi=120)
    return list(drawings)


# === Sections ===


def _summary(trials: Sequence[Trial]) -> str:
    counts = Counter(trial.status for trial in trials)
    words = {"stopped": "stopped early", "running": "still running"}
    listed = ", ".join(
        f"{counts[status]} {words.get(status, status)}"
        for status in ("completed", "stopped", "failed", "running")
        if counts[status]
    )
    text = _counted(len(trials), "trial") + (f": {listed}." if listed else ".")
    seconds = sum(trial.seconds for trial in trials)
    text += f" They took {_duration(seconds)} in all." if seconds else ""
    same = []
    for name in ("data", "recipe", "architecture", "epochs", "global_batch_size"):
        values = {getattr(trial.config, name) for trial in trials}
        same += [f"{name} {_code(value)}" for value in values if len(values) == 1]
    return text + (f" In all of them: {', '.join(same)}." if same else "")


def _best(best_first: Sequence[Trial], objective: str) -> list[str]:
    if not best_first:
        return ["## Best trial", "No trial has a result: there is nothing to rank."]
    best, config = best_first[0], best_first[0].config
    metrics = [
        f"{METRICS[name]} {_amount(value, name)}"
        for name, value in best.metrics.items()
        if name in METRICS
    ]
    split = "validation" if objective.startswith("val_") else "training"
    parts = [
        f"## Best trial: {best.name}",
        f"{objective} {_short(best.objective)} after "
        f"{_counted(len(best.history), 'epoch')} of {config.epochs}"
        + (f"; on the validation split {', '.join(metrics)}" if metrics else "")
        + f". Trials are ranked by the {split} split; the test split chooses nothing.",
    ]
    if best.status == "stopped":
        parts.append(
            "**It was stopped early, as were all trials that have a result.** Trained "
            "to the end, it may do better or worse."
        )
    if len(best_first) == 1:
        parts.append("It is the only trial with a result.")
    else:
        parts.append(
            f"**Take this number for too good.** It is the best of {len(best_first)}, "
            "chosen by the images that it is measured on: part of its lead is luck, "
            "and the more trials, the more of it."
        )
    parts.append(
        f"Learning rate {_code(config.learning_rate)}, dropout {_code(config.dropout)}."
    )
    rows = [[name, _code(value)] for name, value in best.values.items()]
    return parts + ([_table(["setting", "value"], rows)] if rows else [])


def _against_default(comparison: Comparison | None) -> list[str]:
    heading = "## Against the default recipe"
    if comparison is None:
        return [
            heading,
            "Not compared with fresh seeds: whether the best trial is better than the "
            "default recipe is not known.",
        ]
    rows = []
    for metric, name in METRICS.items():
        best, default = comparison.values(metric)
        difference = _mean(comparison.paired(metric).differences, metric, "+")
        values = (_mean(runs.values(), metric) for runs in (best, default))
        rows.append([name, *values, difference])
    best, default = comparison.values("top1_error")
    by_seed = []
    for seed in comparison.seeds:
        pair = best.get(seed), default.get(seed)
        difference = None if None in pair else pair[0] - pair[1]
        cells = [_amount(value, "top1_error") for value in pair]
        by_seed.append([str(seed), *cells, _amount(difference, "top1_error", "+")])
    return [
        heading,
        _verdict(comparison.paired("top1_error")),
        _table(["", "best", "default", "best minus default"], rows),
        "Errors and loss on the test split after training anew: mean ± standard "
        "deviation (n - 1) over the seeds "
        f"{', '.join(map(str, comparison.seeds))}, which the search has not used. At "
        "each seed both had the same splits; the last column is of the differences at "
        "equal seeds, in percentage points where errors are in %.",
        _table(["top-1 error at seed", "best", "default", "difference"], by_seed),
        *(f"- Failed: {_cell(failure)}" for failure in comparison.failures),
    ]


def _verdict(paired: Paired) -> str:
    """Returns in words what the differences of the top-1 error allow to say."""
    count = len(paired.differences)
    if not count:
        return "**Nothing can be said: at no seed did both finish.**"
    if count == 1:
        return (
            "**Nothing can be said from one seed: how far seeds differ is not known.**"
        )
    if paired.mean == 0:
        return "**No difference in the mean top-1 error.**"
    chance = (
        ""
        if paired.p_value is None
        else (
            f" (If both were equally good, a difference as large for its standard "
            f"deviation would come about in {paired.p_value:.0%} of such comparisons: "
            "paired t-test.)"
        )
    )
    where = f"the mean difference of the top-1 error over {count} seeds is"
    if not paired.is_clear:
        return (
            f"**No clear difference: {where} not larger than its standard deviation.**"
            f"{chance}"
        )
    better = "better" if paired.mean < 0 else "worse"
    return (
        f"**The best trial's settings are {better} than the default: {where} larger "
        f"than its standard deviation.**{chance}"
    )


def _leaders(best_first: Sequence[Trial], objective: str) -> list[str]:
    if len(best_first) < 2:
        return []
    leaders = best_first[:TOP]
    columns = columns_of([trial.values for trial in leaders])
    names = [column.name for column in columns if column.varies]
    rows = [
        [
            str(rank),
            trial.name + (" (stopped)" if trial.status == "stopped" else ""),
            _short(trial.objective),
            str(len(trial.history)),
            *(_code(trial.values[n]) if n in trial.values else "" for n in names),
        ]
        for rank, trial in enumerate(leaders, 1)
    ]
    same = [f"{c.name} {_code(c.values[0])}" for c in columns if not c.varies]
    parts = [
        f"## The best {len(leaders)} of {len(best_first)}",
        _table(["rank", "trial", objective, "epochs", *names], rows),
    ]
    if same:
        parts.append(f"The same in all of these: {', '.join(same)}.")
    if any(trial.status == "stopped" for trial in best_first):
        parts.append("Trials that were stopped early rank after those that were not.")
    return [*parts, f"All trials with all settings: [{LEADERBOARD}]({LEADERBOARD})."]


def _importance(found: Importance) -> list[str]:
    heading = "## What mattered"
    if found.too_few:
        return [heading, found.too_few]
    doubt = [
        "**The settings hardly tell how good a trial is: do not read anything into the "
        "numbers below.** Either none of them matters within the ranges searched, or "
        "there are too few trials to see it."
    ]
    values = zip(found.names, found.means, found.deviations, strict=True)
    rows = (
        [name, f"{round(mean, 2) + 0:.2f} ± {std:.2f}"] for name, mean, std in values
    )
    return [
        heading,
        *(doubt if not found.is_reliable else []),
        _table(["setting", "importance"], rows),
        f"A random forest that learns the order of {found.trials} trials from their "
        f"settings explains {max(0.0, found.explained):.0%} of the variance among "
        "held-out trials. The importance of a setting is the fraction of the order "
        "that hangs on it, alone or with others: 0 for none, 1 for all of it; ± is the "
        "standard deviation over repetitions of the estimate, not over searches. It "
        "holds within the ranges searched and does not say which value is good. Failed "
        "trials do not count.",
    ]


def _searched(trials: Sequence[Trial]) -> list[str]:
    rows = [
        [column.name, _tried(column), f"{column.active.sum()} of {len(trials)}"]
        for column in columns_of([trial.values for trial in trials])
    ]
    table = _table(["setting", "values tried", "active in"], rows)
    return ["## What was searched", table] if rows else []


def _tried(column: Column) -> str:
    choices = column.choices
    if len(choices) <= MAX_CHOICES:
        return ", ".join(map(_code, choices))
    if not column.is_numeric:
        return f"{len(choices)} different"
    scale = ", by order of magnitude" if column.is_logarithmic else ""
    return f"{len(choices)} from {_code(choices[0])} to {_code(choices[-1])}{scale}"


def _failures(trials: Sequence[Trial]) -> list[str]:
    by_error: dict[str, list[str]] = {}
    for trial in trials:
        if trial.status == "failed":
            error = trial.error or "no error was noted"
        elif trial.status != "running" and not trial.has_result:
            error = "its result is not a number"
        else:
            continue
        by_error.setdefault(error, []).append(trial.name)
    rows = []
    for error, names in sorted(by_error.items(), key=lambda item: -len(item[1])):
        more = len(names) - MAX_NAMES
        which = ", ".join(names[:MAX_NAMES]) + (f" and {more} more" * (more > 0))
        rows.append([_cell(error), str(len(names)), which])
    if not rows:
        return []
    return [
        "## Failures",
        "These trials have no rank. What they have in common may be a limit of the "
        "ranges worth searching.",
        _table(["error", "trials", "which"], rows),
    ]


def _figures(names: Sequence[str]) -> list[str]:
    links = [
        f"![{CAPTIONS[name]}]({FIGURES}/{name})\n\n*{CAPTIONS[name]}*" for name in names
    ]
    return ["## Figures", *links] if links else []


# === Numbers, settings and tables in Markdown ===


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of cells that are Markdown already."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _counted(number: int, noun: str) -> str:
    """Returns "1 trial", "2 trials"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _duration(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} seconds"
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


def _cell(value: Any) -> str:
    """Returns a text that may be in a cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _code(value: Any) -> str:
    """Returns a setting as it is written."""
    return f"`{_cell(_short(value))}`"


def _short(value: Any) -> str:
    """Returns a number with four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _amount(value: float | None, metric: str, sign: str = "") -> str:
    """Returns an error in per cent, anything else as it is."""
    if value is None:
        return "-"
    if metric.endswith("_error"):
        return f"{100 * value:{sign}.2f} %"
    return f"{value:{sign}.4f}"


def _mean(values: Iterable[float], metric: str, sign: str = "") -> str:
    """Returns mean ± standard deviation (n - 1), or what there is of them."""
    values = list(values)
    if not values:
        return "-"
    text = _amount(statistics.fmean(values), metric, sign)
    if len(values) == 1:
        return text
    return f"{text.removesuffix(' %')} ± {_amount(deviation(values), metric)}"
