"""What does a folder of a million files cost?

Links to a thousand files are listed, and the first batch taken, in a process of its
own.

    keras-alexnet benchmark many_files
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

from keras_alexnet.benchmarks.data_pipeline import AUGMENTATION, PREPROCESSING
from keras_alexnet.benchmarks.memory import peak_memory
from keras_alexnet.benchmarks.photographs import write_photographs
from keras_alexnet.benchmarks.processes import call_in_a_process
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import write_json
from keras_alexnet.data.opening import open_dataset
from keras_alexnet.data.pipeline import training_batches

FILES = 1_000_000
CLASSES = 1000


def make_many(folder: Path, names: list[str], count: int) -> None:
    """Links as many files as ImageNet has, in as many classes."""
    for place in range(count):
        target = folder / f"n{place % CLASSES:08d}"
        if place < CLASSES:
            target.mkdir(parents=True)
            # A file cannot have a million links.
            (target / "0.JPEG").write_bytes(
                Path(names[place % len(names)]).read_bytes()
            )
        else:
            os.link(target / "0.JPEG", target / f"{target.name}_{place}.JPEG")


def first_batch(few: str, many: str) -> dict[str, float]:
    """Opens a folder of many files and takes one batch.

    Args:
        few: Another folder. TensorFlow's own memory, and that of a pipeline, is not the
            folder's, so that both are started with this one.
        many: The folder.
    """
    options = {"batch_size": 32, "seed": 0, "first_step": 0, "last_step": 1}
    for path in (few, many):
        memory, started = peak_memory(), time.perf_counter()
        source = open_dataset(f"folder:{path}", seed=0)
        opened = time.perf_counter() - started
        list(training_batches(source.train, PREPROCESSING, AUGMENTATION, **options))
    return {
        "files": len(source.train) + len(source.test),
        "mebibytes": round((peak_memory() - memory) / 2**20),
        "seconds_to_open": round(opened, 2),
        "seconds_to_first_batch": round(time.perf_counter() - started, 2),
    }


def run(options: Options) -> None:
    """Measures and reports."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = write_photographs(folder / "few", 8, (512, 512))
        make_many(folder / "many", names, 5_000 if options.quick else FILES)
        paths = str(folder / "few"), str(folder / "many")
        found = call_in_a_process(first_batch, *paths)
    print(json.dumps(found))
    write_json("many_files", options, results=found)
