"""How fast does alexnet_2012 classify batches of 1 to 256 images?

Each system in the form that usually is its fastest without compiling anew for each size
of a batch; see `inference` for the others.

    keras-alexnet benchmark batch_size
"""

from __future__ import annotations

from keras_alexnet.benchmarks.contest import Contest
from keras_alexnet.benchmarks.inference import Entrants, measure
from keras_alexnet.benchmarks.networks import network_for
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def run(options: Options) -> None:
    """Measures and reports."""
    entrants = Entrants(network_for(options.quick), options)
    report = Report("batch_size", options)
    for batch_size in (1,) if options.quick else BATCH_SIZES:
        contest = Contest(options)
        entrants.enter(contest, batch_size, one_form=True)
        measure(report, contest, batch_size, str(batch_size))
    report.write("batch size")
