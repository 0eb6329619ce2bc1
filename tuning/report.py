"""Report of a search: leaderboard.csv, report.md and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.files import replacing, write_table, write_whole
from keras_alexnet.tuning import figures
from keras_alexnet.tuning.compare import METRICS, Comparison, Paired, amount, mean
from keras_alexnet.tuning.importance import Importance, importance
from keras_alexnet.tuning.trials import Trial, ranked

LEADERBOARD, REPORT, FIGURES = "leaderboard.csv", "report.md", "figures"
TOP = 10

CAPTIONS = {
    "objective.png": "The result of every trial, in order, and the best so far.",
    "curves.png": "Learning rate and dropout of every trial, as far as it was trained, "
    "in the colour of its result.",
}


def write_report(
    directory: Path,
    trials: Sequence[Trial],
    *,
    objective: str,
    comparison: Comparison | None = None,
) -> Path:
    """Writes leaderboard.csv, report.md and the figures of a search.

    Each file takes the place of one from before when it is complete. The leaderboard
    comes first, so that a failure to draw costs no numbers.

    Args:
        directory: Where to write; it is made where it is missing.
        trials: All trials, in the order in which they were made, failed ones included.
        objective: The metric that was minimised, such as `"val_top1_error"`.
        comparison: The best configuration against the default one with fresh seeds.

    Returns:
        The path of report.md.

    Raises:
        OSError: Something cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    best_first = ranked(trials)
    write_table(directory / LEADERBOARD, _leaderboard(trials, best_first))
    drawn = _draw(directory / FIGURES, trials, objective)
    sections = [
        [f"# Search for the lowest {objective}", _summary(trials)],
        _best(best_first, objective),
        _against_default(comparison) if best_first else [],
        _leaders(best_first, objective),
        _importance(importance(trials)),
        _failures(trials),
        _figures(drawn),
    ]
    text = "\n\n".join(paragraph for section in sections for paragraph in section)
    write_whole(directory / REPORT, text + "\n")
    return directory / REPORT


def _leaderboard(
    trials: Sequence[Trial], best_first: Sequence[Trial]
) -> Iterator[dict[str, Any]]:
    """Yields a row for each trial, the ranked ones first."""
    others = [trial for trial in trials if not trial.has_result]
    names = dict.fromkeys(name for trial in trials for name in trial.values)
    for rank, trial in enumerate([*best_first, *others], 1):
        yield {
            "rank": rank if trial.has_result else None,
            "name": trial.name,
            "status": trial.status,
            "objective": trial.objective,
            **{name: trial.values.get(name) for name in names},
            "epochs": len(trial.history),
            "seconds": round(trial.seconds, 1),
            "error": trial.error,
        }


def _draw(directory: Path, trials: Sequence[Trial], objective: str) -> list[str]:
    """Draws what there is something to draw of; returns the files' names."""
    if not any(trial.has_result for trial in trials):
        return []
    directory.mkdir(exist_ok=True)
    drawings = {"objective.png": figures.objectives, "curves.png": figures.curves}
    for name, draw in drawings.items():
        with replacing(directory / name) as partial:
            draw(trials, objective).savefig(partial, dpi=120)
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
    text = f"{len(trials)} trials: {listed or 'none was made'}."
    minutes = sum(trial.seconds for trial in trials) / 60
    text += f" They took {minutes:.0f} minutes in all." if minutes else ""
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
        f"{METRICS[name]} {amount(value, name)}"
        for name, value in best.metrics.items()
        if name in METRICS
    ]
    parts = [
        f"## Best trial: {best.name}",
        f"{objective} {_short(best.objective)} after epoch {len(best.history)} of "
        f"{config.epochs}"
        + (f"; on the validation split {', '.join(metrics)}" if metrics else "")
        + ". Trials are ranked by the validation split: the test split chooses "
        "nothing.",
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
    settings = (f"{name} {_code(value)}" for name, value in best.values.items())
    return [*parts, f"Its settings: {', '.join(settings) or 'those of the recipe'}."]


def _against_default(comparison: Comparison | None) -> list[str]:
    heading = "## Against the default recipe"
    if comparison is None:
        return [
            heading,
            "Not compared with fresh seeds: whether the best trial is better than the "
            "default recipe is not known.",
        ]
    best, default = comparison.best, comparison.default
    rows = []
    for metric, name in METRICS.items():
        values = (mean(one.values(metric).values(), metric) for one in (best, default))
        differences = comparison.paired(metric).differences
        rows.append([name, *values, mean(differences, metric, "+")])
    return [
        heading,
        _verdict(comparison.paired("top1_error")),
        _table(["", "best", "default", "best minus default"], rows),
        "Errors and loss on the test split after training anew: mean ± standard "
        "deviation (n - 1) over the seeds "
        f"{', '.join(map(str, comparison.seeds))}, which the search has not used. At "
        "each seed both had the same splits; the last column is of the differences at "
        "equal seeds, in percentage points where errors are in %.",
        *(f"- Failed: {_cell(failure)}" for failure in comparison.failures),
    ]


def _verdict(paired: Paired) -> str:
    """Returns in words what the differences of the top-1 error allow to say."""
    count, chance = len(paired.differences), ""
    if count < 2:
        return (
            f"**Nothing can be said: both finished at {count} seeds, and it takes two "
            "to know how far seeds differ.**"
        )
    if paired.p_value is not None:
        chance = (
            " (If both were equally good, a difference as large for its standard "
            f"deviation would come about in {paired.p_value:.0%} of such comparisons: "
            "paired t-test.)"
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
    if not best_first:
        return []
    leaders = best_first[:TOP]
    rows = [
        [
            str(rank),
            trial.name + (" (stopped)" if trial.status == "stopped" else ""),
            _short(trial.objective),
            str(len(trial.history)),
            _code(trial.config.learning_rate),
            _code(", ".join(trial.config.dropout_by_layer) or trial.config.dropout),
        ]
        for rank, trial in enumerate(leaders, 1)
    ]
    headings = ["rank", "trial", objective, "epochs", "learning rate", "dropout"]
    return [
        f"## The best {len(leaders)} of {len(best_first)}",
        _table(headings, rows),
        "Trials that were stopped early rank after those that were not. All trials "
        f"with all settings: [{LEADERBOARD}]({LEADERBOARD}).",
    ]


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


def _failures(trials: Sequence[Trial]) -> list[str]:
    by_error: dict[str, list[str]] = {}
    for trial in trials:
        if not trial.has_result and trial.status != "running":
            error = trial.error or "its result is not a number"
            by_error.setdefault(error, []).append(trial.name)
    most_first = sorted(by_error.items(), key=lambda item: -len(item[1]))
    rows = [[_cell(k), str(len(names)), ", ".join(names)] for k, names in most_first]
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


# === Settings and tables in Markdown ===


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of cells that are Markdown already."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    """Returns a text that may be in a cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _code(value: Any) -> str:
    """Returns a setting as it is written."""
    return f"`{_cell(_short(value))}`"


def _short(value: Any) -> str:
    """Returns a number with four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
