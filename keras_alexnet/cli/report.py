"""`keras-alexnet report`: write a page that shows a network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_alexnet.cli.common import ClassifierCommand, evaluation_dataset
from keras_alexnet.errors import UserError

if TYPE_CHECKING:
    from keras_alexnet.data.dataset import Dataset
    from keras_alexnet.model import AlexNet


@dataclasses.dataclass(frozen=True)
class Report(ClassifierCommand):
    """Write one HTML file that shows what a network is, and what it sees in images."""

    data: str | None = None
    """Labelled images, as train takes them; by default the run's test images."""
    explain: int = 12
    """How many images to look at layer by layer."""
    robustness: str | None = None
    """A JSON file of measured robustness, to be shown as tables."""
    batch_size: int = 128
    """Images per pass."""
    out: str = "report.html"
    """The file to write. It needs no server and no network."""

    def run(self) -> int:
        """Writes the page."""
        for name in ("explain", "batch_size"):
            if (value := getattr(self, name)) < 1:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} must be at least 1. Received: {value}")
        robustness, out = self._robustness(), Path(self.out)
        if out.is_dir():
            raise UserError(f"--out must be a file. Received the folder {out}")
        out.parent.mkdir(parents=True, exist_ok=True)
        from keras_alexnet.inspect import page

        model = self.open()
        data: dict[str, Any] = page.network(model) | {"omitted": []}
        self._add_run(data)
        dataset = self._dataset(model, data["omitted"])
        if dataset is not None:
            self._add_images(model, dataset, data)
        if robustness is not None:
            data["robustness"] = robustness
        page.write_page(out, self.network, data)
        for line in data["omitted"]:
            print(f"Left out: {line}")
        print(f"Written: {self.out}")
        return 0

    def _robustness(self) -> Any:
        if self.robustness is None:
            return None
        try:
            return json.loads(Path(self.robustness).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.robustness} cannot be read as JSON: {error}"
            ) from None

    def _add_run(self, data: dict[str, Any]) -> None:
        """Adds the configuration and the curves of a run."""
        from keras_alexnet.training.run_directory import RunDirectory

        if not Path(self.network).is_dir():
            data["omitted"].append(
                "training curves and configuration: the network is no run."
            )
            return
        run = RunDirectory.open(self.network)
        data["configuration"] = dataclasses.asdict(run.config())
        if history := run.history():
            data["history"] = history
            by_validation = run.read_json("data.json").get("validation")
            data["judged_by"] = "validation" if by_validation else "test"
        else:
            data["omitted"].append("training curves: the run has no history.csv.")
        if (run / "result.json").is_file():
            result = run.read_json("result.json")
            result.pop("history", None)
            data["result"] = result

    def _dataset(self, model: AlexNet, omitted: list[str]) -> Dataset | None:
        """Opens the images; says why there are none."""
        what = "the confusion matrix, images, activations and neighbours"
        if self.data is None and not Path(self.network).is_dir():
            omitted.append(f"{what}: name labelled images with --data.")
            return None
        channels = model.metadata.preprocessing.channels
        try:
            return evaluation_dataset(self.network, self.data, channels)
        except UserError as error:
            if self.data is not None:
                raise
            omitted.append(f"{what}: {error}")
        return None

    def _add_images(
        self, model: AlexNet, dataset: Dataset, data: dict[str, Any]
    ) -> None:
        """Adds what the network makes of images."""
        from keras_alexnet.evaluation import evaluate_dataset, match_classes
        from keras_alexnet.inspect import page

        chosen = dataset.choose(None)
        ((name, split),) = chosen.splits.items()
        evaluation, _ = evaluate_dataset(model, chosen, batch_size=self.batch_size)
        dataset.skipped.print()
        found, shown = page.images(model, split, evaluation)
        data |= found
        data["evaluated"]["split"] = name
        data["explained"] = page.explained(
            model, split, evaluation, shown, self.explain
        )
        places = shown[[one["image"] for one in data["explained"]]]
        candidates = dataset.splits.get("train", split)
        data["neighbours"] = page.neighbours(
            model,
            split,
            evaluation.positions[places],
            candidates,
            match_classes(dataset.class_names, model.metadata),
        )
        is_train = candidates is not split
        data["neighbours"]["of"] = "training" if is_train else "these"
