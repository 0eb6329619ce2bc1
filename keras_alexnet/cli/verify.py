"""`keras-alexnet verify`: compute again what has been published about weights."""

from __future__ import annotations

import dataclasses

from keras_alexnet.cli.common import NetworkCommand
from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Verify(NetworkCommand):
    """Compute again what has been published about weights: exit code 1 if it differs.

    Digests, activations in PyTorch, perceptual distances, and errors on ImageNet.
    """

    heads: str = "lpips-alex"
    """LPIPS's weights of the channels: published ones by name, or a file."""
    lpips_pairs: str | None = None
    """Folder of the five pairs of images whose LPIPS is published: ref_I03.png and
    dist_I03.png, and likewise I04, I06, I08 and I19."""
    imagenet: str | None = None
    """Folder of ImageNet's validation images, a sub-folder per class, called by its
    WordNet id."""

    def run(self) -> int:
        """Prints what was published and what is found."""
        from keras_alexnet.inspect.tables import console, make_table
        from keras_alexnet.verification import verify
        from keras_alexnet.weights.catalog import find_weights

        path = find_weights(self.network)
        checks = list(
            verify(
                self.open(),
                path,
                heads=self.heads,
                lpips_pairs=self.lpips_pairs,
                imagenet=self.imagenet,
            )
        )
        words = {True: "ok", False: "DIFFERS", None: "not checked"}
        rows = [(*check[:3], words[check.ok]) for check in checks]
        headings = ("what", "published", "here", "")
        console.print(make_table(f"{self.network}", headings, rows))
        if all(check.ok is None for check in checks):
            raise UserError("Nothing is published about these weights.")
        return int(any(check.ok is False for check in checks))
