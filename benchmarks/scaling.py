"""How efficient would alexnet_2012 be on several devices and hosts?

Counts the bytes that a step reduces, and predicts, from the speed of one device and of
the links between them, which part of its time a device computes. What is counted comes
from the model; the speeds are parameters, because they are the user's.

    keras-alexnet benchmark scaling
"""

from __future__ import annotations

import keras
from rich.table import Table

import keras_alexnet
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import write_json
from keras_alexnet.inspect.tables import console

# Gigabytes a second that one device sends, and at the same time receives.
LINKS = {
    "8 GPUs, NVLink (150 GB/s)": (8, 150e9),
    "8 GPUs, PCIe 4 (20 GB/s)": (8, 20e9),
    "4 hosts, 100 Gbit": (4, 100e9 / 8),
    "4 hosts, 10 Gbit": (4, 10e9 / 8),
}
# Images a second that one device trains, from a CPU to a large GPU.
SPEEDS = (50, 1_000, 4_000, 12_000)
BATCH_SIZE = 128


def reduced_bytes(model: keras.Model) -> dict[str, int]:
    """Returns the bytes of float32 gradients, by kind of layer."""
    dense = sum(
        layer.count_params()
        for layer in model.layers
        if isinstance(layer, keras.layers.Dense)
    )
    return {
        "convolutions": 4 * (model.count_params() - dense),
        "fully connected": 4 * dense,
    }


def efficiency(
    devices: int, bandwidth: float, size: float, batch: int, images_per_second: float
) -> float:
    """Predicts the part of a step that is computing, if nothing overlaps.

    A ring all-reduce of S bytes over N devices sends 2 (N - 1) / N * S from each.

    Args:
        devices: N.
        bandwidth: Bytes a second from each device.
        size: S.
        batch: Images per device and step.
        images_per_second: What one device trains alone.
    """
    computing = batch / images_per_second
    reducing = 2 * (devices - 1) / devices * size / bandwidth
    return computing / (computing + reducing)


def run(options: Options) -> None:
    """Prints what is reduced, and what follows from it."""
    sizes = reduced_bytes(keras_alexnet.build())
    total = sum(sizes.values())
    for name, size in sizes.items():
        console.print(f"{name}: {size / 1e6:.1f} MB, {size / total:.1%}")
    table = Table(title=f"efficiency, {BATCH_SIZE} images per device and step")
    table.add_column("links")
    for speed in SPEEDS:
        table.add_column(f"{speed:,} images/s", justify="right")
    for name, (devices, bandwidth) in LINKS.items():
        for what, size in (("", total), (", convolutions only", sizes["convolutions"])):
            cells = [
                f"{efficiency(devices, bandwidth, size, BATCH_SIZE, speed):.0%}"
                for speed in SPEEDS
            ]
            table.add_row(name + what, *cells)
    console.print(table)
    write_json("scaling", options, bytes=sizes, links=LINKS, batch_size=BATCH_SIZE)
