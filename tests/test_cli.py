"""The command line, as a person uses it."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from image_sources import write
from PIL import Image

import keras_alexnet
from keras_alexnet import cli
from keras_alexnet.cli.list import List
from keras_alexnet.images.preprocessing import get_preprocessing


def test_help_and_version_need_no_tensorflow():
    program = """
import contextlib, io, sys
from keras_alexnet.cli import COMMANDS, main
for arguments in (["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)):
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            main(arguments)
    except SystemExit as stop:
        assert not stop.code
    assert "keras-alexnet" in printed.getvalue(), arguments
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


def test_the_version_is_the_packages(command):
    assert command("--version") == (
        0,
        f"keras-alexnet {keras_alexnet.__version__}\n",
        "",
    )


def test_a_defect_keeps_its_traceback(monkeypatch):
    def fail(self):
        raise ValueError("a library's own")

    monkeypatch.setattr(List, "run", fail)
    with pytest.raises(ValueError, match="a library's own"):
        cli.main(["list"])


def test_everything_there_is_to_choose_from_is_listed(command):
    code, printed, _ = command("list")
    for name in ("alexnet_2012", "torchvision-alexnet", "lrn", "alexnet-2012-source"):
        assert code == 0 and any(
            line.startswith(f"{name} ") for line in printed.splitlines()
        ), name
    assert "alexnet_2012" not in command("list", "weights")[1]


def test_a_run_is_trained_evaluated_exported_and_asked(tmp_path, command):
    run_dir = tmp_path / "run"
    code, printed, _ = command(
        *("train", "--run-dir", run_dir, "--epochs", 1, "--width", 0.25),
        *("--global-batch-size", 128, "--replicas", 2, "--xla", "on"),
    )
    assert code == 0
    assert "CPU:0, CPU:1" in printed and "XLA on" in printed
    assert "top-1 error" in printed

    code, lines, printed = command("evaluate", run_dir, "--csv")
    assert code == 0 and "360 images" in printed
    assert lines == (run_dir / "predictions.csv").read_text()
    assert (run_dir / "figures" / "confusion.png").exists()
    with open(run_dir / "predictions.csv") as file:
        lines = list(csv.DictReader(file))
    error = 1 - np.mean([line["class"] == line["predicted"] for line in lines])
    assert f"top-1 error {error:.2%}" in printed and len(lines) == 360

    code, printed, _ = command("export", run_dir)
    assert code == 0 and "compared with the model on 360 images." in printed
    assert (run_dir / "export" / "saved_model.pb").exists()

    code, printed, _ = command(
        "predict", run_dir, "examples/images/digit-3.png", "--top", 2
    )
    assert code == 0 and printed.count("%") == 2

    code, printed, _ = command("train", "--run-dir", run_dir, "--resume")
    assert code == 0 and "finished already" in printed


# === Networks that are no runs ===

CLASSES = ("ant", "b\u00e9e", "cat")
KNOWN = ("--preprocessing", "torch", "--class-names", *CLASSES)


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A model file that knows nothing of itself, and images in the same folder."""
    monkeypatch.chdir(tmp_path)
    model = keras_alexnet.build("alexnet_mini", classes=3)
    keras.Model(model.inputs, model.outputs).save("net.keras")
    for number in range(5):
        write(tmp_path / "photos" / "sub" / f"[b]{number}.png", seed=number)
    model.bind(get_preprocessing("torch").with_image_size(28))
    return model


def test_images_are_read_from_folders_patterns_and_lists_in_batches(
    network, command, monkeypatch
):
    files = [f"photos/sub/[b]{number}.png" for number in range(5)]
    expected = network.predict(network.preprocess([Image.open(f) for f in files]))
    for images, lines, numbers in (
        (["photos"], "", range(5)),
        (["photos/**/*.png"], "", range(5)),
        (["photos/sub/[[]b]4.png", files[0]], "", [4, 0]),
        ([files[2], "-", files[3]], f"{files[1]}\n{files[4]}\n", [2, 1, 4, 3]),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        options = (*KNOWN, "--csv", "--batch-size", 2)
        code, printed, _ = command("predict", "net.keras", *images, *options)
        rows = list(csv.DictReader(io.StringIO(printed)))
        assert code == 0
        assert [row["file"] for row in rows] == [
            files[n] for n in numbers for _ in "123"
        ]
        assert [row["rank"] for row in rows] == [*"123"] * len(numbers)
        for row in rows:
            found = expected[files.index(row["file"])][CLASSES.index(row["class"])]
            assert float(row["probability"]) == pytest.approx(found, abs=1e-6)


def test_predictions_are_printed_as_json_and_without_boxes_in_a_pipe(network, command):
    code, printed, _ = command("predict", "net.keras", "photos", *KNOWN, "--json")
    results = json.loads(printed)
    assert code == 0 and len(results) == 5
    assert results[1]["file"] == "photos/sub/[b]1.png"
    best = results[1]["classes"][0]
    assert best["class"] in CLASSES and best["probability"] > 1 / 3
    options = ("--preprocessing", "torch", "--top", 1)
    code, printed, _ = command("predict", "net.keras", "photos", *options)
    number = CLASSES.index(best["class"])
    assert printed.splitlines()[2].split() == [
        *("photos/sub/[b]1.png", str(number), f"{best['probability']:.2%}")
    ]
    code, printed, _ = command("predict", "net.keras", "nothing*", *KNOWN, "--json")
    assert code == 2 and json.loads(printed) == []


def test_a_network_that_does_not_know_what_it_expects_must_be_told(network, command):
    for arguments in (["predict"], ["export", "--out", "x"], ["features"]):
        name, *options = arguments
        images = [] if name == "export" else ["photos"]
        code, _, error = command(name, "net.keras", *images, *options)
        assert code == 2 and "--preprocessing caffe, torch" in error
    code, _, error = command("predict", "net.keras", "photos", *KNOWN[:-1])
    assert code == 2 and "2 class names for a model of 3 outputs" in error


def test_features_are_written(network, command):
    arguments = ("photos", "--layers", "relu5", "fc7", *KNOWN[:2])
    Path("photos/broken.jpg").write_bytes(b"broken")
    code, printed, errors = command("features", "net.keras", *arguments)
    assert code == 0 and "features.npz: 5 images" in printed
    assert "broken.jpg cannot be read" in errors
    with np.load("features.npz") as arrays:
        shape = network.get_layer("relu5").output.shape[1:]
        assert arrays["relu5"].shape == (5, *shape)
        assert arrays["fc7"].shape == (5, 256)


def test_an_export_needs_no_run_and_replaces_nothing_but_exports(network, command):
    (Path("names.txt")).write_text("\n".join(CLASSES))
    export = ("export", "net.keras", "--out", "out", *KNOWN[:2])
    code, printed, _ = command(*export, "--class-names", "names.txt")
    assert code == 0 and "on 16 images of noise." in printed
    Path("photos/sub/[b]0.png").write_bytes(b"broken")
    answer = tf.saved_model.load("out").signatures["classify"](
        tf.constant([Path("photos/sub/[b]1.png").read_bytes()])
    )
    labels = {label.decode() for label in answer["labels"].numpy()[0]}
    assert labels == set(CLASSES)

    code, _, error = command(*export)
    assert (
        code == 2 and "out holds an export already" in error and "--overwrite" in error
    )
    before = Path("out/saved_model.pb").read_bytes()
    options = ("--overwrite", "--data", "folder:photos")
    code, printed, _ = command(*export, *options)
    assert code == 0 and "on 4 images." in printed
    assert Path("out/saved_model.pb").read_bytes() != before
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]

    Path("out/thesis.tex").write_text("irreplaceable")
    code, _, error = command(*export, "--overwrite")
    assert code == 2 and "such as thesis.tex: choose another --out" in error


@pytest.mark.slow
def test_ablations_are_printed_written_and_not_repeated(tmp_path, command):
    arguments = ("tune", "--ablation", "--run-dir", tmp_path, "--seeds", 1)
    code, first, _ = command(*arguments, "--epochs", 1)
    assert code == 0
    assert "alexnet_mini on digits, seeds 0, epochs 1" in first
    assert "not applicable: the images are grey" in first
    assert (tmp_path / "ablation.csv").exists()

    code, again, _ = command(*arguments, "--epochs", 1)
    assert code == 0 and "Epoch" not in again
    assert again.endswith(first[first.index("alexnet_mini on digits") :])

    code, _, error = command(*arguments, "--epochs", 2)
    assert code == 2 and "base-0 holds another run: its epochs is 1, not 2" in error
