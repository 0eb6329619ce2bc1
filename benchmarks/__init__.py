"""Benchmarks: one program per question, peers measured in the same run."""

import importlib.util
from types import ModuleType

if not __name__.startswith("keras_alexnet."):
    raise ImportError(
        "This folder is installed inside the package: write `from keras_alexnet "
        "import benchmarks`, not `import benchmarks`; to run it, `keras-alexnet "
        "benchmark`."
    )


def find_peers() -> ModuleType | None:
    """Returns the other systems to compare with; None outside a checkout."""
    name = f"{__name__}.peers"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None
