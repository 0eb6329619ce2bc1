"""What each set of weights expects of images, against formulas in NumPy."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from image_sources import pixel_examples
from PIL import Image, ImageOps

import keras_alexnet
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.export.saved_model import export_saved_model, open_saved_model
from keras_alexnet.images.mean_image import MeanImage
from keras_alexnet.images.preprocessing import (
    MODES,
    Preprocessing,
    get_preprocessing,
    preprocess_input,
)

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
FORMULAS = {
    "caffe": lambda x: x[..., ::-1] - [104.0, 117.0, 123.0],
    "torch": lambda x: (x / 255 - MEAN) / STD,
    "alexnet_2012": lambda x: x - [127.23, 118.59, 103.45],
    "none": lambda x: x,
}


@pytest.fixture(autouse=True)
def clean_slate():
    """Replaces the one for all tests, which clears more than these few models need."""
    keras.utils.set_random_seed(0)


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def small(mode, **changes):
    return get_preprocessing(mode, image_size=28, resize_size=32, **changes)


# === preprocess_input ===


@pytest.mark.parametrize("mode", FORMULAS)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int32"])
def test_modes_follow_their_formulas(mode, dtype):
    x = pixels(2, 5, 7, 3).astype(dtype)
    before = x.copy()
    expected = FORMULAS[mode](x.astype(np.float64))
    for given in (x, tf.constant(x)):
        found = keras_alexnet.preprocess_input(given, mode)
        assert isinstance(found, np.ndarray) == isinstance(given, np.ndarray)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(x, before)


def test_torch_and_caffe_agree_with_keras_applications():
    x = pixels(2, 5, 7, 3).astype(np.float32)
    for mode in ("torch", "caffe"):
        # Keras's mean pixel for Caffe is VGG's: 103.939, 116.779, 123.68.
        expected = keras.applications.imagenet_utils.preprocess_input(
            x.copy(), data_format="channels_last", mode=mode
        )
        tolerance = {"torch": 1e-5, "caffe": 0.69}[mode]
        np.testing.assert_allclose(preprocess_input(x, mode), expected, atol=tolerance)


@pytest.mark.parametrize("mode", FORMULAS)
def test_channels_may_come_first(mode):
    x = pixels(2, 5, 7, 3)
    expected = preprocess_input(x, mode).transpose(0, 3, 1, 2)
    first = x.transpose(0, 3, 1, 2)
    for given in (first, tf.constant(first)):
        found = preprocess_input(given, mode, data_format="channels_first")
        np.testing.assert_array_equal(found, expected)


def test_it_can_be_a_part_of_a_model():
    inputs = keras.Input((28, 28, 3), dtype="uint8")
    model = keras.Model(inputs, preprocess_input(inputs, "caffe"))
    x = pixels(2, 28, 28, 3)
    np.testing.assert_array_equal(model(x), preprocess_input(x, "caffe"))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 5, 7, 3), {"mode": "cafe"}, "Did you mean 'caffe'"),
        ((2, 5, 7, 1), {}, "3 channels"),
        ((2, 3, 5, 7), {}, "channels_last"),
        ((7, 3), {}, "three axes"),
        ((2, 5, 7, 3), {"data_format": "last"}, "data_format must be"),
    ],
)
def test_wrong_inputs_are_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        preprocess_input(np.zeros(shape), **options)


# === Mean images ===


@pytest.mark.parametrize("size", [31, 32, 40])
def test_the_centre_of_a_mean_image_is_subtracted(size):
    mean = np.random.default_rng(1).normal(120, 30, (size, size, 3)).astype(np.float32)
    preprocessing = small("caffe", mean_image=mean)
    x = pixels(2, 28, 28, 3)
    offset = (size - 28) // 2
    centre = mean[offset : offset + 28, offset : offset + 28]
    expected = x[..., ::-1].astype(np.float32) - centre
    np.testing.assert_array_equal(preprocess_input(x, preprocessing), expected)
    found = tf.function(preprocessing.normalize)(tf.constant(x))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_mean_image_is_a_value():
    array = pixels(32, 32, 3)
    mean = MeanImage.from_array(array)
    assert mean == MeanImage.from_array(array.astype(np.float64))
    assert hash(mean) == hash(MeanImage.from_array(array.copy()))
    np.testing.assert_array_equal(mean.array(), array)
    assert mean != MeanImage.from_array(array[::-1])
    assert "data" not in repr(mean)


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        (np.zeros((27, 32, 3)), "does not cover images of 28 x 28"),
        (np.zeros((32, 32, 1)), "has 1 channels, not 3"),
        (np.zeros((32, 32)), "height, width, channels"),
        (np.full((32, 32, 3), np.nan), "not finite"),
        (np.array([[["a"]]]), "must be numbers"),
    ],
)
def test_wrong_mean_images_are_refused(mean, message):
    with pytest.raises(ValueError, match=message):
        small("caffe", mean_image=mean)


# === Resizing ===


def test_squashing_keeps_all_of_the_image_and_the_other_rule_its_shape():
    image = np.zeros((64, 128, 3), np.uint8)
    # Left, right and in between of a wide image: red, blue, green.
    image[:, :32, 0] = image[:, 32:96, 1] = image[:, 96:, 2] = 255
    squashed = small("caffe").resize(image).numpy()
    colours = squashed[16].argmax(-1)
    np.testing.assert_array_equal(colours, [0] * 8 + [1] * 16 + [2] * 8)
    shorter = small("alexnet_2012").resize(image).numpy()
    np.testing.assert_array_equal(shorter.argmax(-1), np.ones((32, 32)))


def by_torchvision(image, resize_size, size):
    """torchvision's Resize and CenterCrop, as they are written for PIL images."""
    width, height = image.size
    if width <= height:
        image = image.resize(
            (resize_size, int(resize_size * height / width)), Image.BILINEAR
        )
    else:
        image = image.resize(
            (int(resize_size * width / height), resize_size), Image.BILINEAR
        )
    left = int(round((image.size[0] - size) / 2.0))
    top = int(round((image.size[1] - size) / 2.0))
    return np.asarray(image.crop((left, top, left + size, top + size)), "float32")


