"""Features of layers, of a batch and of many images."""

import contextlib
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image

import keras_alexnet
from keras_alexnet import features
from keras_alexnet.architectures import get_architecture, list_architectures
from keras_alexnet.errors import UserError
from keras_alexnet.export.saved_model import export_saved_model
from keras_alexnet.features import extraction, feature_extractor
from keras_alexnet.features.extraction import extract_features, parse_reduction
from keras_alexnet.images.preprocessing import get_preprocessing

TAPPED = ["relu1", "relu2", "relu3", "relu4", "relu5", "fc6", "fc7"]


@pytest.fixture(autouse=True)
def clean_slate():
    """Replaces the one for all tests, which clears more than these few models need."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = keras_alexnet.build("alexnet_mini")
    model.bind(get_preprocessing("torch", image_size=28, resize_size=32))
    return model


@pytest.fixture
def folder(tmp_path):
    """Seven images of several formats and sizes, and three files that are none."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(7):
        pixels = rng.integers(0, 256, (20 + 3 * index, 40, 3), np.uint8)
        place = folder / "sub" if index % 2 else folder
        Image.fromarray(pixels).save(place / f"{index}.{'png' if index < 4 else 'bmp'}")
    (folder / "0-broken.jpg").write_bytes(b"\xff\xd8 no image")
    (folder / "sub" / "empty.png").touch()
    whole = (folder / "0.png").read_bytes()
    (folder / "z-cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not an image, and not said to be one")
    return folder


def one_by_one(model, layer, pixels):
    """Runs layer after layer, as the network does, up to one of them."""
    x = pixels
    for each in model.layers[1:]:
        x = each(x, training=False) if "drop" in each.name else each(x)
        if each.name == layer:
            return np.asarray(x)
    raise AssertionError(f"no {layer}")


def test_one_pass_shows_what_each_layer_makes(model):
    images = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype(np.float32)
    outputs = feature_extractor(model, TAPPED)(images)
    assert list(outputs) == TAPPED
    for name in TAPPED:
        expected = one_by_one(model, name, images)
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-5, atol=1e-6)


def test_dense_layers_are_linear_and_activations_are_not(model):
    images = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype(np.float32)
    outputs = feature_extractor(model, ["fc6", "relu6"])(images)
    assert np.min(outputs["fc6"]) < 0
    np.testing.assert_array_equal(outputs["relu6"], np.maximum(outputs["fc6"], 0))


def test_a_single_name_will_do_and_the_weights_are_shared(model):
    extractor = feature_extractor(model, "fc7")
    assert extractor.output["fc7"].shape == (None, 256)
    kernel = extractor.get_layer("fc7").kernel
    assert kernel is model.get_layer("fc7").kernel


def test_a_model_that_is_part_of_another_still_shows_its_own_layers(model):
    model(keras.Input((28, 28, 3)))
    extractor = feature_extractor(model, "relu5")
    assert extractor.inputs[0] is model.inputs[0]
    assert extractor.output["relu5"].shape == (
        None,
        *model.get_layer("relu5").output.shape[1:],
    )


# Small images leave nothing for hidden layers to do; the others are of another system.
OTHERS = {"alexnet_small", *list_architectures("cifar_*")}


@pytest.mark.parametrize("name", sorted({*list_architectures()} - OTHERS))
def test_every_architecture_has_the_stable_names(name):
    architecture = get_architecture(name)
    names = [spec.name for spec in architecture.features + architecture.top]
    for tapped in [*TAPPED, "fc8", *(f"conv{i}" for i in range(1, 6))]:
        assert names.count(tapped) == 1


def test_torchvision_names_follow_its_order_of_layers():
    # torchvision/models/alexnet.py: the modules of `features` and of `classifier`.
    kinds = "conv relu pool conv relu pool conv relu conv relu conv relu pool".split()
    kinds += "avgpool drop fc relu drop fc relu fc".split()
    found = [name.rstrip("0123456789") for name in features.TORCHVISION_LAYERS.values()]
    assert found == kinds
    lpips = ["features.1", "features.4", "features.7", "features.9", "features.11"]
    assert [features.TORCHVISION_LAYERS[name] for name in lpips] == TAPPED[:5]


