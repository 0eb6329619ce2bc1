"""What the recipe for users' own images chooses, by what the images are."""

import dataclasses
import importlib
import io
import json
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_alexnet import TrainConfig, build, load_model
from keras_alexnet.data.opening import open_dataset
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.errors import UserError
from keras_alexnet.evaluation import Evaluator
from keras_alexnet.networks import open_network
from keras_alexnet.training import loop
from keras_alexnet.training.checkpoint import CheckpointStore
from keras_alexnet.training.choices import Facts, _files, choose, open_images
from keras_alexnet.training.hosts import Hosts
from keras_alexnet.training.loop import epoch_ends
from keras_alexnet.training.run_directory import RunDirectory
from keras_alexnet.training.train import train

train_module = importlib.import_module("keras_alexnet.training.train")
CIFAR = Facts(images=50_000, side=32, imbalance=1.0, characters=False)


def chosen(facts=CIFAR, **settings):
    return choose(TrainConfig(recipe="images", data="folder:x", **settings), facts)[0]


def test_folders_are_learnt_by_the_recipe_for_images_and_digits_by_their_own():
    assert TrainConfig(data="folder:x").recipe == "images"
    assert TrainConfig(data="digits").recipe == "digits"


def test_what_is_not_given_is_chosen_with_one_line_of_reason_each():
    config, reasons = choose(TrainConfig(data="folder:x"), CIFAR)
    assert config.is_complete
    assert (config.architecture, config.image_size) == ("alexnet_small", 32)
    assert (config.global_batch_size, config.epochs) == (128, 20)
    changed = {line.split()[0] for line in reasons}
    before = dataclasses.asdict(TrainConfig(data="folder:x"))
    after = dataclasses.asdict(config)
    assert changed == {name for name in after if after[name] != before[name]}
    assert choose(TrainConfig(data="folder:x"), CIFAR) == (config, reasons)


def test_what_is_given_stays():
    given = {
        "architecture": "alexnet_mini",
        "epochs": 3,
        "horizontal_flip": True,
        "learning_rate": "0.01",
        "class_weights": "none",
    }
    facts = dataclasses.replace(CIFAR, imbalance=9.0, characters=True)
    config = chosen(facts, **given)
    assert {name: getattr(config, name) for name in given} == given


@pytest.mark.parametrize(
    "facts, expected",
    [
        ({"images": 100}, {"global_batch_size": 32, "epochs": 100, "zoom": 0.1}),
        ({"images": 2_000_000}, {"epochs": 15}),
        ({"side": 8}, {"architecture": "alexnet_small", "image_size": 32}),
        ({"side": 64}, {"architecture": "alexnet_small", "image_size": 64}),
        ({"side": 400}, {"architecture": "alexnet_bn", "image_size": None}),
        (
            {"side": 400, "images": 900},
            {"architecture": "alexnet_small", "image_size": 96},
        ),
        ({"characters": True}, {"horizontal_flip": False}),
        ({"imbalance": 2.0}, {"class_weights": "balanced"}),
    ],
)
def test_choices_follow_from_the_facts(facts, expected):
    config = chosen(dataclasses.replace(CIFAR, **facts))
    assert {name: getattr(config, name) for name in expected} == expected


