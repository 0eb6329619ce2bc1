"""The command line after a mistake: one line, exit code 2, nothing left on disk."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

import keras_alexnet
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.training import train as training
from keras_alexnet.training.config import get_recipe


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty directory to work in; a run that begins after all is stopped."""

    def begin(*arguments, **options):
        raise AssertionError("training began")

    monkeypatch.setattr(training.loop, "run", begin)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def on_disk(path):
    return {
        str(file): file.read_bytes() if file.is_file() else None
        for file in path.rglob("*")
    }


@pytest.fixture
def error(here, command):
    """Runs a command that fails and returns the one line that it prints."""

    def run(*arguments):
        before = on_disk(here)
        code, _, printed = command(*arguments)
        assert code == 2
        assert printed.count("\n") == 1 and printed.endswith("\n"), printed
        assert printed.startswith("keras-alexnet: ") and "───" not in printed
        assert on_disk(here) == before
        return printed

    return run


def images(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
        Image.fromarray(pixels).save(path)


# === What does not exist ===


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--architecture", "alexnet_2021"], "Did you mean 'alexnet_2012'?"),
        (["--norm", "lrm"], "Unknown layer 'lrm'. Did you mean 'lrn'?"),
        (["--conv", "grouped_cnv"], "Did you mean 'grouped_conv'?"),
        (["--pool", "nonsense"], "Unknown layer 'nonsense'."),
        (["--recipe", "digts"], "Unknown recipe 'digts'. Did you mean 'digits'?"),
        (
            ["--lerning-rate", "1"],
            "--lerning-rate, 1. Perhaps you meant: --learning-rate",
        ),
        (["--epoch", "3"], "--epoch, 3. Perhaps you meant: --epochs"),
        (["--data", "digit"], "Did you mean 'digits'?"),
        (["--data", "digits:8"], "Unknown data source 'digits:8'."),
        (
            ["--data", "folder:"],
            "Available: csv:FILE, decoded:FOLDER, digits, folder:PATH,",
        ),
        (["--data", "folder:nowhere"], "No such folder: nowhere"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(error, arguments, expected):
    assert expected in error("train", *arguments)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], "{train, evaluate, export, predict, explain, report, features"),
        (["trian"], "train, evaluate, export, predict"),
        (["train", "--run-dir"], "'--run-dir'"),
        (["evaluate"], "A run's directory, a .keras file"),
        (["predict", "run", "x.png", "--tpo", "3"], "Perhaps you meant: --top"),
        (
            ["predict", "run", "x.png", "--csv", "--json"],
            "only one of --csv and --json",
        ),
        (["list", "recipe"], "'recipes'"),
        (["evaluate", "nowhere"], "nowhere has no test images of its own"),
        (["evaluate", "nowhere", "--data", "digits"], "nowhere"),
        (["export", "nowhere"], "nowhere is not a run's directory: give --out"),
        (["export", "nowhere", "--out", "x"], "torchvision-alexnet"),
        (["predict", "nowhere", "x.png"], "torchvision-alexnet"),
        (["features", "nowhere", "x"], "torchvision-alexnet"),
    ],
)
def test_a_command_that_is_not_understood_is_answered(error, arguments, expected):
    assert expected in error(*arguments)


# === What makes no sense ===


# What a configuration refuses is tested in test_config.py.
@pytest.mark.parametrize(
    "flag, value, expected",
    [
        ("--channels", "2", "invalid choice '2' for argument '--channels'"),
        ("--precision", "float64", "'float32', 'bfloat16'"),
        ("--xla", "maybe", "'auto', 'on', 'off'"),
        ("--epochs", "-3", "epochs must be at least 1. Received: -3"),
        ("--epochs", "many", "invalid literal for int() with base 10: 'many'"),
        ("--replicas", "64", "64 replicas"),
        ("--rotation", "-4", "rotation must be finite and not negative"),
        ("--test-fraction", "0.9999", "cannot be split"),
        ("--test-fraction", "0", "cannot be split"),
        ("--image-size", "5", "The smallest are 15 x 15 pixels"),
        ("--resize-size", "10", "Nothing to crop"),
        ("--groups", "7", "groups=7"),
        ("--learning-rate", "cosin(0.1)", "Did you mean 'cosine'?"),
        ("--learning-rate", "dexp(0.1, levels=1)", "levels must be a whole number"),
        ("--dropout-by-layer", "drop6", "LAYER=RATE, each layer once"),
        ("--dropout-by-layer", "drop6=1.5", "drop6 must be a number in [0, 1.0)"),
        ("--dropout-by-layer", "fc6=0.5", "Unknown dropout layer 'fc6'"),
        ("--width", "0", "width must be positive"),
        ("--recipe", "fine-tune", "name their file with --weights"),
    ],
)
def test_a_senseless_value_is_refused(error, flag, value, expected):
    assert expected in error("train", flag, value)


