"""`keras-alexnet lpips`: perceptual distances between images."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import tyro

from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Lpips:
    """Print the perceptual distance (LPIPS 0.1, AlexNet) between pairs of images."""

    first: tyro.conf.Positional[str]
    """An image file, or a folder of them."""
    second: tyro.conf.Positional[str]
    """The other one, or a folder of images of the same names."""
    weights: str = "torchvision-alexnet"
    """Convolutions: published weights by name, or a file of torchvision's alexnet."""
    heads: str = "lpips-alex"
    """Weights of the channels: published ones by name, or a file."""
    csv: bool = False
    """Print lines of comma-separated values: first, second, distance."""

    def run(self) -> int:
        """Prints a distance for each pair."""
        from keras_alexnet.features.lpips import LPIPS

        pairs = list(self._pairs())
        lpips = LPIPS(self.weights, self.heads)
        writer = csv.writer(sys.stdout, lineterminator="\n")
        if self.csv:
            writer.writerow(("first", "second", "lpips"))
        failed, total = 0, 0.0
        for pair in pairs:
            try:
                images = [_read(path)[None] for path in pair]
                distance = float(lpips.distances(*images)[0])
            except UserError as error:
                print(f"{pair[0]} and {pair[1]}: {error}", file=sys.stderr)
                failed += 1
                continue
            total += distance
            if self.csv:
                writer.writerow((*pair, f"{distance:.6f}"))
            else:
                print(f"{distance:.6f}  {pair[0]}  {pair[1]}")
        if len(pairs) > 1 and failed < len(pairs) and not self.csv:
            print(f"{total / (len(pairs) - failed):.6f}  mean of {len(pairs) - failed}")
        return 2 if failed else 0

    def _pairs(self) -> Iterator[tuple[Path, Path]]:
        from keras_alexnet.data.folder import is_image, visible_files

        first, second = Path(self.first), Path(self.second)
        if first.is_dir() != second.is_dir():
            raise UserError("Compare two files, or two folders.")
        if not first.is_dir():
            yield first, second
            return
        names = [
            {str(name) for name in visible_files(folder) if is_image(name)}
            for folder in (first, second)
        ]
        if lonely := names[0] ^ names[1]:
            raise UserError(
                f"{len(lonely)} images have no partner of the same name, such as "
                f"{min(lonely)}."
            )
        if not names[0]:
            raise UserError(f"There are no images in {first}.")
        for name in sorted(names[0]):
            yield first / name, second / name


def _read(path: Path):
    """Reads an image file as RGB, 0-255.

    Raises:
        UserError: It cannot be read.
    """
    import tensorflow as tf

    from keras_alexnet.data.skipped import reason
    from keras_alexnet.images.decoding import decode

    try:
        return decode(tf.io.read_file(str(path)), 3)
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from None
