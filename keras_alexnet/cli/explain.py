"""`keras-alexnet explain`: draw on which pixels a network's answers depend."""

from __future__ import annotations

import collections
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from keras_alexnet.cli.common import ImagesCommand
from keras_alexnet.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np

    from keras_alexnet.model import AlexNet


@dataclasses.dataclass(frozen=True)
class Explain(ImagesCommand):
    """Draw on which pixels a network's answers depend."""

    method: tuple[
        Literal[
            "saliency", "smooth-grad", "integrated-gradients", "grad-cam", "occlusion"
        ],
        ...,
    ] = ("grad-cam",)
    """How, in one way or several."""
    target: str | None = None
    """Name or number of the class to explain; by default each image's likeliest."""
    layer: str = "relu5"
    """The layer whose maps grad-cam looks at."""
    out: str = "explained"
    """The folder to draw into, a picture for each image and method."""

    def run(self) -> int:
        """Draws attributions of images."""
        from keras_alexnet.features.extraction import image_batches

        files = self.files()
        model = self.open()
        target = self._target(model)
        # Pixels, 0-255, to be drawn too.
        geometry = model.metadata.preprocessing.geometry
        failed, taken = 0, collections.Counter()
        batches = image_batches(files, geometry, 1, "Explaining")
        for file, (images, (why,)) in zip(files, batches, strict=True):
            if why is not None:
                failed += 1
                print(f"{file} cannot be read: {why}", file=sys.stderr)
                continue
            # Folders may hold files of the same name.
            stem = Path(file).stem
            taken[stem] += 1
            stem += f"-{taken[stem]}" * (taken[stem] > 1)
            self._draw(model, stem, images[0].numpy(), target)
        print(f"{len(files) - failed} images are explained in {self.out}.")
        return 2 if failed else 0

    def _target(self, model: AlexNet) -> int | None:
        """Returns the class that is asked for."""
        names = list(model.metadata.class_names)
        if self.target is None:
            return None
        if self.target in names:
            return names.index(self.target)
        if self.target.isdecimal() and int(self.target) < len(names):
            return int(self.target)
        more = f"and {len(names) - 20} others" if len(names) > 20 else ""
        raise UserError(unknown(self.target, "class", names[:20], more, names))

    def _draw(
        self, model: AlexNet, stem: str, pixels: np.ndarray, target: int | None
    ) -> None:
        """Draws one image, 0-255, by all methods."""
        import keras
        import numpy as np

        from keras_alexnet.inspect import explain, figures

        x = model.metadata.preprocessing.normalize(pixels)[None]
        last = keras.config.image_data_format() == "channels_last"
        x = x if last else x.transpose(0, 3, 1, 2)
        probabilities = model.predict_on_batch(x)[0]
        chosen = int(probabilities.argmax()) if target is None else target
        name = model.metadata.class_names[chosen]
        for method in self.method:
            options = {"layer": self.layer} if method == "grad-cam" else {}
            if method == "occlusion":
                # An eighth of the image, in steps of a fourth of that.
                window = max(len(pixels) // 8, 1)
                options = {"window": window, "stride": max(window // 4, 1)}
            scores = explain.METHODS[method](model, x, chosen, **options)[0]
            if scores.ndim == 3:
                axis = -1 if last else 0
                is_gradient = method == "saliency"
                scores = scores.max(axis) if is_gradient else scores.sum(axis)
            figures.attribution(
                np.clip(np.round(pixels), 0, 255).astype(np.uint8),
                scores,
                f"{name}, {probabilities[chosen]:.1%}: {method}",
                Path(self.out, f"{stem}-{method}.png"),
            )
