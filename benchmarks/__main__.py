"""Run every benchmark: `python -m benchmarks`, or those named: `... training_step`."""

import importlib
import sys

BENCHMARKS = [
    "training_step",
    "step_profile",
    "import_time",
    "engine",
    "scaling",
    "augmentation",
    "data_pipeline",
    "tuning",
]

for name in sys.argv[1:] or BENCHMARKS:
    importlib.import_module(f"benchmarks.{name}").main()
