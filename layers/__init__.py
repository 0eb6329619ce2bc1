"""The layers of AlexNet that Keras lacks."""

if not __name__.startswith("keras_alexnet."):
    # In a checkout, `import layers` would find this folder and run every module a
    # second time under another name.
    raise ImportError(
        "This folder is installed inside the package: "
        "write `from keras_alexnet import layers`, not `import layers`."
    )

from keras_alexnet.layers.adaptive_pooling import AdaptiveAveragePooling2D
from keras_alexnet.layers.batch_norm import FusedBatchNormalization
from keras_alexnet.layers.dropout import ClassicDropout, ScheduledDropout
from keras_alexnet.layers.grouped_conv import GroupedConv2D
from keras_alexnet.layers.lrn import LocalResponseNormalization
from keras_alexnet.layers.pooling import (
    NonOverlappingMaxPooling2D,
    OverlappingMaxPooling2D,
)
from keras_alexnet.layers.spatial_response_norm import SpatialResponseNormalization

__all__ = [
    "AdaptiveAveragePooling2D",
    "ClassicDropout",
    "FusedBatchNormalization",
    "GroupedConv2D",
    "LocalResponseNormalization",
    "NonOverlappingMaxPooling2D",
    "OverlappingMaxPooling2D",
    "ScheduledDropout",
    "SpatialResponseNormalization",
]
