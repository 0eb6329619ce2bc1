"""The HTTP server, asked through HTTP."""

import asyncio
import base64
import io
import json
import time

import numpy as np
import pytest
from exported_networks import network
from PIL import Image

aiohttp = pytest.importorskip("aiohttp", reason="the extra serve is not installed")

NAMES = ["ant", "bée", "<b>cat</b>", "dog", "eel", "fox"]
PREDICT = "/v1/models/pets:predict"


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), "uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue(), pixels


def body(*files):
    instances = [{"b64": base64.b64encode(file).decode()} for file in files]
    return json.dumps({"instances": instances})


@pytest.fixture(scope="module")
def model():
    model, preprocessing, _ = network("alexnet_mini", classes=len(NAMES))
    model.bind(preprocessing, class_names=NAMES)
    return model


def talk(model, conversation, timeout=30.0):
    """Runs a coroutine that is handed a client of a server."""
    from aiohttp.test_utils import TestClient, TestServer

    from keras_alexnet.export.server import make_app

    async def run():
        app = make_app(model, "pets", max_bytes=1_000_000, timeout=timeout)
        async with TestClient(TestServer(app)) as client:
            await conversation(client)

    asyncio.run(run())


def test_concurrent_requests_are_computed_in_batches_and_damaged_ones_named(
    model, monkeypatch
):
    from keras_alexnet.export.server import Classifier

    predict = Classifier.predict

    def slow(self, images):
        time.sleep(0.1)
        return predict(self, images)

    # A network that takes longer than its images take to decode.
    monkeypatch.setattr(Classifier, "predict", slow)
    files, images = zip(*map(png, range(60)), strict=True)
    expected = model.predict_on_batch(model.preprocess(np.stack(images)))

    async def conversation(client):
        async def ask(*sent):
            async with client.post(PREDICT, data=body(*sent)) as answer:
                return answer.status, await answer.json()

        asked = [ask(file) for file in files]
        damaged = [ask(b"no image") for _ in range(5)]
        answers = await asyncio.gather(*asked, *damaged, ask(*files[:3]), ask())
        for probabilities, (code, answer) in zip(expected, answers, strict=False):
            (found,) = answer["predictions"]
            best = np.argsort(-probabilities)[:5]
            assert code == 200 and found["classes"] == best.tolist()
            assert found["labels"] == [NAMES[index] for index in best]
            np.testing.assert_allclose(
                found["probabilities"], probabilities[best], atol=1e-5
            )
        for code, answer in answers[60:65]:
            assert code == 400 and "no image that can be read" in answer["error"]
        assert [one["labels"][0] for one in answers[65][1]["predictions"]] == [
            NAMES[index] for index in expected[:3].argmax(1)
        ]
        assert answers[66] == (200, {"predictions": []})
        text = await (await client.get("/metrics")).text()
        counts = dict(line.split() for line in text.splitlines())
        assert counts["keras_alexnet_images_total"] == "63"
        assert int(counts["keras_alexnet_batches_total"]) < 40
        assert counts["keras_alexnet_responses_400_total"] == "5"

    talk(model, conversation)


def test_what_is_wrong_is_answered_and_the_server_goes_on(model):
    file, _ = png(0)

    async def conversation(client):
        for sent, code in (
            ("nonsense", 400),
            (json.dumps([1]), 400),
            (json.dumps({"instances": 3}), 400),
            (json.dumps({"instances": [{"b64": "%"}]}), 400),
            (json.dumps({"instances": [{"b64": None}]}), 400),
            (body(*[b""] * 257), 400),
            (b"x" * 1_000_001, 413),
            (body(file), 200),
        ):
            async with client.post(PREDICT, data=sent) as answer:
                assert answer.status == code, sent[:50]
                assert ("error" in await answer.json()) == (code != 200)
        assert (await client.get("/v1/models/other")).status == 404
        assert (await client.get(PREDICT)).status == 405
        status = await (await client.get("/v1/models/pets")).json()
        assert status["model_version_status"][0]["state"] == "AVAILABLE"
        assert await (await client.get("/healthz")).text() == "ok\n"

    talk(model, conversation)


def test_a_request_has_an_end(model):
    async def conversation(client):
        async with client.post(PREDICT, data=body(png(0)[0])) as answer:
            assert answer.status == 504

    talk(model, conversation, timeout=1e-6)


def test_the_page_names_five_classes(model):
    file, image = png(7)
    best = np.argsort(-model.predict_on_batch(model.preprocess(image))[0])[:5]
    labels = [NAMES[index] for index in best]

    async def conversation(client):
        text = await (await client.get("/")).text()
        assert '<input type="file" name="image"' in text and "<li>" not in text
        text = await (await client.post("/", data={"image": io.BytesIO(file)})).text()
        escaped = [one.replace("<", "&lt;").replace(">", "&gt;") for one in labels]
        places = [text.index(f"<li>{label}: ") for label in escaped]
        assert places == sorted(places) and text.count("<li>") == 5
        assert (await client.post("/", data={"image": "words"})).status == 400

    talk(model, conversation)
