"""The best configuration against the default one, in Markdown."""

from __future__ import annotations

from keras_alexnet.tuning.comparison import METRICS, Comparison
from keras_alexnet.tuning.paired import Paired
from keras_alexnet.tuning.wording import (
    METRIC_NAMES,
    amount,
    cell,
    mean_and_spread,
    table,
)


def comparison_text(comparison: Comparison | None, has_best: bool) -> list[str]:
    """Returns the paragraphs about the best configuration against the default one.

    Args:
        comparison: What came of both, None if they were not compared.
        has_best: Whether there is a best trial at all.
    """
    parts = ["## Against the default recipe"]
    if comparison is None:
        if has_best:
            parts.append(
                "Not compared with fresh seeds: whether the best trial is better than "
                "the default recipe is not known."
            )
            return parts
        return []
    rows = []
    for metric in METRICS:
        best, default = comparison.values(metric)
        rows.append(
            [
                METRIC_NAMES[metric],
                mean_and_spread(best.values(), metric),
                mean_and_spread(default.values(), metric),
                mean_and_spread(comparison.paired(metric).differences, metric, "+"),
            ]
        )
    headings = ["", "best", "default", "best minus default"]
    seeds = ", ".join(map(str, comparison.seeds))
    parts += [
        _verdict(comparison.paired("top1_error")),
        table(headings, rows),
        f"Mean ± standard deviation (n - 1) over the seeds {seeds}, which the search "
        "has not used. At each seed both had the same training and test images; the "
        "last column is of the differences at equal seeds, in percentage points where "
        "errors are in %. A difference counts as larger than the spread if its mean is "
        "larger than its standard deviation.",
        _by_seed(comparison),
        "Other seeds keep other images for testing where the data are not split; where "
        "they are, the search has chosen by the same test images, which favours the "
        "best. Images that no trial has seen judge better: `keras-alexnet evaluate RUN "
        "--data OTHER`.",
    ]
    parts += [f"- Failed: {cell(failure)}" for failure in comparison.failures]
    return parts


def _verdict(paired: Paired) -> str:
    """Returns in words what the differences of the top-1 error allow to say."""
    count = len(paired.differences)
    if not count:
        return "**Nothing can be said: at no seed did both finish.**"
    if count == 1:
        return (
            "**Nothing can be said from one seed: how far seeds differ is not known.**"
        )
    chance = (
        f" (If both were equally good, a difference as large for its spread would come "
        f"about in {paired.chance:.0%} of such comparisons: paired t-test.)"
        if paired.chance is not None
        else ""
    )
    if paired.mean == 0:
        return "**No difference in the mean top-1 error.**"
    if not paired.exceeds_spread:
        return (
            f"**No clear difference: that of the mean top-1 error over {count} seeds "
            f"is not larger than its spread.**{chance}"
        )
    better = "better" if paired.mean < 0 else "worse"
    return (
        f"**The best trial's settings are {better} than the default: the difference of "
        f"the top-1 error over {count} seeds is larger than its spread.**{chance}"
    )


def _by_seed(comparison: Comparison) -> str:
    best, default = comparison.values("top1_error")
    rows = []
    for seed in comparison.seeds:
        both = seed in best and seed in default
        rows.append(
            [
                str(seed),
                amount(best.get(seed), "top1_error"),
                amount(default.get(seed), "top1_error"),
                amount(best[seed] - default[seed] if both else None, "top1_error", "+"),
            ]
        )
    return table(["top-1 error at seed", "best", "default", "difference"], rows)
