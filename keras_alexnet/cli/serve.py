"""`keras-alexnet serve`: answer requests over HTTP on one machine."""

from __future__ import annotations

import dataclasses
from typing import Literal

from keras_alexnet.cli.common import ClassifierCommand
from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Serve(ClassifierCommand):
    """Serve a network over HTTP, as TensorFlow Serving's REST API does."""

    port: int = 8501
    """Port to listen at."""
    host: str = "127.0.0.1"
    """Address to listen at; by default this machine alone can connect."""
    name: str = "alexnet"
    """What the network is called in addresses: /v1/models/NAME:predict."""
    precision: Literal["float32", "float16", "bfloat16"] | None = None
    """What to compute in; by default as the network does."""
    max_megabytes: float = 16.0
    """Size of the largest request."""
    timeout: float = 30.0
    """Seconds until a request is given up."""

    def run(self) -> int:
        """Serves until it is interrupted."""
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise UserError(
                f"--name must be letters, digits, - and _. Received: {self.name}"
            )
        if self.max_megabytes <= 0 or self.timeout <= 0:
            raise UserError("--max-megabytes and --timeout must be positive.")
        from keras_alexnet.errors import check_packages
        from keras_alexnet.export.artefact import in_precision

        check_packages("serve", "aiohttp")
        from aiohttp import web

        from keras_alexnet.export.server import make_app

        model = self.open()
        app = make_app(
            in_precision(model, self.precision),
            self.name,
            max_bytes=int(1e6 * self.max_megabytes),
            timeout=self.timeout,
        )
        print(f"http://{self.host}:{self.port}/v1/models/{self.name}:predict")
        web.run_app(app, host=self.host, port=self.port, print=None)
        return 0