@pytest.mark.parametrize("width, height", [(61, 40), (40, 61), (37, 37), (300, 91)])
def test_torchvisions_geometry_is_reproduced_to_a_grey_level(width, height, tmp_path):
    # Smooth, as photographs are: Pillow rounds to bytes between its two passes.
    coarse = Image.fromarray(pixels(height // 4 + 1, width // 4 + 1, 3))
    image = coarse.resize((width, height), Image.BICUBIC)
    expected = by_torchvision(image, 32, 28)
    found = small("torch").prepare(np.asarray(image)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.01)
    assert np.abs(found - expected).mean() < 0.5
    # A photograph's file, decoded as Pillow decodes it.
    image.save(tmp_path / "image.jpg", quality=90)
    with Image.open(tmp_path / "image.jpg") as file:
        expected = by_torchvision(file, 32, 28)
    encoded = tf.io.read_file(str(tmp_path / "image.jpg"))
    found = small("torch").prepare_file(encoded).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.01)


def test_squashing_follows_pillow():
    # A smooth picture: filters differ in their treatment of noise.
    y, x = np.mgrid[0:120, 0:90] / 20
    image = np.stack([np.sin(x + y), np.cos(x - y), np.sin(x * y / 8)], -1)
    image = np.round(127.5 + 120 * image).astype(np.uint8)
    pillow = Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)
    found = small("caffe").resize(image).numpy()
    np.testing.assert_allclose(found, np.asarray(pillow), atol=1.5)


def test_the_network_gets_the_centre_of_the_resized_image():
    image = pixels(32, 32, 3)
    found = get_preprocessing("none", image_size=27, resize_size=32)(image)
    # (32 - 27) // 2 = 2, as Caffe rounds too.
    np.testing.assert_array_equal(found[0], image[2:29, 2:29].astype(np.float32))


# === Images of any kind ===