def test_other_recipes_leave_nothing_to_be_chosen():
    assert TrainConfig(recipe="alexnet-2012", data="folder:x").is_complete
    with pytest.raises(UserError, match="epochs is chosen .* fine-tune only"):
        TrainConfig(recipe="caffe", epochs=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty light and ten dark noisy images of 20 pixels."""
    path = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, count, level in (("dark", 10, 60), ("light", 40, 180)):
        (path / name).mkdir()
        for number in range(count):
            pixels = np.clip(rng.normal(level, 20, (20, 24, 3)), 0, 255)
            image = Image.fromarray(pixels.astype("uint8"))
            image.save(path / name / f"{number}.png")
    return path


def test_facts_are_those_of_the_training_images(folder):
    dataset = open_dataset(
        f"folder:{folder}",
        seed=0,
        test_fraction=0.2,
        validation_fraction=0.1,
        channels=None,
    )
    facts = Facts.of(dataset)
    counts = np.bincount(dataset.train.labels)
    assert facts == Facts(counts.sum(), 20, counts[1] / counts[0], False)


def test_images_that_cannot_be_read_have_no_size_and_stop_nothing(folder, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no image")
    files = [*(folder / "dark").iterdir(), damaged, tmp_path / "missing.png"]
    rows = [f"{file},{'ab'[n % 2]}" for n, file in enumerate(files)]
    (tmp_path / "images.csv").write_text("\n".join(["path,label", *rows]))
    config = TrainConfig(data=f"csv:{tmp_path / 'images.csv'}")
    assert Facts.of(open_images(config)).side == 20


def test_a_folder_needs_no_setting(folder, tmp_path, capsys):
    # Of six seeds four learn it all within ten epochs.
    config = TrainConfig(data=f"folder:{folder}", width=0.1, epochs=10, seed=1)
    result = train(config, tmp_path / "run")
    assert "class_weights balanced: the largest class has 4" in capsys.readouterr().out
    assert result.metrics["top1_error"] < 0.2
    written = TrainConfig.from_file(tmp_path / "run" / "config.json")
    assert written.is_complete and written.architecture == "alexnet_small"
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (data["train"], data["validation"], data["test"]) == (36, 4, 10)
    assert data["choices"][0].startswith("architecture alexnet_small: ")


def test_the_best_epoch_by_the_validation_images_becomes_the_model(folder, tmp_path):
    settings = {"data": f"folder:{folder}", "width": 0.1, "epochs": 4}
    # Learns for an epoch, and then unlearns.
    rate = "piecewise((0.05, 30), (0.5,))"
    config = TrainConfig(**settings, learning_rate=rate, clip_norm=100.0)
    result = train(config, tmp_path / "run")
    errors = [row["val_top1_error"] for row in result.history]
    kept = json.loads((tmp_path / "run" / "result.json").read_text())["kept_step"]
    assert kept == result.history[int(np.argmin(errors))]["step"]


def test_steps_may_stand_in_for_epochs():
    assert epoch_ends(100, 10, 7, steps=25) == [10, 20, 25]
    assert epoch_ends(100, 10, 7, steps=20) == [10, 20]
    assert epoch_ends(100, 10, 7, steps=3) == [3]


def test_minutes_become_steps_that_are_written_down_and_resumed(
    folder, tmp_path, monkeypatch
):
    # Steps that take long are few, whatever this machine does.
    monkeypatch.setattr(loop, "_seconds_per_step", lambda *_: 8.0)
    config = TrainConfig(
        data=f"folder:{folder}", width=0.1, minutes=3.0, global_batch_size=8
    )
    result = train(config, tmp_path / "run", until_epoch=1)
    written = TrainConfig.from_file(tmp_path / "run" / "config.json")
    assert 5 < written.steps <= 180 / 8
    result = train(config, tmp_path / "run", resume=True)
    assert result.history[-1]["step"] == written.steps
    assert TrainConfig.from_file(tmp_path / "run" / "config.json") == written


@pytest.mark.parametrize("batches", [1, 2, 4, 50])
def test_steps_are_timed_as_far_as_there_are_batches(batches):
    hosts = Hosts.of(tf.distribute.get_strategy())
    taken = []

    def train_step(batch):
        taken.append(batch)
        time.sleep(0.2)
        return ({"loss": 0.0},)

    seconds = loop._seconds_per_step(train_step, iter(range(batches)), hosts)
    assert seconds >= 0.2 and taken == list(range(len(taken)))
    # Steps of 0.2 s at least: ten fill the time, after two that warm up.
    assert len(taken) == batches if batches < 5 else 5 <= len(taken) <= 12


def test_only_what_was_left_to_be_decided_is_taken_from_the_run(tmp_path):
    run = RunDirectory(tmp_path)
    with run.claimed(chosen(minutes=5.0).updated({"steps": 100, "epochs": 3})):
        pass
    # As it was asked for.
    asked = TrainConfig(recipe="images", data="folder:x", minutes=5.0)
    assert {"architecture", "image_size", "steps"} <= set(asked.left_open)
    run.check(asked, resume=True)
    for change in ({"architecture": "alexnet_bn"}, {"minutes": None}):
        with pytest.raises(UserError, match="holds another run"):
            run.check(asked.updated(change), resume=True)
    # Of other recipes an input size that is not given is the architecture's.
    other = RunDirectory(tmp_path / "other")
    with other.claimed(TrainConfig(recipe="caffe", image_size=64)):
        pass
    with pytest.raises(UserError, match="another run: its image_size is 64"):
        other.check(TrainConfig(recipe="caffe"), resume=True)


def test_a_run_whose_checkpoints_are_gone_keeps_its_last_weights(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(CheckpointStore, "load", lambda *_: None)
    monkeypatch.setattr(train_module, "best_step", lambda history: 1)
    result = train(
        TrainConfig(data=f"folder:{folder}", width=0.1, epochs=2), tmp_path / "run"
    )
    assert "the last weights become the model" in capsys.readouterr().out
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["kept_step"] == result.history[-1]["step"]
    assert (tmp_path / "run" / "model.keras").is_file()


def test_balanced_classes_count_alike(folder, tmp_path):
    from keras_alexnet.training.preparation import make_class_weights

    config = TrainConfig(data=f"folder:{folder}", class_weights="balanced")
    dataset = open_dataset(
        f"folder:{folder}",
        seed=0,
        test_fraction=0.2,
        validation_fraction=0.0,
        channels=None,
    )
    # As scikit-learn's compute_class_weight: images / (classes * images of the class).
    assert make_class_weights(config, dataset) == (40 / (2 * 8), 40 / (2 * 32))
    unknown = dataclasses.replace(dataset.train, labels=None)
    dataset = dataclasses.replace(dataset, splits={"train": unknown})
    with pytest.raises(UserError, match="labels that are known before"):
        make_class_weights(config, dataset)


def test_training_ends_when_the_validation_error_no_longer_falls(folder, tmp_path):
    config = TrainConfig(
        data=f"folder:{folder}",
        **{"architecture": "alexnet_mini", "width": 0.1, "epochs": 9},
        **{"learning_rate": "1e-9", "patience": 2},
    )
    result = train(config, tmp_path / "run")
    assert len(result.history) == 3
    assert train(config, tmp_path / "run", resume=True).finished_before
    with pytest.raises(UserError, match="patience needs validation images"):
        train(config.updated({"validation_fraction": 0.0}), tmp_path / "other")


def test_smoothed_labels_give_the_loss_of_their_formula(folder, tmp_path):
    config = TrainConfig(
        data=f"folder:{folder}",
        **{"architecture": "alexnet_mini", "width": 0.1, "image_size": 28},
        **{"learning_rate": "1e-9", "dropout": "0", "precision": "float32"},
        **{"horizontal_flip": False, "crop_padding": 0, "zoom": 0.0, "steps": 1},
        **{"resize_size": 28, "class_weights": "none", "label_smoothing": 0.2},
        global_batch_size=36,
    )
    loss = train(config, tmp_path / "run").history[0]["loss"]
    model, split = (
        load_model(tmp_path / "run" / "model.keras"),
        open_images(config).train,
    )
    images = [np.asarray(Image.open(io.BytesIO(file))) for file in _files(split)]
    outputs = np.asarray(model(model.preprocess(np.stack(images))), np.float64)
    labels = 0.8 * np.eye(2)[split.labels] + 0.2 / 2
    assert loss == pytest.approx(-(labels * np.log(outputs)).sum(1).mean(), rel=1e-5)


def test_moving_averages_are_evaluated_kept_and_resumed(folder, tmp_path):
    config = TrainConfig(
        data=f"folder:{folder}",
        **{"architecture": "alexnet_mini", "width": 0.1, "epochs": 4, "keep": "last"},
        **{"learning_rate": "0.01", "ema": 0.9, "precision": "float32"},
    )
    straight = train(config, tmp_path / "straight")
    train(config, tmp_path / "paused", until_epoch=2)
    paused = open_network(tmp_path / "paused", checkpoint="last")
    resumed = train(config, tmp_path / "paused", resume=True)
    assert resumed.history == straight.history
    assert resumed.metrics == straight.metrics
    # As of the history, which is that of the averages.
    split = open_images(config)
    for model, row in (
        (paused, straight.history[1]),
        (load_model(tmp_path / "straight" / "model.keras"), straight.history[3]),
    ):
        preprocessing = model.metadata.preprocessing
        batches = evaluation_batches(split.validation, preprocessing, 8)
        metrics = Evaluator(model)(batches).metrics()
        assert metrics["loss"] == pytest.approx(row["val_loss"], rel=1e-5)


def test_weights_choose_fine_tuning_with_their_architecture_and_size(folder, tmp_path):
    own = build("alexnet_mini", input_shape=(32, 32, 3), classes=7)
    own.save(tmp_path / "own.keras")
    data = {"data": f"folder:{folder}", "weights": str(tmp_path / "own.keras")}
    config = TrainConfig(**data, epochs=1)
    assert config.recipe == "fine-tune"
    train(config, tmp_path / "run")
    written = TrainConfig.from_file(tmp_path / "run" / "config.json")
    assert (written.architecture, written.image_size) == ("alexnet_mini", 32)
    assert written.class_weights == "balanced" and written.keep == "best"
    assert train(config, tmp_path / "run", resume=True).finished_before
    assert written.rate_multipliers == ("fc8=10",)
    # Layers that the file does not have begin anew, too.
    build("alexnet_owt", include_top=False).save_weights(tmp_path / "own.weights.h5")
    facts = Facts(images=40, side=20, imbalance=1.0, characters=False)
    beheaded = TrainConfig(**{**data, "weights": str(tmp_path / "own.weights.h5")})
    chosen, _ = choose(beheaded, facts)
    assert (chosen.architecture, chosen.image_size) == ("alexnet_owt", 112)
    photographs = dataclasses.replace(facts, side=300)
    assert choose(beheaded, photographs)[0].image_size == 224
    assert chosen.rate_multipliers == ("fc6=10", "fc7=10", "fc8=10")
    given = beheaded.updated({"rate_multipliers": ("fc7=3",)})
    assert choose(given, facts)[0].rate_multipliers == ("fc7=3",)
    # This network has neither fc6 nor fc7.
    build("alexnet_small", classes=7).save(tmp_path / "small.keras")
    small = TrainConfig(**{**data, "weights": str(tmp_path / "small.keras")})
    chosen, _ = choose(small, facts)
    assert chosen.architecture == "alexnet_small"
    assert chosen.rate_multipliers == ("fc8=10",)
    # What is given stays.
    scratch = TrainConfig(**data, recipe="images", architecture="alexnet_small")
    assert scratch.recipe == "images" and scratch.architecture == "alexnet_small"
