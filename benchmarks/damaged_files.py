"""Is every damaged file named, and what does that cost?

Of 5,000 small files 1,000 are damaged, in ten ways.

    keras-alexnet benchmark damaged_files
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from keras_alexnet.benchmarks.data_pipeline import BATCH_SIZE, PREPROCESSING
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import write_json
from keras_alexnet.data.opening import open_dataset
from keras_alexnet.data.pipeline import evaluation_batches

FILES = 5000


def ten_kinds_of_damage(whole: bytes) -> list[bytes]:
    """Returns what is left of an image in ten kinds of damage."""
    start_of_frame = whole.index(b"\xff\xc0")
    sized = bytearray(whole)
    sized[start_of_frame + 5 : start_of_frame + 9] = (30_000).to_bytes(2, "big") * 2
    flat = bytearray(sized)
    flat[start_of_frame + 5 : start_of_frame + 9] = bytes(4)
    png = io.BytesIO()
    Image.new("RGB", (40, 40)).save(png, "PNG")
    gif = io.BytesIO()
    Image.new("P", (40, 40)).save(gif, "GIF")
    return [
        b"",
        b"no image",
        whole[:2],
        whole[: len(whole) // 2],
        np.random.default_rng(0).bytes(2000),
        bytes(2000),
        bytes(sized),
        bytes(flat),
        png.getvalue()[:-30],
        gif.getvalue()[:20],
    ]


def write_files(folder: Path, count: int) -> None:
    """Writes small files in two classes; every fifth is damaged, in ten kinds."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    kinds = ten_kinds_of_damage(file.getvalue())
    for number in range(count):
        place, kind = divmod(number, 50)
        part = "val" if kind < 5 else "train"
        path = folder / part / f"{place % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kinds[kind // 5] if number % 5 == 0 else file.getvalue())


def run(options: Options) -> None:
    """Goes once through all of them and reports."""
    with tempfile.TemporaryDirectory() as temporary:
        write_files(Path(temporary), 100 if options.quick else FILES)
        source = open_dataset(f"folder:{temporary}", seed=0)
        started = time.perf_counter()
        used = 0
        for part in (source.train, source.test):
            for _, _, weights in evaluation_batches(part, PREPROCESSING, BATCH_SIZE):
                used += int(weights.numpy().sum())
        found = {
            "images": source.total,
            "used": used,
            "named": len(source.skipped),
            "seconds": round(time.perf_counter() - started, 1),
        }
    print(json.dumps(found))
    write_json("damaged_files", options, results=found)
