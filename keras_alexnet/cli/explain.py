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

    from keras_alexnet.inspect.units import Excitation
    from keras_alexnet.model import AlexNet


@dataclasses.dataclass(frozen=True)
class Explain(ImagesCommand):
    """Draw on which pixels a network's answers depend."""

    method: tuple[
        Literal[
            "saliency",
            "smooth-grad",
            "integrated-gradients",
            "deconvolution",
            "grad-cam",
            "occlusion",
        ],
        ...,
    ] = ("grad-cam",)
    """How, in one way or several."""
    target: str | None = None
    """Name or number of the class to explain; by default each image's likeliest."""
    layer: str = "relu5"
    """The layer whose maps grad-cam looks at."""
    units: tuple[str, ...] = ()
    """Units, such as conv3:0-15: draw the patches that excite each most instead, and
    print by which class, that is folder, it is excited. Without images: draw images
    that are made to excite them."""
    towers: bool = False
    """Draw the first layer's filters tower by tower, and print how much of them is
    colour; no images are needed."""
    out: str = "explained"
    """The folder to draw into, a picture for each image and method."""

    def run(self) -> int:
        """Draws attributions of images."""
        from keras_alexnet.features.extraction import image_batches

        if self.towers:
            return self._draw_towers(self.open())
        if self.units and not self.images:
            return self._draw_made(self.open())
        files = self.files()
        model = self.open()
        if self.units:
            return self._draw_units(model, files)
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

    def _draw_made(self, model: AlexNet) -> int:
        """Draws images that are made to excite units."""
        from keras_alexnet.inspect import figures, units

        for text in self.units:
            layer, numbers = units.parse_units(text, model)
            made = units.activation_maximization(model, layer, numbers)
            made = figures.drawable(made)
            drawn = {
                f"{layer}:{numbers[first]}": made[first : first + 8]
                for first in range(0, len(numbers), 8)
            }
            name = f"{text.replace(':', '-')}-made.png"
            figures.contact_sheet(drawn, 8, Path(self.out, name))
        print(f"Drawn in {self.out}.")
        return 0

    def _draw_towers(self, model: AlexNet) -> int:
        """Draws the filters of each tower; prints how much of them is colour."""
        import numpy as np

        from keras_alexnet.inspect import figures, units
        from keras_alexnet.inspect.tables import console, make_table

        rows = []
        for number, kernel in enumerate(units.towers(model), start=1):
            colors = units.color_fractions(kernel)
            order = np.argsort(colors)
            figures.filters(kernel[..., order], Path(self.out, f"tower-{number}.png"))
            quarters = np.percentile(colors, (25, 50, 75))
            rows.append(
                (str(number), str(len(colors)), *(f"{q:.1%}" for q in quarters))
            )
        headings = ("tower", ">filters", ">colour, lower quarter", ">median", ">upper")
        console.print(make_table("Part of the filters that is colour", headings, rows))
        print(f"Drawn in {self.out}.")
        return 0

    def _draw_units(self, model: AlexNet, files: list[str]) -> int:
        """Draws the patches that excite units most, and prints their selectivity."""
        from keras_alexnet.inspect import figures, units
        from keras_alexnet.inspect.tables import console, make_table

        folders = sorted({Path(file).parent.name for file in files})
        asked = {text: units.parse_units(text, model) for text in self.units}
        watched = {
            text: units.Excitation(model, *one, classes=len(folders))
            for text, one in asked.items()
        }
        read, rows = self._watch(model, files, folders, list(watched.values())), []
        geometry = model.metadata.preprocessing.geometry
        for text, (layer, numbers) in asked.items():
            fields, drawn = units.receptive_fields(model, layer), {}
            patches, found = watched[text].patches(), watched[text].selectivity()
            for unit, best, (label, value) in zip(numbers, patches, found, strict=True):
                parts = drawn[f"{layer}:{unit}"] = []
                for one in best:
                    top, left = fields[0][one.row], fields[1][one.column]
                    image = figures.drawable(geometry(read[one.image])[0].numpy())
                    parts.append(image[slice(*top), slice(*left)])
                # Not a number where nothing was selected.
                chosen = (folders[label], f"{value:.3f}") if value == value else "--"
                strongest = read[best[0].image] if best else "-"
                rows.append((f"{layer}:{unit}", *chosen, strongest))
            path = Path(self.out, f"{text.replace(':', '-')}.png")
            figures.contact_sheet(drawn, 9, path)
        headings = ("unit", "class", ">selectivity", "strongest image")
        console.print(make_table(f"{len(read):,} images", headings, rows))
        print(f"Patches: {self.out}")
        return 2 if len(read) < len(files) else 0

    def _watch(
        self,
        model: AlexNet,
        files: list[str],
        folders: list[str],
        watched: list[Excitation],
    ) -> list[str]:
        """Shows images to units; returns those that could be read."""
        from keras_alexnet.features.extraction import image_batches
        from keras_alexnet.images.preprocessing import in_data_format

        preprocessing, read, start = model.metadata.preprocessing, [], 0
        for images, reasons in image_batches(files, preprocessing, 64, "Looking"):
            names = files[start : start + len(reasons)]
            start += len(reasons)
            for name, why in zip(names, reasons, strict=True):
                if why is not None:
                    print(f"{name} cannot be read: {why}", file=sys.stderr)
            good = [n for n, why in enumerate(reasons) if why is None]
            x = images.numpy()[good]
            read += [names[n] for n in good]
            labels = [folders.index(Path(names[n]).parent.name) for n in good]
            for one in watched if good else ():
                one.add(in_data_format(x), labels)
        return read

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

        from keras_alexnet.inspect import explain, figures

        x = model.network_input(pixels[None])
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
                last = keras.config.image_data_format() == "channels_last"
                axis = -1 if last else 0
                is_gradient = method == "saliency"
                scores = scores.max(axis) if is_gradient else scores.sum(axis)
            figures.attribution(
                figures.drawable(pixels),
                scores,
                f"{name}, {probabilities[chosen]:.1%}: {method}",
                Path(self.out, f"{stem}-{method}.png"),
            )
