"""What the fork server of trials imports: TensorFlow, without its messages."""

from keras_alexnet.quiet import import_tensorflow

import_tensorflow()