def torchvision_shaped():
    """A narrow network with the layers of torchvision's, in its order."""
    x = inputs = keras.Input((63, 63, 3))
    for name in features.TORCHVISION_LAYERS.values():
        if name == "conv1":
            x = keras.layers.ZeroPadding2D(2, name="pad1")(x)
            x = keras.layers.Conv2D(4, 11, 4, name=name)(x)
        elif name.startswith("conv"):
            x = keras.layers.Conv2D(4, 3, padding="same", name=name)(x)
        elif name.startswith("relu"):
            x = keras.layers.ReLU(name=name)(x)
        elif name == "pool5":
            x = keras.layers.MaxPooling2D(2, 1, name=name)(x)
        elif name.startswith("pool"):
            x = keras.layers.MaxPooling2D(3, 2, name=name)(x)
        elif name == "avgpool":
            x = keras.layers.Identity(name=name)(x)
            x = keras.layers.Flatten(name="flatten")(x)
        elif name.startswith("drop"):
            x = keras.layers.Dropout(0.5, name=name)(x)
        else:
            x = keras.layers.Dense(5, name=name)(x)
    return keras_alexnet.AlexNet(inputs, x, name="torchvision_shaped")


def test_torchvision_names_are_understood_where_they_fit(model):
    extractor = feature_extractor(torchvision_shaped(), ["features.2", "classifier.5"])
    images = np.random.default_rng(0).normal(size=(1, 63, 63, 3)).astype(np.float32)
    net = torchvision_shaped()
    own = feature_extractor(net, ["pool1", "relu7"])
    own.set_weights(extractor.get_weights())
    outputs, expected = extractor(images), own(images)
    np.testing.assert_array_equal(outputs["features.2"], expected["pool1"])
    np.testing.assert_array_equal(outputs["classifier.5"], expected["relu7"])
    # A flattened row is counted as PyTorch counts it: by channel.
    maps = feature_extractor(net, ["pool5"])(images)["pool5"]
    row = feature_extractor(net, ["classifier.0"])(images)["classifier.0"]
    np.testing.assert_array_equal(row, np.moveaxis(maps, -1, 1).reshape(1, -1))
    # The 2012 network normalises in between; features.2 would be anybody's guess.
    with pytest.raises(ValueError, match="Unknown layer 'features.2'"):
        feature_extractor(model, ["features.2"])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["relu9"], "Unknown layer 'relu9'. Did you mean 'relu"),
        ([], "at least one"),
        (["fc7", "fc7"], "twice"),
    ],
)
def test_wrong_layers_are_refused(model, layers, message):
    with pytest.raises(ValueError, match=message):
        feature_extractor(model, layers)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_folder_becomes_rows_with_the_names_beside(
    model, folder, tmp_path, batch_size
):
    out = tmp_path / "features.npz"
    preprocessing = model.metadata.preprocessing
    extraction = extract_features(
        model, preprocessing, folder, ["pool5", "fc7"], out, batch_size=batch_size
    )
    expected_files = [f"{i}.png" for i in (0, 2)] + [f"{i}.bmp" for i in (4, 6)]
    expected_files += ["sub/1.png", "sub/3.png", "sub/5.bmp"]
    assert list(extraction.files) == expected_files
    skipped = dict(extraction.skipped)
    assert sorted(skipped) == ["0-broken.jpg", "sub/empty.png", "z-cut.png"]
    assert skipped["sub/empty.png"] == "the file is empty"
    assert "DecodeImage" not in skipped["z-cut.png"]

    with np.load(out) as arrays:
        assert sorted(arrays) == ["fc7", "files", "pool5", "skipped"]
        assert list(arrays["files"]) == expected_files
        assert sorted(arrays["skipped"]) == sorted(skipped)
        assert arrays["fc7"].shape == (7, 256) and arrays["fc7"].dtype == np.float32
        assert arrays["pool5"].shape == (7, 2, 2, 64)
        images = [np.asarray(Image.open(folder / file)) for file in expected_files]
        expected = feature_extractor(model, ["fc7"])(model.preprocess(images))
        np.testing.assert_allclose(arrays["fc7"], expected["fc7"], rtol=1e-4, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "features.npz",
        "features.npz.csv",
        "features.npz.json",
        "images",
    ]


@pytest.fixture
def stimuli(folder):
    """A list of the folder's images, in an order of its own, one of them twice."""
    rows = ["path,condition", '4.bmp,"b, c"', "z-cut.png,x", "sub/1.png,a"]
    (folder.parent / "list.csv").write_text(
        "\ufeff"
        + "\n".join([*rows, "4.bmp,again"])
        .replace("\n4", "\nimages/4")
        .replace("\nz", "\nimages/z")
        .replace("\nsub", "\nimages/sub"),
        encoding="utf-8",
    )
    return folder.parent / "list.csv"


