"""Benchmarks: one program per question, peers measured in the same run."""

if not __name__.startswith("keras_alexnet."):
    raise ImportError(
        "This folder is installed inside the package: write `from keras_alexnet "
        "import benchmarks`, not `import benchmarks`; to run it, `keras-alexnet "
        "benchmark`."
    )