def test_images_of_any_size_and_kind_become_one_batch():
    preprocessing = small("caffe")
    grey = pixels(40, 40)
    rgba = np.concatenate([pixels(32, 32, 3), np.zeros((32, 32, 1), np.uint8)], -1)
    palette = Image.fromarray(pixels(50, 50, 3)).quantize(8)
    images = [pixels(64, 48, 3), grey, grey[..., None], rgba, palette]
    batch = preprocessing([*images, tf.constant(images[0])])
    assert batch.shape == (6, 28, 28, 3) and batch.dtype == tf.float32
    one = [preprocessing(image)[0] for image in images]
    np.testing.assert_array_equal(batch[:5], one)
    np.testing.assert_array_equal(batch[0], batch[5])
    np.testing.assert_array_equal(batch[1], batch[2])
    # Grey is grey: the same in all channels, but for their means.
    np.testing.assert_allclose(
        batch[1] + [104.0, 117.0, 123.0], np.repeat((batch[1] + 104)[..., :1], 3, -1)
    )
    # All of it transparent: as of a file, on white.
    white = np.full((32, 32, 3), 255, np.uint8)
    np.testing.assert_array_equal(batch[3], preprocessing(white)[0])
    np.testing.assert_array_equal(batch[4], preprocessing(palette.convert("RGB"))[0])


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation, mode", [(1, "caffe"), (6, "torch")])
def test_a_photograph_is_the_same_as_file_pil_image_array_and_tensor(
    kind, orientation, mode, tmp_path
):
    preprocessing, path = small(mode), tmp_path / f"image.{kind}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    coarse = Image.fromarray(pixels(9, 7, 3))
    coarse.resize((61, 45), Image.BICUBIC).save(path, exif=exif)
    with Image.open(path) as image:
        array = np.asarray(ImageOps.exif_transpose(image))
        found = preprocessing([path, str(path), image, array, tf.constant(array)])
    encoded = tf.io.read_file(str(path))
    prepared = preprocessing.normalize(preprocessing.prepare_file(encoded))
    mapped = tf.data.Dataset.from_tensors(array).map(preprocessing).get_single_element()
    batch = tf.function(preprocessing)(tf.constant(array[None]))
    for other in (*found, prepared):
        np.testing.assert_array_equal(other, found[0])
    for other in (mapped[0], batch[0]):  # A graph divides by multiplying.
        np.testing.assert_allclose(other, found[0], rtol=0, atol=2e-6 * 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_of_16_bits_the_upper_8_are_seen(channels, tmp_path):
    preprocessing = Preprocessing(28, 28, channels, (0.0,) * channels, 1.0)
    deep = np.random.default_rng(0).integers(0, 2**16, (28, 28), np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    expected = np.repeat((deep >> 8)[..., None], channels, -1)
    with Image.open(tmp_path / "deep.png") as image:
        assert image.mode.startswith("I")
        images = [image, image.convert("I"), deep, tmp_path / "deep.png"]
        for found in preprocessing(images):
            np.testing.assert_array_equal(found, expected)


def test_a_network_of_grey_images_takes_colours_by_their_luminance():
    preprocessing = Preprocessing(28, 28, 1, (0.0,), 1.0)
    image = pixels(28, 28, 3)
    expected = np.round(image @ [0.299, 0.587, 0.114])[None, ..., None]
    np.testing.assert_array_equal(preprocessing(image), expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no images"),
        ([np.zeros((4, 4, 2))], "1, 3 or 4 channels"),
        ([np.zeros((0, 4, 3))], "1, 3 or 4 channels"),
        ([np.zeros(4)], "height, width"),
        (np.zeros((4, 4, 3), complex), "must be numbers"),
        (tf.constant("a.jpg"), "prepare_file"),
    ],
)
def test_what_is_no_image_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        small("torch")(images)


def test_pixels_between_0_and_1_are_probably_a_mistake():
    with pytest.warns(UserWarning, match="scale of 0-255"):
        small("torch")(pixels(32, 32, 3) / 255)


# === The value ===


@pytest.mark.parametrize("mode", MODES)
def test_it_survives_json(mode):
    for preprocessing in (MODES[mode], small(mode, mean_image=pixels(30, 30, 3))):
        config = json.loads(json.dumps(preprocessing.to_config()))
        restored = Preprocessing.from_config(config)
        assert restored == preprocessing and hash(restored) == hash(preprocessing)


def test_what_earlier_runs_wrote_is_understood():
    config = {"image_size": 28, "resize_size": 32, "channels": 1, "mean": [9.0]}
    restored = Preprocessing.from_config({**config, "scale": 0.5})
    assert restored == Preprocessing(28, 32, 1, (9.0,), 0.5)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {**MODES["torch"].to_config(), "more": 1},
        {**MODES["torch"].to_config(), "mean_image": {"data": "*"}},
        {**MODES["torch"].to_config(), "mean_image": {"height": 1}},
    ],
)
def test_what_is_no_preprocessing_is_refused(config):
    with pytest.raises(ValueError):
        Preprocessing.from_config(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize_rule": "crop"}, "shorter_side, torchvision, squash"),
        ({"channel_order": "gbr"}, "rgb, bgr"),
        ({"channels": 2}, "1 or 3"),
        ({"channels": 1, "channel_order": "bgr"}, "three channels"),
        ({"mean": (1.0,)}, "for each of 3 channels"),
        ({"std": (1.0, 0.0, 1.0)}, "not zero"),
        ({"scale": float("nan")}, "finite"),
        ({"image_size": 0}, "positive"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        get_preprocessing("none", **changes)


def test_another_input_size_sees_as_much_of_the_image():
    other = MODES["torch"].with_image_size(112)
    assert (other.image_size, other.resize_size) == (112, 128)
    assert other.std == MODES["torch"].std
    assert MODES["torch"].with_image_size(224) is MODES["torch"]
    mean = pixels(32, 32, 3)
    assert small("caffe", mean_image=mean).with_image_size(20).mean_image is not None
    larger = small("caffe", mean_image=mean).with_image_size(56)
    assert larger.mean_image is None
    np.testing.assert_allclose(larger.mean, mean.mean((0, 1)))


# === Models, pipelines, exports ===


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras_alexnet.build("alexnet_mini", name="tiny")


@pytest.mark.parametrize("mode", MODES)
def test_a_model_keeps_what_its_weights_expect(model, mode, tmp_path):
    preprocessing = small(mode, mean_image=pixels(32, 32, 3))
    names = [f"class {index}" for index in range(10)]
    model.bind(preprocessing, class_names=names, weights="a test")
    model.save(tmp_path / "model.keras")
    loaded = keras_alexnet.load_model(tmp_path / "model.keras")
    assert type(loaded) is keras_alexnet.AlexNet
    assert loaded.metadata == model.metadata
    assert loaded.metadata.class_names == tuple(names)
    images = [pixels(50, 40, 3), pixels(30, 60, 3)]
    batch = model.preprocess(images)
    np.testing.assert_array_equal(loaded.preprocess(images), batch)
    np.testing.assert_array_equal(batch, preprocessing(images))
    np.testing.assert_array_equal(loaded(batch), model(batch))


def test_a_model_without_published_weights_says_so():
    model = keras_alexnet.build("alexnet_mini")
    with pytest.raises(ValueError, match="preprocess_input, or say what.*bind"):
        model.preprocess(pixels(32, 32, 3))
    known = model.get_config()["keras_alexnet_metadata"]
    assert known["architecture"] == "alexnet_mini"
    assert known["preprocessing"] is None


def test_clones_and_configs_work_with_it(model):
    model.bind(small("torch"), class_names="abcdefghij")
    clone = keras.models.clone_model(model)
    # Its weights are new, and expect nothing yet.
    assert clone.metadata.preprocessing is None
    rebuilt = keras_alexnet.AlexNet.from_config(json.loads(json.dumps(config(model))))
    assert rebuilt.metadata == model.metadata
    rebuilt.set_weights(model.get_weights())
    x = model.preprocess(pixels(32, 32, 3))
    np.testing.assert_array_equal(rebuilt(x), model(x))


def config(model):
    return keras.saving.serialize_keras_object(model)["config"]


def test_channels_first_is_served_where_keras_is_set_so(model, monkeypatch):
    model.bind(small("torch"))
    last = model.preprocess(pixels(32, 32, 3))
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    first = model.preprocess(pixels(32, 32, 3))
    np.testing.assert_array_equal(first, np.transpose(last, (0, 3, 1, 2)))


@pytest.mark.parametrize("mode", ["caffe", "torch"])
def test_pipelines_and_exports_apply_it(model, mode, tmp_path):
    preprocessing = small(mode, mean_image=None)
    preprocessing = dataclasses.replace(
        preprocessing, mean_image=pixels(32, 32, 3) * preprocessing.pixel_max / 255
    )
    images = pixels(3, 40, 50, 3)
    examples = pixel_examples(images)
    ((batch, _, _),) = evaluation_batches(examples, preprocessing, 3)
    np.testing.assert_allclose(batch, preprocessing(images), rtol=1e-5, atol=1e-5)
    export_saved_model(model, tmp_path, preprocessing, list("abcdefghij"))
    cropped = np.stack([preprocessing.prepare(image) for image in images])
    found = open_saved_model(tmp_path)(cropped)
    expected = model(preprocessing.normalize(cropped))
    np.testing.assert_allclose(found, expected, atol=1e-5)
