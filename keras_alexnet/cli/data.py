"""Say what a source of images holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.table import Table
from rich.text import Text

from keras_alexnet import cli
from keras_alexnet.cli.common import console
from keras_alexnet.data import report
from keras_alexnet.data.measure import measure
from keras_alexnet.data.shards import write_shards
from keras_alexnet.data.sources import Source, open_source
from keras_alexnet.errors import UserError
from keras_alexnet.files import write_whole
from keras_alexnet.images.preprocessing import MODES


def run(command: cli.Data) -> int:
    """Prints what a source of images holds, and does with it what is asked for."""
    if not 0 <= command.test_fraction < 1:
        raise UserError(
            f"--test-fraction must be in [0, 1). Received: {command.test_fraction}"
        )
    if command.shards is not None and command.to_tfrecord is None:
        raise UserError("--shards says how --to-tfrecord writes; give both.")
    source = open_source(
        command.source, seed=command.seed, test_fraction=command.test_fraction
    )
    names = source.class_names
    counts = [
        report.count_labels(part, len(names)) for part in (source.train, source.test)
    ]
    table = Table(title=f"{command.source}: {len(names):,} classes")
    for heading in ("class", "training images", "test images"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name, train, test in zip(names, *counts, strict=True):
        table.add_row(Text(name), f"{train:,}", f"{test:,}")
    table.add_section()
    table.add_row("all", *(f"{count.sum():,}" for count in counts))
    console.print(table)
    if sizes := report.measure_sizes(source.train):
        print(
            "Width x height: {} x {} to {} x {}, in the middle {} x {} "
            "({:,} images measured).".format(
                *sizes.smallest, *sizes.largest, *sizes.median, sizes.measured
            )
        )
    if command.contact_sheet:
        report.draw_contact_sheet(source, Path(command.contact_sheet))
        print(f"Contact sheet: {command.contact_sheet}")
    if command.check:
        report.check_images(source)
        print(f"{source.total:,} images checked, {source.skipped.damaged:,} damaged.")
    if command.measure:
        _measure(command, source)
    if command.to_tfrecord:
        write_shards(source, Path(command.to_tfrecord), command.shards)
        print(f"Written. Use it as tfrecord:{command.to_tfrecord}")
    source.skipped.print()
    return 0


def _measure(command: cli.Data, source: Source) -> None:
    """Measures the training images as the 2012 network sees them, before its crop."""
    preprocessing = dataclasses.replace(
        MODES["none"], channels=source.channels, mean=(0.0,) * source.channels
    )
    statistics = measure(source.train, preprocessing, seed=command.seed)
    for line in statistics.lines():
        print(line)
    write_whole(Path(command.measure), statistics.to_json())
    print(f"Measured: {command.measure}")