@pytest.mark.parametrize("ending", ["npz", "npy", "h5"])
def test_a_list_keeps_its_order_and_columns(model, stimuli, tmp_path, ending):
    model.bind(weights="own", digest="sha256:12")
    out, expected = tmp_path / f"a.{ending}", model.metadata.preprocessing
    extract_features(model, expected, stimuli, ["fc7"], out, batch_size=2)
    files = ["images/4.bmp", "images/sub/1.png", "images/4.bmp"]
    if ending == "npz":
        with np.load(out) as arrays:
            values, names = arrays["fc7"], list(arrays["files"])
    elif ending == "npy":
        values, names = np.load(out), files
    else:
        with h5py.File(out) as file:
            values, names = file["fc7"][:], list(file["files"].asstr())
            assert list(file["skipped"].asstr()) == ["images/z-cut.png"]
    assert names == files and values.dtype == np.float32
    images = model.preprocess([Image.open(tmp_path / file) for file in files])
    expected = feature_extractor(model, ["fc7"])(images)["fc7"]
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    with open(f"{out}.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["path", "condition"],
            ["images/4.bmp", "b, c"],
            ["images/sub/1.png", "a"],
            ["images/4.bmp", "again"],
        ]
    about = json.loads(Path(f"{out}.json").read_text())
    digest = hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights()))
    assert about["values_digest"] == f"sha256:{digest.hexdigest()}"
    assert about["file_digest"] == "sha256:12" and about["layers"] == {"fc7": [256]}
    assert about["preprocessing"] == model.metadata.preprocessing.to_config()
    assert about["versions"]["keras"] == keras.__version__
    assert about["precision"] == ["float32"]
    assert about["skipped"][0][0] == "images/z-cut.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\na.png\n", "must name the column path.*Received: image"),
        ("path\n", "lists no images"),
        ("path,x\na.png\n", "Image 1 of .* must have a path, and a value"),
        ("\xff", "no CSV file in UTF-8"),
    ],
)
def test_what_is_no_list_is_named(model, tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        extraction.read_stimuli(tmp_path / "list.csv")


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_features_are_reduced_while_they_stream(
    model, folder, tmp_path, monkeypatch, ending
):
    def run(text):
        out = tmp_path / f"a.{ending}"
        extract_features(
            model,
            model.metadata.preprocessing,
            folder,
            ["pool5", "fc7"],
            out,
            batch_size=3,
            reduce=text,
            seed=3,
        )
        with np.load(out) if ending == "npz" else h5py.File(out) as arrays:
            return {name: arrays[name][:] for name in ("pool5", "fc7")}

    whole = {name: rows.reshape(7, -1) for name, rows in run(None).items()}
    for name, rows in run("pca(4)").items():
        centred = whole[name] - whole[name].mean(0)
        u, s, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
        expected = u[:, :4] * s[:4]
        expected *= np.sign((rows * expected).sum(0))  # Up to their signs.
        np.testing.assert_allclose(rows, expected, atol=1e-5 * s[0])
    for name, rows in run("projection(64)").items():
        d = whole[name].shape[1]
        matrix = parse_reduction("projection(64)", 3).fit_transform(np.eye(d))
        size = d**0.25 / 8
        assert set(np.unique(np.round(matrix / size, 6))) == {-1, 0, 1}
        assert np.mean(matrix != 0) == pytest.approx(d**-0.5, rel=0.2)
        np.testing.assert_allclose(rows, whole[name] @ matrix, rtol=1e-4, atol=1e-5)


def test_components_of_many_blocks_are_those_of_all(monkeypatch, tmp_path):
    monkeypatch.setattr(extraction, "BLOCK", 20)
    random = np.random.default_rng(0)
    values = 100 + random.normal(size=(110, 5)) @ random.normal(size=(5, 30))
    values = values.astype("<f4")
    with contextlib.ExitStack() as stack:
        rows = extraction._Rows(stack, tmp_path, parse_reduction("pca(5)"))
        for part in np.split(values, 11):
            rows.append("fc7", part)
        rows.finish("fc7")
        assert rows.count == 110 and rows.shape == (5,)
        found = np.concatenate([*rows.blocks(20)])
    u, s, _ = np.linalg.svd((values - values.mean(0)).astype(float), False)
    expected = (u * s)[:, :5]
    expected *= np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, expected, atol=1e-4 * s[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pca", "reduced by pca.k. or projection.k.. Received: 'pca'"),
        ("pca(0)", "Received: 'pca.0.'"),
        ("projection(300)", "fc7 has 256 features, fewer than 300"),
        ("pca(8)", "8 principal components of fc7 need as many images. Received: 7"),
    ],
)
def test_what_cannot_be_reduced_is_said(model, folder, tmp_path, text, message):
    expected, out = model.metadata.preprocessing, tmp_path / "a.npy"
    with pytest.raises(UserError, match=message):
        extract_features(model, expected, folder, ["fc7"], out, reduce=text)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


# Torchvision's convolutions are others' data.
DATA = Path(__file__).parents[2] / "shared" / "data"
DATA = Path(os.environ.get("KERAS_ALEXNET_TEST_DATA", DATA))
GENUINE = DATA / "torchvision_alexnet_conv.safetensors"


