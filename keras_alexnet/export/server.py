"""HTTP server for one machine, in the shape of TensorFlow Serving's REST API.

Requests that come while the network computes are computed together next time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import collections
import contextlib
import html
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from aiohttp import web

from keras_alexnet.errors import UserError
from keras_alexnet.export.artefact import TOP
from keras_alexnet.model import AlexNet
from keras_alexnet.processor import cores

MAX_BATCH = 32
# Images in the queue; what does not fit is refused.
MAX_WAITING = 256
PAGE = """<!doctype html><meta charset="utf-8"><title>{name}</title><h1>{name}</h1>
<form method="post" enctype="multipart/form-data">
<input type="file" name="image" accept="image/*" required>
<button>What is this?</button></form>{answer}
"""


class Classifier:
    """Network behind a queue: images that wait are computed as one batch.

    Args:
        model: Knows its preprocessing and class names.
    """

    def __init__(self, model: AlexNet):
        self.model = model
        self.counts: collections.Counter[str] = collections.Counter()
        prepare = model.metadata.preprocessing.prepare_file
        normalize = model.metadata.preprocessing.normalize
        # Traced once: operation by operation, it takes several times as long.
        self._decode = tf.function(
            lambda encoded: normalize(prepare(encoded)),
            input_signature=[tf.TensorSpec((), tf.string)],
            autograph=False,
        )
        self._queue: asyncio.Queue = asyncio.Queue(MAX_WAITING)
        self._decoders = ThreadPoolExecutor(cores())
        self._network = ThreadPoolExecutor(1)

    async def classify(self, encoded: bytes) -> dict[str, list]:
        """Returns `labels`, `classes` and `probabilities` of an image file.

        Raises:
            UserError: The bytes are no image.
            asyncio.QueueFull: Too many are waiting.
        """
        loop = asyncio.get_running_loop()
        image = await loop.run_in_executor(self._decoders, self._prepare, encoded)
        answer = loop.create_future()
        self._queue.put_nowait((image, answer))
        probabilities = await answer
        best = np.argsort(-probabilities, kind="stable")[:TOP]
        names = self.model.metadata.class_names
        return {
            "labels": [names[index] for index in best],
            "classes": best.tolist(),
            "probabilities": probabilities[best].tolist(),
        }

    async def run(self) -> None:
        """Computes batch after batch, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            waiting = [await self._queue.get()]
            while len(waiting) < MAX_BATCH and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            # Those whose client has gone are not computed.
            waiting = [one for one in waiting if not one[1].done()]
            if not waiting:
                continue
            images, answers = zip(*waiting, strict=True)
            try:
                found = await loop.run_in_executor(self._network, self.predict, images)
            except Exception as error:  # The next batch may well work.
                found = [error] * len(answers)
            self.counts["batches"] += 1
            self.counts["images"] += len(answers)
            for answer, value in zip(answers, found, strict=True):
                if answer.done():
                    continue
                if isinstance(value, Exception):
                    answer.set_exception(value)
                else:
                    answer.set_result(value)

    def predict(self, images: tuple[np.ndarray, ...]) -> np.ndarray:
        """Returns probabilities, `(batch, classes)`, of images of `_prepare`."""
        # Batches of a few sizes only, because each is compiled once.
        size = 1 << (len(images) - 1).bit_length()
        batch = np.resize(np.stack(images), (size, *images[0].shape))
        return self.model.predict_on_batch(batch)[: len(images)]

    def warm_up(self) -> None:
        """Compiles the network for each size of batch."""
        blank = np.zeros(self.model.input_shape[1:], np.float32)
        for exponent in range(MAX_BATCH.bit_length()):
            self.predict((blank,) * (1 << exponent))

    def _prepare(self, encoded: bytes) -> np.ndarray:
        try:
            return self._decode(tf.constant(encoded)).numpy()
        except tf.errors.OpError as error:
            self.counts["damaged"] += 1
            raise UserError("This is no image that can be read.") from error


