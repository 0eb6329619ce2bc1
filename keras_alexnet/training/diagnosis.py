"""What a training run's numbers say about it."""

from __future__ import annotations

import math

import keras

# A constant output has this many times the loss of chance at least, and random weights
# rarely less than 1.
FLAT = 0.99


class FlatLossHint(keras.callbacks.Callback):
    """Points out a network that has learned nothing.

    Caffe's AlexNet sometimes did not with the paper's biases of 1, which is why its
    authors took 0.1; the loss then stays at the logarithm of the number of classes.

    Args:
        warmup: Fraction of the run in which the learning rate rises. The losses of the
            epoch in which it has risen are looked at. Defaults to 0, the first epoch.
    """

    def __init__(self, warmup: float = 0.0):
        super().__init__()
        self._warmup = warmup

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Looks at the losses of one epoch."""
        risen = max(math.ceil(self._warmup * self.params["epochs"]) - 1, 0)
        chance = math.log(self.model.output_shape[-1])
        losses = [logs[name] for name in ("loss", "val_loss") if name in (logs or {})]
        if epoch == risen and losses and min(losses) >= FLAT * chance:
            print(
                f"\nThe loss is still that of guessing, {chance:.2f}. If it stays "
                "there, try a smaller learning rate that rises first, such as "
                '--learning-rate "cosine(0.005, warmup=0.1)", or '
                "--norm batch_normalization."
            )
