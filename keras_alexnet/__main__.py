"""The command line, as `python -m keras_alexnet`."""

from keras_alexnet.cli import main

main()