@pytest.fixture(scope="module")
def photographed():
    """torchvision's convolutions, random ones where they are not there, and an fc7."""
    keras.utils.set_random_seed(0)
    base = keras_alexnet.build(
        "alexnet_owt",
        include_top=False,
        weights=GENUINE if GENUINE.is_file() else None,
    )
    rows = keras.layers.Flatten()(base.output)
    model = keras_alexnet.AlexNet(
        base.input, keras.layers.Dense(64, name="fc7")(rows), name="photographed"
    )
    model.bind(get_preprocessing("torch"))
    return model


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_one_image_gives_the_same_features_whatever_it_comes_as(
    photographed, tmp_path, ending
):
    image = Image.fromarray(load_sample_image("china.jpg"))
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / f"a.{ending}"
    image.save(path)
    decoded = Image.open(path)
    prepared = photographed.preprocess(path)
    for other in (decoded, np.asarray(decoded)):
        np.testing.assert_array_equal(photographed.preprocess(other), prepared)
    fc7 = np.asarray(photographed(prepared))[0]

    def near(found, expected):
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(fc7).max()

    out, expected = tmp_path / "a.npy", photographed.metadata.preprocessing
    extract_features(photographed, expected, path.parent, ["fc7"], out)
    near(np.load(out)[0], fc7)
    names = [str(number) for number in range(64)]
    export_saved_model(photographed, tmp_path / "export", expected, names)
    exported = tf.saved_model.load(tmp_path / "export")
    found = exported.classify(tf.constant([path.read_bytes()]))
    best = np.argsort(-fc7)[:5]
    assert [name.decode() for name in found["labels"][0].numpy()] == [
        names[number] for number in best
    ]
    near(found["probabilities"][0], fc7[best])


# 25,088 numbers of relu1 an image: 200 MB of 2,000 images.
MEMORY = """
import resource, sys
import keras_alexnet
from keras_alexnet.features.extraction import extract_features
from keras_alexnet.images.preprocessing import get_preprocessing

model = keras_alexnet.build("alexnet_mini")
pixels = get_preprocessing("torch", image_size=28, resize_size=32)
for name in sys.argv[1:]:
    out = name.replace(".csv", ".h5")
    extract_features(model, pixels, name, ["relu1", "fc7"], out)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_images(model, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    lists = [tmp_path / f"{count}.csv" for count in (200, 2000)]
    for path in lists:
        path.write_text("path\n" + "a.png\n" * int(path.stem))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *map(str, lists)],
        capture_output=True,
        text=True,
        check=True,
    )
    few, many = map(int, done.stdout.split())
    written = lists[1].with_suffix(".h5").stat().st_size
    assert (many - few) * 1024 < written / 3, (few, many, written)


def test_all_images_of_a_folder_are_read_or_named(model, tmp_path):
    folder, image = tmp_path / "images", Image.new("RGB", (40, 30), "red")
    folder.mkdir()
    for name in ("a.webp", "b.tif"):
        image.save(folder / name)
    for name in ("c.avif", "d.heic"):
        (folder / name).write_bytes(b"\0\0\0\x20ftyp")
    os.mkfifo(folder / "e.png")
    out, expected = tmp_path / "a.npz", model.metadata.preprocessing
    extraction = extract_features(model, expected, folder, ["fc7"], out)
    assert extraction.files == ("a.webp", "b.tif")
    skipped = dict(extraction.skipped)
    assert "not a JPEG, PNG" in skipped["c.avif"] and "not a JPEG" in skipped["d.heic"]
    assert skipped["e.png"] == "not a regular file"


def test_nothing_is_left_of_what_is_terminated(model, folder, tmp_path, monkeypatch):
    def terminated(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(extraction.shutil, "copyfileobj", terminated)
    expected, out = model.metadata.preprocessing, tmp_path / "a.npz"
    with pytest.raises(SystemExit):
        extract_features(model, expected, folder, ["fc7"], out)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("where", "out", "message"),
    [
        ("nowhere", "a.npz", "No such folder or list"),
        ("images", "a.txt", "written as one of .npz"),
        ("images", "no/a.npz", "No such folder"),
        ("none", "a.npz", "has no images"),
        ("bad", "a.npz", "No image can be read; .*x.png: "),
    ],
)
def test_what_cannot_be_done_is_said(model, folder, tmp_path, where, out, message):
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=message):
        extract_features(
            model,
            model.metadata.preprocessing,
            tmp_path / where,
            ["fc7"],
            tmp_path / out,
        )
    assert not list(tmp_path.glob("*.np*")) and not list(tmp_path.glob(".a*"))
