"""A folder of images: `keras-alexnet train` at its defaults against plain Keras.

    keras-alexnet benchmark own_images --data FOLDER --minutes 5 --seeds 3

Both train in turn, seed by seed, each in a process whose time is taken from the command
to its last number. FOLDER has `train/` and `test/` with a folder for each class;
`digits` stands for the embedded digits, `digits:100` for 100 training images of them.
The plain program is `benchmarks/peers/plain_keras.py`: it is there in a checkout only.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tensorflow as tf
from PIL import Image

from keras_alexnet import benchmarks
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.data.opening import open_dataset
from keras_alexnet.errors import UserError

OURS, PLAIN = "keras_alexnet", "plain Keras"
# The last accuracy that a program prints: "accuracy 82.49%", "accuracy 0.8249".
ACCURACY = re.compile(r"accuracy (\d+\.\d+)(%?)")


def run(report: Report) -> None:
    """Trains, and reports means and standard deviations over the seeds.

    Raises:
        UserError: The folder lacks what is needed.
    """
    options, rows = report.options, report.results
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "digits")
        kind, _, count = options.data.partition(":")
        if kind == "digits":
            count = int(count) if count.isdecimal() else 100 if options.quick else None
            write_digits(folder, count)
        else:
            folder = Path(options.data).expanduser()
        made = commands(folder, Path(temporary, "run"), options, kind == "digits")
        report.settings |= {"data": options.data, "minutes": options.minutes}
        report.settings |= {"epochs": options.epochs, "commands": made}
        for seed in range(1 if options.quick else options.seeds):
            for name, command in made.items():
                row = measure([*command, "--seed", str(seed)])
                rows.setdefault(name, []).append(row)
                print(f"seed {seed} | {name} | {spelled([row])}", flush=True)
                report.save()
    for name, values in rows.items():
        print(f"all | {name} | {spelled(values)}")
    if len(rows) == 2:
        pairs = list(zip(rows[OURS], rows[PLAIN], strict=True))
        ahead = [100 * (one["accuracy"] - other["accuracy"]) for one, other in pairs]
        times = [one["seconds"] / other["seconds"] for one, other in pairs]
        print(
            f"all | {OURS} against {PLAIN} | {over_seeds(ahead, '+.2f')} points | "
            f"{over_seeds(times, '.2f')} times as long"
        )


def write_digits(folder: Path, count: int | None) -> None:
    """Writes the embedded digits as `train/` and `test/`, so many for training."""
    dataset = open_dataset("digits", seed=0, validation_fraction=0)
    for split, most in (("train", count), ("test", None)):
        images = dataset.splits[split]
        for index in range(min(len(images), most or len(images))):
            data, label = images.read(tf.constant(index, tf.int64))
            path = folder / split / str(int(label)) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.numpy())


def commands(
    folder: Path, run_dir: Path, options: Options, characters: bool
) -> dict[str, list[str]]:
    """Returns both command lines, without the seed.

    Args:
        folder: With `train/` and `test/`.
        run_dir: Where our run goes.
        options: How long they train.
        characters: Whether the images are characters, which plain Keras is told: it
            does not mirror them.
    """
    image = next((x for x in (folder / "test").glob("*/*") if x.is_file()), None)
    if image is None or not (folder / "train").is_dir():
        raise UserError(
            f"{folder} has no train/ and test/ with a folder of images for each class."
        )
    with Image.open(image) as opened:
        size = max(32, min(64, *opened.size))
    length = ["--minutes", str(options.minutes)]
    if options.minutes is None:
        length = ["--epochs", str(1 if options.quick else options.epochs)]
    train = ["train", "--data", f"folder:{folder}", "--run-dir", str(run_dir)]
    found = {OURS: [sys.executable, "-m", "keras_alexnet", *train, "--overwrite"]}
    found[OURS] += length
    if benchmarks.find_peers():
        program = Path(__file__).parent / "peers" / "plain_keras.py"
        found[PLAIN] = [sys.executable, str(program), str(folder), *length]
        found[PLAIN] += ["--size", str(size), *["--no-flip"] * characters]
    return found


def measure(command: list[str]) -> dict[str, float]:
    """Runs a program, and returns its accuracy and the seconds that it took."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    found = ACCURACY.findall(done.stdout)
    if done.returncode or not found:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    number, percent = found[-1]
    return {"accuracy": float(number) / (100 if percent else 1), "seconds": seconds}


def spelled(rows: list[dict[str, float]]) -> str:
    """Writes accuracies and times, as mean and standard deviation if several."""
    accuracy = over_seeds([100 * row["accuracy"] for row in rows], ".2f")
    return f"{accuracy} % | {over_seeds([row['seconds'] for row in rows], '.1f')} s"


def over_seeds(values: list[float], form: str) -> str:
    """Writes a mean, and the standard deviation of several values."""
    text = f"{statistics.mean(values):{form}}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):{form.lstrip('+')}}"
    return text
