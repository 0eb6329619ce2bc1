"""How fast are features of photographs, from files to fc7?

    keras-alexnet benchmark features

JPEG files of 500 x 375 pixels through torchvision's preprocessing and `alexnet_owt` in
float32, as `keras-alexnet features` does it. Its peer, in a checkout: torchvision with
PyTorch's DataLoader of two workers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from keras_alexnet import benchmarks
from keras_alexnet.benchmarks.comparison import TENSORFLOW, Comparison, Work
from keras_alexnet.benchmarks.data_pipeline import write_photographs
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.builder import build
from keras_alexnet.features import feature_extractor
from keras_alexnet.features.extraction import features_of_files
from keras_alexnet.images.preprocessing import get_preprocessing

# Enough that starting does not count; a run of hours starts once, too.
PHOTOGRAPHS, TIMES = 128, 8


def ours(names: list[str], batch_size: int) -> Work:
    """Makes passes over the files."""
    extractor = feature_extractor(build("alexnet_owt"), ["fc7"])
    preprocessing = get_preprocessing("torch")

    def work(count: int) -> None:
        for _ in range(count):
            batches = features_of_files(extractor, preprocessing, names, batch_size)
            assert sum(len(values["fc7"]) for values, _ in batches) == len(names)

    return work


def run(report: Report) -> None:
    """Measures and reports."""
    quick = report.options.quick
    count, times, size = (4, 1, 4) if quick else (PHOTOGRAPHS, TIMES, 64)
    with tempfile.TemporaryDirectory() as folder, Comparison(report) as comparison:
        names = write_photographs(Path(folder), count, (500, 375)) * times
        for batch_size in report.options.batch_sizes or (size,):
            arguments = {"names": names, "batch_size": batch_size}
            case = f"fc7 of {len(names)} photographs, batch {batch_size}"
            comparison.begin(case)
            comparison.add("keras_alexnet", ours, TENSORFLOW, **arguments)
            if peers := benchmarks.find_peers():
                peers.add_features(comparison, **arguments)
            report.add(case, comparison.run(), len(names), baseline="torchvision")
