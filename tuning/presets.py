"""The search spaces that have a name, and every parameter that a space may have.

The values of the 2012 system lie in the middle of the ranges; in the geometric middle
where equal factors are equally likely.
"""

from __future__ import annotations

from collections.abc import Mapping

from keras_alexnet.tuning.parameters import Choice, Parameter, Range

LEARNING_RATE_KINDS = (
    "constant",
    "step",
    "exponential",
    "dexp",
    "linear",
    "cosine",
    "plateau",
)
DROPOUT_KINDS = ("constant", "linear", "step", "cosine", "curriculum")

# A parameter called KIND.NAME counts for that kind only.
LEARNING_RATE: Mapping[str, Parameter] = {
    "kind": Choice(LEARNING_RATE_KINDS, "step"),
    # The rate of 2012 for batches of 128 is 0.01.
    "value": Range(0.001, 0.1, log=True),
    # Divided by ten, three times (paper section 5). The boundaries are evenly spaced:
    # drops at 2/7, 4/7 and 6/7 of the run come close to those of the logged run.
    "step.factor": Range(0.03, 1 / 3, log=True),
    "step.drops": Range(1, 5, whole=True),
    # By how much the rate falls in the course of the run: 250 in cuda-convnet2.
    "exponential.fall": Range(25.0, 2500.0, log=True),
    "dexp.fall": Range(25.0, 2500.0, log=True),
    "dexp.levels": Range(3, 5, whole=True),
    # Ours: the end as a part of the start, and the recipe digits's warm-up.
    "linear.end": Range(0.0, 0.2),
    "cosine.warmup": Range(0.0, 0.1),
    # Our stand-in for the drops by hand. Its patience is a fraction of the run: 5 of 90
    # epochs.
    "plateau.factor": Range(0.03, 1 / 3, log=True),
    "plateau.patience": Range(0.02, 0.15, log=True),
}
# Of half of the units, says the paper; 10 is the curriculum's own default. How far a
# schedule falls, or rises, no source says.
DROPOUT: Mapping[str, Parameter] = {
    "kind": Choice(DROPOUT_KINDS),
    "value": Range(0.2, 0.8),
    "linear.end": Range(0.0, 0.8),
    "step.factor": Range(0.25, 0.75),
    "step.boundary": Range(0.3, 0.9),
    "cosine.end": Range(0.0, 0.8),
    "curriculum.gamma": Range(2.5, 40.0, log=True),
}
SCHEDULES: Mapping[str, Parameter] = {
    **{f"learning_rate.{name}": one for name, one in LEARNING_RATE.items()},
    **{f"dropout.{name}": one for name, one in DROPOUT.items()},
}
RECIPE: Mapping[str, Parameter] = {
    **SCHEDULES,
    "momentum": Range(0.82, 0.98),
    "weight_decay": Range(5e-5, 5e-3, log=True),
    "global_batch_size": Choice((32, 64, 128, 256, 512), 128),
    # Whether the learning rate grows with the batch, from that of the configuration.
    "scale_rate": Choice((True, False)),
    # What crop_padding, rotation, zoom and colour noise are multiplied by.
    "augmentation_strength": Range(0.0, 2.0),
}
EVERYTHING: Mapping[str, Parameter] = {
    **RECIPE,
    # Whether each fully connected layer has a schedule of its own.
    "dropout.per_layer": Choice((False, True)),
    "norm": Choice(("default", "batch_normalization", "none")),
    "groups": Choice((2, 1)),
    "width": Range(0.5, 2.0, log=True),
}
PRESETS: Mapping[str, Mapping[str, Parameter]] = {
    "schedules": SCHEDULES,
    "recipe": RECIPE,
    "everything": EVERYTHING,
}
