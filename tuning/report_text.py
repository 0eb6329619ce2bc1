"""The report of a search, in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from keras_alexnet.tuning.comparison import Comparison
from keras_alexnet.tuning.comparison_text import comparison_text
from keras_alexnet.tuning.encoding import Column, columns_of
from keras_alexnet.tuning.importance import Importance
from keras_alexnet.tuning.ranking import Direction, has_result, ranked
from keras_alexnet.tuning.trials import Trial
from keras_alexnet.tuning.wording import (
    cell,
    code,
    counted,
    duration,
    metrics_line,
    short,
    some_of,
    table,
)

TOP = 10
# More choices of a hyperparameter than that are counted, not listed.
MOST_CHOICES = 8

PICTURES = {
    "objective.png": "The result of every trial, in order, and the best so far.",
    "curves.png": "Learning rate and dropout of every trial, as far as it was trained, "
    "in the colour of its result.",
    "parallel_coordinates.png": "Every trial as a line through its settings to its "
    "result.",
    "importance.png": "How much each setting mattered.",
}


def report_text(
    trials: Sequence[Trial],
    *,
    objective: str,
    direction: Direction,
    found: Importance,
    comparison: Comparison | None,
    pictures: Sequence[str],
) -> str:
    """Returns the report.

    Args:
        trials: All trials, in the order in which they were made.
        objective: What was searched for.
        direction: Whether low or high objectives are good.
        found: What mattered.
        comparison: The best configuration against the default one.
        pictures: The files to link to, as seen from the report.
    """
    best_first = ranked(trials, direction)
    goal = "lowest" if direction == "min" else "highest"
    parts = [
        [f"# Search for the {goal} {objective}", _summary(trials)],
        _best(best_first, objective),
        comparison_text(comparison, bool(best_first)),
        _leaders(best_first, objective),
        _importance(found),
        _searched(trials),
        _failures(trials),
        _pictures(pictures),
    ]
    return "\n\n".join(text for part in parts for text in part) + "\n"


# === Sections ===


def _summary(trials: Sequence[Trial]) -> str:
    counts = Counter(trial.status for trial in trials)
    words = {
        "completed": "completed",
        "stopped": "stopped early",
        "failed": "failed",
        "running": "still running",
    }
    listed = ", ".join(f"{counts[s]} {word}" for s, word in words.items() if counts[s])
    text = f"{counted(len(trials), 'trial')}" + (f": {listed}." if listed else ".")
    seconds = sum(trial.seconds for trial in trials)
    text += f" They took {duration(seconds)} in all." if seconds else ""
    common = _common(trials)
    return text + (f" In all of them: {common}." if common else "")


def _common(trials: Sequence[Trial]) -> str:
    """Returns what all trials trained, as far as it was the same."""
    settings = ("data", "recipe", "architecture", "epochs", "global_batch_size", "seed")
    same = {}
    for name in settings:
        values = {getattr(trial.config, name) for trial in trials}
        if len(values) == 1:
            same[name] = values.pop()
    return ", ".join(f"{name} {code(value)}" for name, value in same.items())


def _best(best_first: Sequence[Trial], objective: str) -> list[str]:
    if not best_first:
        return ["## Best trial", "No trial has a result: there is nothing to rank."]
    best = best_first[0]
    parts = [f"## Best trial: {best.name}"]
    parts.append(
        f"{objective} {short(best.objective)} after "
        f"{counted(len(best.history), 'epoch')} of {best.config.epochs}"
        + (f"; {metrics_line(best.metrics)}" if best.metrics else "")
        + "."
    )
    if best.status == "stopped":
        parts.append(
            "**It was stopped early, as were all trials that have a result.** Trained "
            "to the end, it may do better or worse."
        )
    if len(best_first) == 1:
        parts.append(
            "It is the only trial with a result: there is nothing to compare it with."
        )
    else:
        parts.append(
            f"**Take this number for too good.** It is the best of {len(best_first)}, "
            "chosen by the very images that it is measured on: part of its lead is "
            "luck, and the more trials, the more of it. Trained with another seed, or "
            "judged by other images, expect it to do somewhat worse."
        )
    config = best.config
    parts.append(
        f"Learning rate {code(config.learning_rate)}, dropout {code(config.dropout)}."
    )
    if best.values:
        rows = ([name, code(value)] for name, value in best.values.items())
        parts.append(table(["setting", "value"], rows))
    return parts


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
            short(trial.objective),
            str(len(trial.history)),
            *(code(trial.values[n]) if n in trial.values else "" for n in names),
        ]
        for rank, trial in enumerate(leaders, 1)
    ]
    parts = [
        f"## The best {len(leaders)} of {len(best_first)}",
        table(["rank", "trial", objective, "epochs", *names], rows),
    ]
    constant = [column for column in columns if not column.varies]
    if constant:
        values = (f"{c.name} {code(c.values[0])}" for c in constant)
        parts.append(f"The same in all of these: {', '.join(values)}.")
    if any(trial.status == "stopped" for trial in best_first):
        parts.append(
            "Trials that were stopped early rank after those that were trained to the "
            "end: their results are those of fewer epochs."
        )
    parts.append("All trials with all settings: [leaderboard.csv](leaderboard.csv).")
    return parts


def _importance(found: Importance) -> list[str]:
    parts = ["## What mattered"]
    if found.too_few:
        return [*parts, found.too_few]
    if not found.is_reliable:
        parts.append(
            "**The settings hardly tell how good a trial is: do not read anything into "
            "the numbers below.** Either none of them matters within the ranges "
            "searched, or there are too few trials to see it."
        )
    rows = (
        [name, f"{round(mean, 2) + 0.0:.2f} ± {deviation:.2f}"]
        for name, mean, deviation in zip(
            found.names, found.means, found.deviations, strict=True
        )
    )
    parts.append(table(["setting", "importance"], rows))
    parts.append(
        f"A random forest that learns the order of {found.trials} trials from their "
        f"settings explains {max(0.0, found.explained):.0%} of the variance among "
        "trials that it has not seen. The importance of a setting is the share of the "
        "order that hangs on it, alone or with others: 0 for none, 1 for all of it; "
        "± is the standard deviation over repetitions of the estimate, not over "
        "searches. It holds within the ranges searched, says nothing of which value is "
        "good, and is shared between settings that do the same. Failed trials do not "
        "count."
    )
    return parts


def _searched(trials: Sequence[Trial]) -> list[str]:
    columns = columns_of([trial.values for trial in trials])
    if not columns:
        return []
    rows = [
        [column.name, _tried(column), f"{column.active.sum()} of {len(trials)}"]
        for column in columns
    ]
    return [
        "## What was searched",
        table(["setting", "values tried", "active in"], rows),
    ]


def _tried(column: Column) -> str:
    choices = column.choices
    if len(choices) <= MOST_CHOICES:
        return ", ".join(map(code, choices))
    if not column.is_numeric:
        return f"{len(choices)} different"
    scale = ", by order of magnitude" if column.is_logarithmic else ""
    return f"{len(choices)} from {code(choices[0])} to {code(choices[-1])}{scale}"


def _failures(trials: Sequence[Trial]) -> list[str]:
    failed = [trial for trial in trials if trial.status == "failed"]
    lost = [
        trial
        for trial in trials
        if trial.status in ("completed", "stopped") and not has_result(trial)
    ]
    if not failed and not lost:
        return []
    by_error: dict[str, list[str]] = {}
    for trial in failed:
        by_error.setdefault(trial.error or "no error was noted", []).append(trial.name)
    for trial in lost:
        by_error.setdefault("its result is not a number", []).append(trial.name)
    rows = (
        [cell(error), str(len(names)), some_of(names)]
        for error, names in sorted(by_error.items(), key=lambda item: -len(item[1]))
    )
    return [
        "## Failures",
        "These trials have no rank. What they have in common may be a limit of the "
        "ranges worth searching.",
        table(["error", "trials", "which"], rows),
    ]


def _pictures(pictures: Sequence[str]) -> list[str]:
    if not pictures:
        return []
    links = [
        f"![{PICTURES[path.rpartition('/')[2]]}]({path})\n\n"
        f"*{PICTURES[path.rpartition('/')[2]]}*"
        for path in pictures
    ]
    return ["## Figures", *links]
