"""Ablation grid: the paper's ablations with seeds, on anyone's own images."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from keras_alexnet.architectures import LayerSpec, get_architecture
from keras_alexnet.errors import UserError
from keras_alexnet.files import write_table
from keras_alexnet.schedules import Constant, parse_schedule
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.tuning.compare import (
    METRICS,
    Paired,
    Runs,
    Train,
    check_seeds,
    deviation,
    mean,
)
from keras_alexnet.tuning.trial_process import check_in_process, train_in_process

Changes = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Ablation:
    """One thing taken away.

    Attributes:
        key: A short name, for directories and files.
        name: What people read.
        change: From a configuration and the images' colour channels to the settings
            that it changes, or the reason why it would change nothing.
        paper_top1: By how much the paper's top-1 error is higher without it, in
            percentage points, in words where it gives no number.
        paper_top5: The same of the top-5 error.
        remark: Where the paper says so, or what else to know.
    """

    key: str
    name: str
    change: Callable[[TrainConfig, int], Changes | str]
    paper_top1: str = ""
    paper_top5: str = ""
    remark: str = ""


# === What the paper took away, as changes of a configuration ===


def _layers(config: TrainConfig, role: str) -> list[LayerSpec]:
    architecture = get_architecture(config.architecture)
    specs = architecture.features + architecture.top
    return [spec for spec in specs if spec.role == role and spec.layer]


def _no_norm(config: TrainConfig, channels: int) -> Changes | str:
    if config.norm != "default":
        return f"norm is {config.norm}, not the network's own"
    if not _layers(config, "norm"):
        return f"{config.architecture} does not normalise"
    return {"norm": "none"}


def _no_overlap(config: TrainConfig, channels: int) -> Changes | str:
    if config.pool != "default":
        return f"pool is {config.pool}, not the network's own"
    options = [spec.options for spec in _layers(config, "pool")]
    if not any(one.get("pool_size", 0) > one.get("strides", 0) for one in options):
        return f"{config.architecture} has no overlapping windows"
    return {"pool": "non_overlapping_max_pooling"}


def _one_tower(config: TrainConfig, channels: int) -> Changes | str:
    towers = [spec.options.get("groups", 1) for spec in _layers(config, "conv")]
    if config.groups == 1 or max(towers) == 1:
        return "the network has one tower"
    return {"groups": 1}


def _half_net(config: TrainConfig, channels: int) -> Changes | str:
    if config.architecture != "alexnet_2012_source":
        return "it is half of alexnet_2012_source"
    if config.groups == 1:
        return "the network has one tower"
    return {"architecture": "alexnet_2012_half"}


def _no_dropout(config: TrainConfig, channels: int) -> Changes | str:
    if parse_schedule(config.dropout) == Constant(0.0):
        return "dropout is 0"
    return {"dropout": "0"}


def _no_color_noise(config: TrainConfig, channels: int) -> Changes | str:
    if channels == 1:
        return "the images are grey"
    if parse_schedule(config.color_noise) == Constant(0.0):
        return "color_noise is 0"
    return {"color_noise": "0"}


def _no_crop(config: TrainConfig, channels: int) -> Changes | str:
    size = config.image_size or get_architecture(config.architecture).input_size
    if config.augmentation == "modern":
        # Its crops of random size, and the jitter that comes with them.
        return {"augmentation": "2012", "color_noise": "0", "resize_size": size}
    if config.resize_size == size and not config.crop_padding:
        return "images are as large as the network's input"
    # The whole image, in training as in testing.
    return {"resize_size": size, "crop_padding": 0}


def _no_augmentation(config: TrainConfig, channels: int) -> Changes | str:
    changes = {"horizontal_flip": False}
    changes |= dict.fromkeys(("rotation", "zoom", "mixup", "cutmix"), 0.0)
    changes = {k: v for k, v in changes.items() if getattr(config, k) != v}
    for change in (_no_crop, _no_color_noise):
        found = change(config, channels)
        changes.update({} if isinstance(found, str) else found)
    return changes or "images are not augmented"


BASE = Ablation("base", "base", lambda config, channels: {})
# The paper's text, with which the logs of its program agree to two decimals:
# layer-params-145.cfg and -145-2010.cfg against -145-half, -147 and -148.
ABLATIONS = (
    Ablation("no-lrn", "no normalisation", _no_norm, "+1.4", "+1.2", "section 3.3"),
    Ablation(
        *("no-overlap", "no overlapping pooling", _no_overlap),
        *("+0.4", "+0.3", "section 3.4"),
    ),
    Ablation(
        *("one-tower", "one tower, joined", _one_tower),
        remark="more weights than two; the paper halves the net instead",
    ),
    Ablation(
        *("half-net", "one tower, half the net", _half_net),
        *("+1.7", "+1.2", "section 3.2"),
    ),
    Ablation("no-dropout", "no dropout", _no_dropout, "overfits", "", "section 4.2"),
    Ablation(
        *("no-color-noise", "no PCA lighting noise", _no_color_noise),
        *("over +1", "", "section 4.1"),
    ),
    Ablation(
        *("no-augmentation", "no augmentation", _no_augmentation),
        *("overfits", "", "section 4.1"),
    ),
    Ablation("no-crop", "no crop", _no_crop, remark="the whole image, in testing too"),
)


# === The grid ===


@dataclasses.dataclass(frozen=True)
class Row:
    """An ablation and what came of it.

    Attributes:
        ablation: What was taken away; nothing from the base.
        changes: The settings that do it, or why it was not run.
        runs: What came of it.
    """

    ablation: Ablation
    changes: Changes | str
    runs: Runs = dataclasses.field(default_factory=Runs)

    @property
    def not_applicable(self) -> str | None:
        """Why it was not run, or None."""
        return self.changes if isinstance(self.changes, str) else None


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
        return row.runs.minus(self.rows[0].runs, metric)


def ablate(
    config: TrainConfig,
    directory: Path,
    seeds: Sequence[int] = (0, 1, 2),
    train: Train = train_in_process,
) -> AblationResult:
    """Trains a configuration whole and without each of the paper's inventions.

    Every row is trained with the same seeds, so with the same test split. The first
    seed of all rows comes first: what an interrupted grid has is comparable. Runs that
    have finished are not trained again; a run that fails is recorded and tried again by
    the next call.

    Args:
        config: What to take things away from; its seed is not used.
        directory: Where `runs/` and `ablation.csv` go.
        seeds: The seeds.
        train: What trains a configuration in a run directory.

    Raises:
        UserError: There are no seeds, the directory is a run's, the data cannot be
            opened, or the base cannot be trained.
        keras_alexnet.training.loop.Interrupted: Training was asked to stop.
    """
    check_seeds("An ablation", seeds)
    if (directory / "config.json").is_file():
        raise UserError(
            f"{directory} holds a run of its own: choose another --run-dir for the "
            "ablations."
        )
    # Before anything is trained: these images are what all is about.
    checked = check_in_process(dataclasses.replace(config, seed=seeds[0]))
    config = dataclasses.replace(checked.config, seed=config.seed)
    rows = [
        Row(one, one.change(config, checked.channels)) for one in (BASE, *ABLATIONS)
    ]
    result = AblationResult(config, tuple(seeds), tuple(rows))
    # All of them now: one that cannot be is found before others are trained.
    applicable = [
        (row, dataclasses.replace(config, **row.changes))
        for row in rows
        if not row.not_applicable
    ]
    for seed in seeds:
        for row, changed in applicable:
            name = row.ablation.name
            run_dir = directory / "runs" / f"{row.ablation.key}-{seed}"
            outcome = row.runs.train(name, changed, seed, run_dir, train)
            if outcome.by_user and row is rows[0] and seed == seeds[0]:
                # A mistake in the base is one in all rows, and no failure of one run.
                raise UserError(outcome.error)
            _write(result, directory)
    return result


# === Results ===


def table_of(result: AblationResult) -> Table:
    """Returns the grid beside the paper's differences, for people."""
    table = Table(
        title=f"{result.config.architecture} on {result.config.data}, "
        f"seeds {', '.join(map(str, result.seeds))}, epochs {result.config.epochs}: "
        "errors on the test split in %, differences in percentage points",
        caption="Mean ± standard deviation over the seeds (n - 1). A difference is "
        "that of the errors without something and with it, seed by seed; * marks one "
        "that is larger than its standard deviation. The paper's are those of "
        "1.2 million images of 1,000 classes, of one run each, and need not be yours.",
    )
    table.add_column("what")
    for heading in ("top-1", "difference", "paper", "top-5", "difference", "paper"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("remarks")
    for row in result.rows:
        cells, ablation = [], row.ablation
        for metric, paper in (
            ("top1_error", ablation.paper_top1),
            ("top5_error", ablation.paper_top5),
        ):
            paired = result.paired(row, metric)
            difference = mean(paired.differences, metric, "+") + " *" * paired.is_clear
            is_base = row is result.rows[0]
            errors = mean(row.runs.values(metric).values(), metric)
            cells += [errors, "" if is_base else difference, paper]
        cells = [cell.replace(" %", "") for cell in cells]
        table.add_row(*map(Text, (ablation.name, *cells, _remarks(row))))
    return table


def _remarks(row: Row) -> str:
    if row.not_applicable:
        return f"not applicable: {row.not_applicable}"
    failed = [f"seed {seed} failed: {text}" for seed, text in row.runs.failures.items()]
    return "; ".join([*failed, *filter(None, [row.ablation.remark])])


def _write(result: AblationResult, directory: Path) -> None:
    """Writes ablation.csv, as far as the grid has come."""
    directory.mkdir(parents=True, exist_ok=True)
    write_table(directory / "ablation.csv", (_record(result, x) for x in result.rows))


def _record(result: AblationResult, row: Row) -> dict[str, Any]:
    """Returns a row for programs: fractions, not per cent."""
    ablation = row.ablation
    record: dict[str, Any] = {
        "key": ablation.key,
        "name": ablation.name,
        "seeds": len(row.runs.metrics),
        "failed": len(row.runs.failures),
        "not_applicable": row.not_applicable,
    }
    for metric in METRICS:
        values = list(row.runs.values(metric).values())
        paired = result.paired(row, metric)
        record[metric] = statistics.fmean(values) if values else None
        record[f"{metric}_deviation"] = deviation(values)
        record[f"{metric}_difference"] = paired.mean
        record[f"{metric}_difference_deviation"] = paired.deviation
    record["paper_top1"] = ablation.paper_top1 or None
    record["paper_top5"] = ablation.paper_top5 or None
    return record
