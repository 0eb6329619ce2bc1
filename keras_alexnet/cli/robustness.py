"""`keras-alexnet robustness`: accuracy under attack and under corruptions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from keras_alexnet.cli.common import LabelledCommand
from keras_alexnet.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from keras_alexnet.data.dataset import Dataset, Split
    from keras_alexnet.inspect.robustness import Accuracy, Change
    from keras_alexnet.model import AlexNet

# How many images are drawn.
DRAWN = 6
Corruption = Literal[
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "defocus-blur",
    "zoom-blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg",
]


@dataclasses.dataclass(frozen=True)
class Robustness(LabelledCommand):
    """Measure a network's accuracy on attacked and on corrupted images."""

    limit: int | None = None
    """Only so many images of the split, chosen by the seed."""
    attacks: tuple[Literal["fgsm", "pgd", "pgd-l2"], ...] = ("fgsm", "pgd", "pgd-l2")
    """Which attacks; none for no attack."""
    epsilon: tuple[str, ...] = ("8/255",)
    """Largest change of a number by fgsm and pgd, as a part of the range of pixels."""
    epsilon_l2: tuple[str, ...] = ("128/255",)
    """Euclidean norm of the change of an image by pgd-l2, in the same unit."""
    steps: int = 20
    """Steps of pgd, of 2.5 * epsilon / steps each."""
    restarts: int = 1
    """How often pgd begins, each time somewhere else in the ball."""
    corruptions: tuple[Corruption, ...] = get_args(Corruption)
    """Which corruptions, each at five severities; none for no corruption."""
    baseline: str | None = None
    """Network whose errors under corruptions those of this one are divided by; it says
    itself what it expects of images."""
    seed: int = 0
    """Decides the noise, and where pgd begins."""
    out: str | None = None
    """Where to write robustness.json and figures/; by default the run's directory, and
    nowhere for a network that is no run."""

    def run(self) -> int:
        """Prints, writes and draws what attacks and corruptions do to a network."""
        from keras_alexnet.inspect import robustness
        from keras_alexnet.inspect.corruptions import corruptions

        self.check()
        for name in ("steps", "restarts", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1. Received: {value}")
        settings = self._settings()
        model = self.open()
        dataset, outputs = self._images(model)
        splits = list(dataset.splits.values())

        def attack(options: Mapping[str, Any]) -> Change:
            return lambda pixels, labels, first: robustness.pgd(
                model, pixels, labels, seed=(self.seed, first), **options
            )

        attacks = {name: attack(options) for name, options in settings.items()}
        corrupted = corruptions(self.corruptions, self.seed)
        baseline = None
        if self.baseline is not None:
            own = {"network": self.baseline, "preprocessing": "own"}
            other = dataclasses.replace(self, **own).open()
            same, others = self._images(other)
            baseline = robustness.accuracies(
                other, same.splits.values(), others, corrupted, self.batch_size
            )
        changes = {**attacks, **corrupted}
        found = robustness.accuracies(model, splits, outputs, changes, self.batch_size)
        errors = robustness.mean_errors(found, baseline)
        dataset.skipped.print()
        self._print(found, errors)
        if self.out is not None or Path(self.network).is_dir():
            folder = Path(self.out or self.network)
            self._draw(folder / "figures", model, splits[0], outputs, changes)
            self._write(folder, settings, found, baseline, errors)
        return 0

    def _settings(self) -> dict[str, dict[str, Any]]:
        """Returns the settings of each attack, by the name that it is printed by."""
        from keras_alexnet.inspect.robustness import parse_epsilon

        found = {}
        for attack in self.attacks:
            norm = "l2" if attack == "pgd-l2" else "linf"
            for text in self.epsilon_l2 if norm == "l2" else self.epsilon:
                options = {"epsilon": parse_epsilon(text, norm), "norm": norm}
                name = f"{attack} {text}"
                if attack == "fgsm":
                    options |= {"steps": 1, "step": options["epsilon"]}
                    options |= {"random_start": False}
                else:
                    name += f", {self.steps} steps"
                    name += f", {self.restarts} restarts" * (self.restarts > 1)
                    options |= {"steps": self.steps, "restarts": self.restarts}
                found[name] = options
        return found

    def _images(self, model: AlexNet) -> tuple[Dataset, np.ndarray]:
        """Returns the images, and the model's output of each of their classes."""
        import numpy as np

        from keras_alexnet.evaluation import match_classes

        dataset = self.dataset(model.metadata.preprocessing.channels)
        if self.limit is not None:
            random, splits = np.random.default_rng(self.seed), {}
            for name, split in dataset.splits.items():
                chosen = random.permutation(len(split))[: self.limit]
                splits[name] = split.select(np.sort(chosen))
            dataset = dataclasses.replace(dataset, splits=splits)
        return dataset, match_classes(dataset.class_names, model.metadata)

    def _print(
        self, found: Mapping[Any, Accuracy], errors: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Prints accuracies, with intervals, and errors under corruptions."""
        import numpy as np

        from keras_alexnet.inspect.robustness import SEVERITIES
        from keras_alexnet.inspect.tables import console, make_table

        rows = []
        for name, one in found.items():
            if not isinstance(name, tuple):
                low, high = one.interval
                cells = f"{one.value:.2%}", f"{low:.2%} to {high:.2%}"
                rows.append((name or "unchanged", *cells))
        title = f"{found[None].images:,} images"
        headings = ("images", ">accuracy", "95 % interval (Wilson)")
        console.print(make_table(title, headings, rows))
        if not errors:
            return
        rows = []
        for name, values in errors.items():
            accuracies = [found[name, severity].value for severity in SEVERITIES]
            rows.append([name, *accuracies, *values.values()])
        means = np.mean([row[6:] for row in rows], axis=0)
        rows.append(["mean", *[float("nan")] * 5, *means])
        texts = [
            [name, *("-" if v != v else f"{v:.2%}" for v in values)]
            for name, *values in rows
        ]
        names = (">mean error", ">CE", ">relative CE")[: len(means)]
        headings = ("corruption", *(f">{s}" for s in SEVERITIES), *names)
        title = "Accuracy under corruptions, by severity"
        console.print(make_table(title, headings, texts))

    def _write(
        self,
        folder: Path,
        settings: Mapping[str, Mapping[str, Any]],
        found: Mapping[Any, Accuracy],
        baseline: Mapping[Any, Accuracy] | None,
        errors: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Writes robustness.json."""
        from keras_alexnet.training.run_directory import RunDirectory

        def listed(found: Mapping[Any, Accuracy]) -> dict[str, dict[str, Any]]:
            return {
                " ".join(map(str, name))
                if isinstance(name, tuple)
                else name or "unchanged": {
                    "accuracy": one.value,
                    "interval": one.interval,
                    "right": one.right,
                    "images": one.images,
                    **settings.get(name, {}),
                }
                for name, one in found.items()
            }

        values = {
            **{name: getattr(self, name) for name in ("data", "limit", "seed")},
            "accuracy": listed(found),
            "baseline": self.baseline,
            "baseline_accuracy": listed(baseline or {}),
            # JSON has no NaN.
            "corruption_errors": {
                name: {k: v if v == v else None for k, v in one.items()}
                for name, one in errors.items()
            },
        }
        RunDirectory(folder).write_json("robustness.json", values)
        print(f"Results: {folder / 'robustness.json'}")

    def _draw(
        self,
        folder: Path,
        model: AlexNet,
        split: Split,
        outputs: np.ndarray,
        changes: Mapping[Any, Change],
    ) -> None:
        """Draws some images under each attack, and one under each corruption."""
        import numpy as np

        from keras_alexnet.data.pipeline import evaluation_batches
        from keras_alexnet.inspect import figures

        split = split.select(np.linspace(0, len(split) - 1, DRAWN).astype(np.int64))
        geometry = model.metadata.preprocessing.geometry
        pixels, labels, _ = next(iter(evaluation_batches(split, geometry, DRAWN)))
        pixels, labels = pixels.numpy(), outputs[labels.numpy()]
        attacked, corrupted = {"unchanged": figures.drawable(pixels)}, {}
        for name, change in changes.items():
            if isinstance(name, tuple):
                found = change(pixels[:1], labels[:1], 0)
                corrupted.setdefault(name[0], []).extend(found)
            else:
                found = change(pixels, labels, 0)
                attacked[name] = figures.drawable(found)
        figures.contact_sheet(attacked, DRAWN, folder / "attacks.png")
        if corrupted:
            figures.contact_sheet(corrupted, 5, folder / "corruptions.png")
        print(f"Pictures: {folder}")
