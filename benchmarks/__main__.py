"""Run every benchmark: `python -m benchmarks`, or those named: `... training_step`."""

import importlib
import sys

BENCHMARKS = ["data_pipeline", "training_step"]

for name in sys.argv[1:] or BENCHMARKS:
    importlib.import_module(f"benchmarks.{name}").main()