def make_app(
    model: AlexNet, name: str, *, max_bytes: int, timeout: float
) -> web.Application:
    """Returns the server's application.

    `POST /v1/models/NAME:predict` takes `{"instances": [{"b64": ...}, ...]}`, image
    files, and returns `{"predictions": [{"labels", "classes", "probabilities"}, ...]}`,
    as TensorFlow Serving does for the signature `classify` of an exported SavedModel.
    `GET /v1/models/NAME` says that it is available, `/healthz` that it lives,
    `/metrics` what it has done, in Prometheus's format; `/` is a page to upload to.

    Args:
        model: Knows its preprocessing and class names.
        name: What it is called in addresses.
        max_bytes: Size of the largest request.
        timeout: Seconds until a request is given up.
    """
    classifier = Classifier(model)

    async def predict(request: web.Request) -> web.Response:
        try:
            instances = (await request.json())["instances"]
            files = [base64.b64decode(one["b64"], validate=True) for one in instances]
        except (ValueError, KeyError, TypeError, binascii.Error):
            message = 'The body must be {"instances": [{"b64": "..."}, ...]}.'
            raise UserError(message) from None
        if len(files) > MAX_WAITING:
            raise UserError(f"At most {MAX_WAITING} images. Received: {len(files)}")
        found = await asyncio.gather(*map(classifier.classify, files))
        return web.json_response({"predictions": found})

    async def page(request: web.Request) -> web.Response:
        answer = ""
        if request.method == "POST":
            field = (await request.post()).get("image")
            if not isinstance(field, web.FileField):
                raise UserError("There is no field `image` with a file.")
            found = await classifier.classify(field.file.read())
            pairs = zip(found["labels"], found["probabilities"], strict=True)
            rows = (f"<li>{html.escape(label)}: {p:.1%}</li>" for label, p in pairs)
            answer = f"<ol>{''.join(rows)}</ol>"
        text = PAGE.format(name=html.escape(name), answer=answer)
        return web.Response(text=text, content_type="text/html")

    async def metrics(request: web.Request) -> web.Response:
        counts = sorted(classifier.counts.items())
        return web.Response(
            text="".join(f"keras_alexnet_{key}_total {n}\n" for key, n in counts)
        )

    async def work(app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(classifier.run())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    classifier.warm_up()
    middlewares = [_errors_as_json(classifier.counts, timeout)]
    app = web.Application(client_max_size=max_bytes, middlewares=middlewares)
    app.cleanup_ctx.append(work)
    app.add_routes(
        [
            *(web.get("/", page), web.post("/", page)),
            *(web.get("/healthz", _health), web.get("/metrics", metrics)),
            web.get(f"/v1/models/{name}", _status),
            web.post(f"/v1/models/{name}:predict", predict),
        ]
    )
    return app


async def _status(request: web.Request) -> web.Response:
    ok = {"error_code": "OK", "error_message": ""}
    version = {"version": "1", "state": "AVAILABLE", "status": ok}
    return web.json_response({"model_version_status": [version]})


async def _health(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _errors_as_json(counts: collections.Counter[str], timeout: float) -> Callable:
    """Makes what counts requests, limits their time, and answers for errors."""

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        start = time.perf_counter()
        try:
            response = await asyncio.wait_for(handler(request), timeout)
        except UserError as error:
            response = web.json_response({"error": str(error)}, status=400)
        except asyncio.QueueFull:
            response = web.json_response({"error": "Too many requests."}, status=503)
        except asyncio.TimeoutError:
            response = web.json_response({"error": "This took too long."}, status=504)
        except web.HTTPException as error:
            response = web.json_response({"error": error.reason}, status=error.status)
        counts["requests"] += 1
        counts[f"responses_{response.status}"] += 1
        counts["milliseconds"] += round(1000 * (time.perf_counter() - start))
        return response

    return middleware
