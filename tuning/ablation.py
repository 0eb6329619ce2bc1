"""The paper's ablations as a grid with seeds, on anyone's own images."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from keras_alexnet.data.sources import open_source
from keras_alexnet.errors import UserError
from keras_alexnet.files import write_whole
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.train import train
from keras_alexnet.tuning.ablations import ABLATIONS, Ablation, NotApplicable
from keras_alexnet.tuning.comparison import METRICS, Metrics, Train, train_once
from keras_alexnet.tuning.paired import Paired, false_alarm_rate, spread

BASE = Ablation("base", "base", lambda config, channels: {})


@dataclasses.dataclass(frozen=True)
class Row:
    """An ablation and what came of it.

    Attributes:
        ablation: What was taken away; nothing from the base.
        changes: The settings that do it.
        metrics: On the test images, by seed.
        failures: What failed, in one line each, by seed.
        not_applicable: Why it was not run, or None.
    """

    ablation: Ablation
    changes: Mapping[str, Any]
    metrics: dict[int, Metrics] = dataclasses.field(default_factory=dict)
    failures: dict[int, str] = dataclasses.field(default_factory=dict)
    not_applicable: str | None = None

    def values(self, metric: str) -> dict[int, float]:
        """Returns a metric by seed."""
        return {seed: metrics[metric] for seed, metrics in self.metrics.items()}


@dataclasses.dataclass(frozen=True)
class AblationResult:
    """The whole grid.

    Attributes:
        config: What the ablations were taken from.
        seeds: The seeds of every row.
        rows: The base first, then the ablations.
    """

    config: TrainConfig
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]

    def paired(self, row: Row, metric: str) -> Paired:
        """Returns the differences of a row and the base, seed by seed."""
        return Paired.of(row.values(metric), self.rows[0].values(metric))


def ablate(
    config: TrainConfig,
    directory: Path,
    seeds: Sequence[int] = (0, 1, 2),
    train: Train = train,
) -> AblationResult:
    """Trains a configuration whole and without each of the paper's inventions.

    Every row is trained with the same seeds, so with the same test images. The first
    seed of all rows comes first: what an interrupted grid has is comparable. Runs that
    have finished are not trained again; a run that fails is recorded and tried again by
    the next call.

    Args:
        config: What to take things away from; its seed and run directory are not used.
        directory: Where `runs/`, `ablation.csv` and `ablation.json` go.
        seeds: The seeds.
        train: What trains, `keras_alexnet.train`.

    Raises:
        ValueError: There are no seeds, the directory is a run's, the data cannot be
            opened, or the base cannot be trained.
        keras_alexnet.training.loop.Interrupted: Training was asked to stop.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(
            "An ablation needs seeds, each of them once. "
            f"Received: {', '.join(map(str, seeds)) or 'none'}"
        )
    if (directory / "config.json").is_file():
        raise UserError(
            f"{directory} holds a run of its own: choose another --run-dir for the "
            "ablations."
        )
    # Before anything is trained: these images are what all is about.
    source = open_source(
        config.data,
        seed=seeds[0],
        test_fraction=config.test_fraction,
        channels=config.channels,
    )
    rows = tuple(_row(one, config, source.channels) for one in (BASE, *ABLATIONS))
    result = AblationResult(config, tuple(seeds), rows)
    # All of them now: one that cannot be is found before others are trained.
    configs = [dataclasses.replace(config, **row.changes) for row in rows]
    for seed in seeds:
        for row, changed in zip(rows, configs, strict=True):
            if row.not_applicable:
                continue
            print(f"\n{row.ablation.name}, seed {seed}")
            seeded = dataclasses.replace(changed, seed=seed)
            run_dir = directory / "runs" / f"{row.ablation.key}-{seed}"
            # A mistake in the base is one in all rows, and no failure of one run.
            may_raise = (ValueError,) if row is rows[0] and seed == seeds[0] else ()
            metrics, failure = train_once(seeded, run_dir, train, may_raise)
            if failure:
                print(f"failed: {failure}")
                row.failures[seed] = failure
            else:
                row.metrics[seed] = metrics
            _write(result, directory)
    return result


