"""What a training run's numbers say about it."""

from __future__ import annotations

import math

import keras

# A constant output has this many times the loss of chance at least, and random weights
# rarely less than 1.
FLAT = 0.99


class FlatLossHint(keras.callbacks.Callback):
    """Points out, after the first epoch, a network that has learned nothing.

    Caffe's AlexNet sometimes did not with the paper's biases of 1, which is why its
    authors took 0.1; the loss then stays at the logarithm of the number of classes.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Looks at the first epoch's losses."""
        chance = math.log(self.model.output_shape[-1])
        losses = [logs[name] for name in ("loss", "val_loss") if name in (logs or {})]
        if epoch == 0 and losses and min(losses) >= FLAT * chance:
            print(
                f"\nThe loss is still that of guessing, {chance:.2f}. If it stays "
                "there, try another learning rate or initialisation. This network's: "
                f"{describe_initialisation(self.model)}."
            )


def describe_initialisation(model: keras.Model) -> str:
    """Says in words what the weights and biases of a model started from."""
    layers: dict[str, list[str]] = {}
    for layer in model.layers:
        kernel = getattr(layer, "kernel_initializer", None)
        if kernel is not None and hasattr(layer, "kernel"):
            bias = _describe(layer.bias_initializer)
            layers.setdefault(f"weights {_describe(kernel)}, biases {bias}", []).append(
                layer.name
            )
    return "; ".join(f"{', '.join(names)}: {how}" for how, names in layers.items())


def _describe(initializer: keras.initializers.Initializer) -> str:
    config = initializer.get_config()
    # A seed tells nothing of the distribution.
    values = [f"{k}={v}" for k, v in config.items() if k != "seed" and v is not None]
    return f"{type(initializer).__name__}({', '.join(values)})"
