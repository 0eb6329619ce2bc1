"""The names of ImageNet's classes, in both orders."""

import numpy as np
import pytest

import keras_alexnet
from keras_alexnet.images.preprocessing import MODES
from keras_alexnet.weights.labels import decode_predictions, imagenet_classes


@pytest.fixture(autouse=True)
def clean_slate():
    """Replaces the one for all tests: hardly any here makes a model."""


def certain(index):
    probabilities = np.zeros((1, 1000), np.float32)
    probabilities[0, index] = 1
    return probabilities


def test_there_are_1000_classes_by_wordnet_id():
    classes = imagenet_classes()
    ids = [wnid for wnid, _ in classes]
    assert len(set(ids)) == 1000 and ids == sorted(ids)
    assert all(len(wnid) == 9 and wnid[0] == "n" for wnid in ids)
    assert len({name for _, name in classes}) == 1000


@pytest.mark.parametrize(
    ("index", "wnid", "name"),
    # As keras.applications, Caffe and torchvision number and name them. Of the last
    # four keras.applications has two names twice; these are torchvision's (_meta.py).
    [
        (0, "n01440764", "tench"),
        (1, "n01443537", "goldfish"),
        (281, "n02123045", "tabby"),
        (282, "n02123159", "tiger_cat"),
        (285, "n02124075", "Egyptian_cat"),
        (508, "n03085013", "computer_keyboard"),
        (999, "n15075141", "toilet_tissue"),
        (134, "n02012849", "crane_bird"),
        (517, "n03126707", "crane"),
        (638, "n03710637", "maillot"),
        (639, "n03710721", "maillot_tank_suit"),
    ],
)
def test_the_order_of_wordnet_ids(index, wnid, name):
    assert decode_predictions(certain(index), top=1) == [[(wnid, name, 1.0)]]


# ILSVRC2012_ID in the development kit's meta.mat, as users of the kit report it: its
# first ten, others by MLDatasets.jl, and those of validation images 1 to 5, whose
# numbers the kit's ground truth lists.
DEVELOPMENT_KIT = {
    **{1: "n02119789", 2: "n02100735", 3: "n02110185", 4: "n02096294"},
    **{5: "n02102040", 6: "n02066245", 7: "n02509815", 8: "n02124075"},
    **{9: "n02417914", 10: "n02123394", 48: "n02441942", 158: "n02097474"},
    **{192: "n02100877", 469: "n01689811", 526: "n04355338", 569: "n04371774"},
    **{741: "n07717410", 768: "n07693725", 829: "n03775546", 919: "n03347037"},
    **{991: "n02815834", 992: "n09229709", 993: "n07697313", 994: "n03888605"},
    **{995: "n03355925", 490: "n01751748", 361: "n09193705", 171: "n02105855"},
    **{822: "n04263257", 297: "n03125729"},
}


def test_the_order_of_the_development_kit():
    classes = imagenet_classes("ilsvrc2012")
    assert {n: classes[n - 1][0] for n in DEVELOPMENT_KIT} == DEVELOPMENT_KIT
    decoded = decode_predictions(certain(0), top=1, order="ilsvrc2012")
    assert decoded == [[("n02119789", "kit_fox", 1.0)]]


def test_both_orders_are_of_the_same_classes():
    assert set(imagenet_classes("ilsvrc2012")) == set(imagenet_classes("wordnet"))


def test_the_likeliest_come_first_for_each_image():
    probabilities = np.zeros((2, 1000), np.float32)
    probabilities[0, [3, 7, 5]] = 0.5, 0.25, 0.125
    probabilities[1, 9] = 1
    first, second = keras_alexnet.decode_predictions(probabilities, top=3)
    names = [name for _, name, _ in first]
    assert names == ["tiger_shark", "cock", "electric_ray"]
    assert [score for _, _, score in first] == [0.5, 0.25, 0.125]
    assert second[0] == ("n01518878", "ostrich", 1.0)
    # Of equal scores the lower number.
    assert [wnid for wnid, _, _ in second[1:]] == ["n01440764", "n01443537"]


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 10), {}, r"\(batch, 1000\).*\(1, 10\)"),
        ((1000,), {}, r"\(batch, 1000\)"),
        ((1, 1000), {"top": 0}, "from 1 to 1000"),
        ((1, 1000), {"top": 1001}, "from 1 to 1000"),
        ((1, 1000), {"order": "ilsvrc"}, "Did you mean 'ilsvrc2012'"),
    ],
)
def test_what_cannot_be_decoded_is_said(shape, options, message):
    with pytest.raises(ValueError, match=message):
        decode_predictions(np.zeros(shape), **options)


@pytest.fixture(scope="module")
def model():
    return keras_alexnet.build("alexnet_mini", classes=1000)


def test_a_model_names_its_classes_in_its_own_order(model):
    model.bind(MODES["torch"], class_order="wordnet")
    assert model.decode_predictions(certain(0), top=1)[0][0][1] == "tench"
    model.bind(MODES["alexnet_2012"], class_order="ilsvrc2012")
    assert model.decode_predictions(certain(0), top=1)[0][0][1] == "kit_fox"
    assert model.metadata.class_names[:2] == ("kit_fox", "English_setter")


def test_a_model_with_classes_of_its_own_names_those():
    model = keras_alexnet.build("alexnet_mini", classes=3)
    with pytest.raises(ValueError, match="have no names"):
        model.decode_predictions(np.eye(3))
    model.bind(MODES["none"], class_names=["cat", "dog", "owl"])
    model.bind(weights="found on a disk")  # What is not given stays.
    assert model.metadata.preprocessing is MODES["none"]
    decoded = model.decode_predictions(np.eye(3)[[2]], top=1)
    assert decoded == [[("owl", "owl", 1.0)]]
    with pytest.raises(ValueError, match="2 class names for a model of 3 outputs"):
        model.bind(None, class_names=["cat", "dog"])
    with pytest.raises(ValueError, match="1000 class names for a model of 3 outputs"):
        model.bind(None, class_order="wordnet")
