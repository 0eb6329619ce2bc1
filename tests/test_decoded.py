"""Decoded images in files: written, read, resumed, and read around damage."""

import json
import zlib

import numpy as np
import pytest
from image_sources import opened, picture

from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.pipeline import evaluation_batches, training_batches
from keras_alexnet.images.preprocessing import Preprocessing

SIDE, EACH = 8, 10
SMALL = Preprocessing(6, SIDE, 3, (9.0,) * 3, 1.0)


@pytest.fixture
def written(tmp_path, command):
    """A folder of decoded images; and what they were made of, by label."""
    images = {0: [], 1: []}
    for label, name in enumerate(["cat", "dog"]):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(EACH):
            image = picture(100 * label + number, size=(SIDE, SIDE))
            image.save(tmp_path / "photos" / name / f"{number}.png")
            images[label].append(np.asarray(image).tobytes())
    (tmp_path / "photos" / "cat" / "empty.jpg").write_bytes(b"")
    out = tmp_path / "decoded"
    flags = ["--to-tfrecord", out, "--decoded", SIDE, "--shards", 2]
    code, printed, _ = command("data", f"folder:{tmp_path / 'photos'}", *flags)
    assert code == 0 and f"decoded:{out}" in printed and "empty.jpg" in printed
    return out, images


def train(examples, first=0, last=6, **options):
    batches = training_batches(
        examples,
        SMALL,
        Augmentation(6, horizontal_flip=True),
        batch_size=5,
        seed=3,
        first_step=first,
        last_step=last,
        **options,
    )
    return list(batches.as_numpy_iterator())


def test_files_are_as_described_and_read_as_they_are(written):
    out, images = written
    dataset = opened(f"decoded:{out}")
    assert dataset.class_names == ("cat", "dog") and dataset.channels == 3
    seen = []
    for name in json.loads((out / "index.json").read_text())["checksums"]:
        content = (out / name).read_bytes()
        count = len(content) // (SIDE * SIDE * 3 + 8)
        pixels, rest = (
            content[: -8 * count],
            np.frombuffer(content[-8 * count :], "<u4"),
        )
        for number, part in enumerate(np.split(np.frombuffer(pixels, "u1"), count)):
            label = rest[number].tobytes()
            assert zlib.crc32(part.tobytes() + label) == rest[count + number]
            seen.append((int(rest[number]), part.tobytes()))
    assert sorted(seen) == [(k, image) for k in (0, 1) for image in sorted(images[k])]
    split = dataset.train
    ((found, labels, weights),) = evaluation_batches(split, SMALL, len(split))
    np.testing.assert_array_equal(labels, split.labels)
    whole = {zlib.crc32(image): image for images in images.values() for image in images}
    for image in found.numpy() + 9:
        assert any(
            (np.frombuffer(one, "u1").reshape(SIDE, SIDE, 3)[1:7, 1:7] == image).all()
            for one in whole.values()
        )


def test_training_starts_anywhere_and_damage_moves_nothing(written):
    out, _ = written
    whole = train(opened(f"decoded:{out}").train)
    late = train(opened(f"decoded:{out}").train, first=4)
    for batch, same in zip(late, whole[4:], strict=True):
        for part, like in zip(batch, same, strict=True):
            np.testing.assert_array_equal(part, like)
    file = next((out / "train").iterdir())
    content = bytearray(file.read_bytes())
    content[SIDE * SIDE * 3 + 5] ^= 1  # Of the second image.
    file.write_bytes(content)
    damaged = opened(f"decoded:{out}")
    lost = 0
    for batch, same in zip(train(damaged.train), whole, strict=True):
        kept = batch[2] > 0
        lost += (~kept).sum()
        assert not batch[0][~kept].any()
        for part, like in zip(batch, same, strict=True):
            np.testing.assert_array_equal(part[kept], like[kept])
    assert 1 <= lost <= 2 and [name for name, _ in damaged.skipped] == [f"{file}:1"]


def test_networks_of_other_sizes_read_them_too(written):
    dataset = opened(f"decoded:{written[0]}")
    other = Preprocessing(4, 4, 3, (0.0,) * 3, 1.0)
    ((images, labels, weights),) = evaluation_batches(
        dataset.test, other, len(dataset.test)
    )
    assert weights.numpy().all() and not len(dataset.skipped)
    exact, *_ = dataset.test.pixels.take(np.arange(len(dataset.test)))
    for image, pixels in zip(images, exact, strict=True):
        np.testing.assert_allclose(image, other.resize(pixels), atol=1e-4)


def test_what_is_cut_off_or_no_such_folder_is_refused(tmp_path, written, command):
    out, _ = written
    file = next((out / "train").iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is cut off"):
        opened(f"decoded:{out}")
    with pytest.raises(ValueError, match="holds no decoded images"):
        opened(f"decoded:{tmp_path}")
    assert command("data", "digits", "--decoded", "8")[0] == 2
