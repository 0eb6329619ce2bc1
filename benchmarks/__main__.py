"""`python -m keras_alexnet.benchmarks ...` is `keras-alexnet benchmark ...`."""

import sys

from keras_alexnet.cli import main

main(["benchmark", *sys.argv[1:]])