def test_a_batch_must_be_a_multiple_of_the_replicas(error):
    message = error("train", "--global-batch-size", "9", "--replicas", "2")
    assert "batch of 9" in message and "multiple of 2" in message


# === Files of settings ===


@pytest.mark.parametrize(
    "content, expected",
    [
        ("{", "my.json is not JSON"),
        ('{"epoch": 3}', "Unknown setting 'epoch'. Did you mean 'epochs'?"),
        (
            '{"epochs": "ten"}',
            "my.json: epochs must be a whole number or null. Received: 'ten'",
        ),
        ('{"epochs": -1}', "epochs must be at least 1. Received: -1"),
        ('{"recipe": "digts"}', "Did you mean 'digits'?"),
    ],
)
@pytest.mark.parametrize("name", ["train", "inspect"])
def test_a_file_of_settings_that_is_wrong_is_named(
    error, here, name, content, expected
):
    (here / "my.json").write_text(content)
    assert expected in error(name, "--config", "my.json")


@pytest.mark.parametrize("name", ["train", "inspect"])
def test_a_file_of_settings_that_is_missing_is_named(error, here, name):
    assert "Cannot read my.json: No such file" in error(name, "--config", "my.json")
    (here / "my.json").mkdir()
    assert "Cannot read my.json: Is a directory" in error(name, "--config", "my.json")


# === Schedules to draw ===


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], "Nothing to draw: give --schedule, --recipe or --config."),
        (["--schedule", "0.1", "--recipe", "digits"], "Give only one of --schedule"),
        (["--recipe", "digts"], "Did you mean 'digits'?"),
        (["--schedule", "cosin(0.1)"], "Did you mean 'cosine'?"),
        (["--schedule", "0.1", "cosine(0.1"], "Received: 'cosine(0.1'"),
        (["--schedule", "0.1", "--out", "x.abc"], "Format 'abc' is not supported"),
    ],
)
def test_what_cannot_be_drawn_is_refused(error, arguments, expected):
    assert expected in error("inspect", *arguments)


# === Run directories ===


DATA = {
    "class_names": ["[cat]", "dog"],
    "preprocessing": {
        "image_size": 28,
        "resize_size": 28,
        "channels": 1,
        "mean": [128.0],
        "scale": 1 / 64,
    },
}


@pytest.fixture
def run_dir(here):
    """A run as it is before its first checkpoint."""
    path = here / "run"
    path.mkdir()
    (path / "config.json").write_text(get_recipe("digits").to_json())
    return path


@pytest.mark.parametrize(
    "options, expected",
    [([], "--resume"), (["--resume", "--seed", "5"], "its seed is 0, not 5")],
)
def test_another_run_is_neither_overwritten_nor_continued(
    error, run_dir, options, expected
):
    message = error("train", "--run-dir", "run", *options)
    assert "run already holds a run" in message or options
    assert expected in message


def test_a_broken_configuration_is_named(error, run_dir):
    (run_dir / "config.json").write_text("{")
    assert "run/config.json is not JSON" in error(
        "train", "--run-dir", "run", "--resume"
    )


def test_a_directory_with_other_files_is_left_alone(error, here):
    (here / "thesis").mkdir()
    (here / "thesis/chapter1.tex").write_text("irreplaceable")
    message = error("train", "--run-dir", "thesis")
    assert "thesis holds files that are not a run's" in message


@pytest.mark.parametrize("path", ["file", "file/run", "n" * 300])
def test_a_run_directory_that_cannot_be_written_is_refused(error, here, path):
    (here / "file").write_text("")
    assert f"directory {path} cannot be written" in error("train", "--run-dir", path)


@pytest.mark.parametrize("name", ["evaluate", "export", "predict"])
def test_a_run_without_a_model_says_so(error, run_dir, name):
    arguments = ["x.png"] if name == "predict" else []
    (run_dir / "data.json").write_text(json.dumps(DATA))
    assert "run has no trained model yet" in error(name, "run", *arguments)


# === Trained runs ===


@pytest.fixture
def trained(run_dir):
    """A run with a model that has learnt nothing."""
    model = keras_alexnet.build("alexnet_mini", input_shape=(28, 28, 1), classes=2)
    model.save(run_dir / "model.keras")
    (run_dir / "data.json").write_text(json.dumps(DATA))
    return run_dir


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["evaluate", "run", "--data", "folder:nowhere"], "No such folder"),
        (["evaluate", "run", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["predict", "run"], "No image files"),
        (["predict", "run", "x.png", "--top", "0"], "--top must be at least 1"),
        (["predict", "run", "x.png", "--batch-size", "-1"], "--batch-size must be at"),
    ],
)
def test_what_cannot_be_asked_of_a_run_is_refused(error, trained, arguments, expected):
    assert expected in error(*arguments)