def _row(ablation: Ablation, config: TrainConfig, channels: int) -> Row:
    try:
        return Row(ablation, ablation.change(config, channels))
    except NotApplicable as reason:
        return Row(ablation, {}, not_applicable=str(reason))


# === Results ===


def table_of(result: AblationResult) -> Table:
    """Returns the grid beside the paper's differences, for people."""
    count = len(result.seeds)
    luck = ""
    if count > 1:
        luck = f", which chance alone does in {false_alarm_rate(count):.0%} of cases"
    table = Table(
        title=f"{result.config.architecture} on {result.config.data}, "
        f"seeds {', '.join(map(str, result.seeds))}, epochs {result.config.epochs}: "
        "errors in %, differences in percentage points",
        caption="Mean ± standard deviation over the seeds (n - 1). A difference is "
        "that of the errors without something and with it, seed by seed; * marks one "
        f"that is larger than its spread{luck}. The paper's are those of 1.2 million "
        "images of 1,000 classes, of one run each, and need not be yours.",
    )
    table.add_column("what")
    for heading in ("top-1", "difference", "paper", "top-5", "difference", "paper"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("remarks")
    for row in result.rows:
        cells = []
        for metric, paper in zip(METRICS, row.ablation.paper, strict=False):
            cells += [_errors(row, metric), _difference(result, row, metric), paper]
        table.add_row(*map(Text, (row.ablation.name, *cells, _remarks(row))))
    return table


def _errors(row: Row, metric: str) -> str:
    return _with_spread([100 * value for value in row.values(metric).values()])


def _difference(result: AblationResult, row: Row, metric: str) -> str:
    if row is result.rows[0]:
        return ""
    paired = result.paired(row, metric)
    text = _with_spread([100 * value for value in paired.differences], "+")
    return text + (" *" if paired.exceeds_spread else "")


def _with_spread(values: Sequence[float], sign: str = "") -> str:
    if not values:
        return "-"
    deviation = spread(values)
    text = f"{statistics.fmean(values):{sign}.2f}"
    return text if deviation is None else f"{text} ± {deviation:.2f}"


def _remarks(row: Row) -> str:
    if row.not_applicable:
        return f"not applicable: {row.not_applicable}"
    failed = [f"seed {seed} failed: {text}" for seed, text in row.failures.items()]
    return "; ".join([*failed, *([row.ablation.remark] if row.ablation.remark else [])])


def _write(result: AblationResult, directory: Path) -> None:
    """Writes ablation.csv and ablation.json, as far as the grid has come."""
    directory.mkdir(parents=True, exist_ok=True)
    records = [_record(result, row) for row in result.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    write_whole(directory / "ablation.csv", text.getvalue())
    values = {
        "config": dataclasses.asdict(result.config),
        "seeds": result.seeds,
        "rows": [
            {
                **record,
                "changes": dict(row.changes),
                "metrics": row.metrics,
                "failures": row.failures,
            }
            for record, row in zip(records, result.rows, strict=True)
        ],
    }
    write_whole(directory / "ablation.json", json.dumps(values, indent=2) + "\n")


def _record(result: AblationResult, row: Row) -> dict[str, Any]:
    """Returns a row for programs: fractions, not per cent."""
    record: dict[str, Any] = {
        "key": row.ablation.key,
        "name": row.ablation.name,
        "seeds": len(row.metrics),
        "failed": len(row.failures),
        "not_applicable": row.not_applicable,
    }
    for metric in METRICS:
        values = list(row.values(metric).values())
        paired = result.paired(row, metric)
        record[metric] = statistics.fmean(values) if values else None
        record[f"{metric}_deviation"] = spread(values)
        record[f"{metric}_difference"] = paired.mean
        record[f"{metric}_difference_deviation"] = paired.spread
    paper = dict(zip(("top1", "top5"), row.ablation.paper, strict=True))
    return record | {f"paper_{name}": text or None for name, text in paper.items()}