def test_files_that_are_no_images_are_named_and_the_others_predicted(
    trained, here, command
):
    images(here / "[bold]good.png")
    (here / "garbage.png").write_text("no image")
    (here / "empty.png").write_bytes(b"")
    (here / "folder.png").mkdir()
    bad = ["garbage.png", "empty.png", "folder.png", "missing.png"]
    before = on_disk(here)
    code, printed, errors = command("predict", "run", *bad, "[bold]good.png")
    assert code == 2
    lines = errors.splitlines()
    assert len(lines) == 4
    for line, name in zip(lines, bad, strict=True):
        assert line.startswith(f"{name} cannot be read: ") and "{{" not in line
    # Brackets are no markup.
    assert "[bold]good.png" in printed and "[cat]" in printed
    assert on_disk(here) == before


def test_a_model_file_that_is_none_is_named(error, trained):
    (trained / "model.keras").write_text("no model")
    keras.utils.disable_interactive_logging()
    assert "model.keras" in error("evaluate", "run")


# === A search ===


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--objective", "val_acc"], "Available: val_loss, val_top1_error, val_top5"),
        (["--space", "recipes"], "Did you mean 'recipe'"),
        (["--tuner", "lucky"], "'bayesian', 'hyperband'"),
        (["--data", "folder:nowhere"], "No such folder: nowhere"),
        (["--ablation", "--seeds", "0"], "--seeds must be at least 1. Received: 0"),
        (["--ablation", "--epochs", "0"], "epochs must be at least 1. Received: 0"),
        (["--ablation", "--recipe", "digts"], "Did you mean 'digits'?"),
        (["--ablation", "--data", "folder:nowhere"], "No such folder: nowhere"),
        (["--ablation", "--config", "nowhere.json"], "Cannot read nowhere.json"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(error, arguments, expected):
    assert expected in error("tune", *arguments)


def test_files_of_a_search_that_make_no_sense_are_refused(error, here, command):
    content = '{"parameters": {"momentum": {"low": 0.9, "high": 0.5}}}'
    (here / "my.json").write_text(content)
    message = error("tune", "--space", "my.json")
    assert "my.json: momentum: low must be below high" in message
    (here / "lrm.json").write_text('{"norm": "lrm"}')
    code, _, printed = command("tune", "--ablation", "--config", "lrm.json")
    assert code == 2 and "Did you mean 'lrn'?" in printed and printed.count("\n") == 1


# === Evaluating other models and images ===


@pytest.fixture
def network(here):
    """A model file that knows three classes, and images of two of them."""
    model = keras_alexnet.build("alexnet_mini", input_shape=(28, 28, 3), classes=3)
    model.bind(
        Preprocessing(28, 32, 3, (120.0, 110.0, 100.0), 1 / 64),
        class_names=["cow", "ant", "bee"],
    )
    model.save(here / "network.keras")
    for name in ("ant", "bee"):
        for number in range(5):
            images(here / "photos" / name / f"{number}.png")
    return here


@pytest.mark.parametrize("views", ["1", "10"])
def test_a_model_file_is_judged_by_images_of_some_of_its_classes(
    network, command, views
):
    arguments = ["network.keras", "--data", "folder:photos", "--views", views]
    code, printed, errors = command("evaluate", *arguments, "--out", "judged")
    assert code == 0, errors
    assert "10 images" in printed and f"{views} view" in printed
    assert "cow" not in printed and "ant" in printed and "bee" in printed
    judged = json.loads((network / "judged/evaluation.json").read_text())
    counts = np.array(judged["confusion"])
    # All images are the same, so that one class is right and another wrong.
    np.testing.assert_array_equal(counts.sum(axis=1), [0, 5, 5])
    assert judged["views"] == int(views) and judged["top5_error"] == 0
    assert judged["balanced_accuracy"] == 1 - judged["top1_error"]
    assert [one["class"] for one in judged["classes"]] == ["cow", "ant", "bee"]
    assert judged["classes"][0]["recall"] is None
    assert "Warning: never predicted: " in printed
    for figure in ("confusion", "mistakes"):
        assert (network / f"judged/figures/{figure}.png").is_file()


def test_a_model_file_is_judged_by_images_of_its_classes_only(error, network):
    message = error("evaluate", "network.keras")
    assert "network.keras has no test images of its own" in message
    images(network / "photos" / "dog" / "1.png", network / "photos" / "dog" / "2.png")
    message = error("evaluate", "network.keras", "--data", "folder:photos")
    assert "Unknown class 'dog'" in message and "ant, bee, cow" in message


@pytest.mark.parametrize(
    "classes, expected",
    [
        (("ant", "bee"), "Unknown class 'ant'"),
        (("[cat]", "dog"), "larger than the network's input"),
    ],
)
def test_ten_views_need_known_classes_and_larger_images(
    error, trained, here, classes, expected
):
    for name in classes:
        for number in range(5):
            images(here / "others" / name / f"{number}.png")
    message = error("evaluate", "run", "--data", "folder:others", "--views", "10")
    assert expected in message and ("ant" not in classes or "[cat], dog" in message)
