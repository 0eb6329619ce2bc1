"""What the paper took away from its network, as changes of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from keras_alexnet.architectures import LayerSpec, get_architecture
from keras_alexnet.schedules import Constant, parse_schedule
from keras_alexnet.training.config import TrainConfig


class NotApplicable(Exception):
    """An ablation would change nothing, or something else than it says."""


@dataclasses.dataclass(frozen=True)
class Ablation:
    """One thing taken away.

    Attributes:
        key: A short name, for directories and files.
        name: What people read.
        change: From a configuration and the images' colour channels to the settings
            that it changes; raises `NotApplicable`, with the reason.
        paper: By how much the paper's top-1 and top-5 errors are higher without it, in
            percentage points, in words where it gives no number.
        remark: Where the paper says so, or what else to know.
    """

    key: str
    name: str
    change: Callable[[TrainConfig, int], Mapping[str, Any]]
    paper: tuple[str, str] = ("", "")
    remark: str = ""


def _layers(config: TrainConfig, role: str) -> list[LayerSpec]:
    architecture = get_architecture(config.architecture)
    specs = architecture.features + architecture.top
    return [spec for spec in specs if spec.role == role and spec.layer]


def _no_norm(config: TrainConfig, channels: int) -> Mapping[str, Any]:
    if config.norm != "default":
        raise NotApplicable(f"norm is {config.norm}, not the network's own")
    if not _layers(config, "norm"):
        raise NotApplicable(f"{config.architecture} does not normalise")
    return {"norm": "none"}


def _side_by_side(config: TrainConfig, channels: int) -> Mapping[str, Any]:
    if config.pool != "default":
        raise NotApplicable(f"pool is {config.pool}, not the network's own")
    if not any(
        spec.options.get("pool_size", 0) > spec.options.get("strides", 0)
        for spec in _layers(config, "pool")
    ):
        raise NotApplicable(f"{config.architecture} has no overlapping windows")
    return {"pool": "non_overlapping_max_pooling"}


def _one_tower(config: TrainConfig, channels: int) -> Mapping[str, Any]:
    towers = [spec.options.get("groups", 1) for spec in _layers(config, "conv")]
    if config.groups == 1 or max(towers) == 1:
        raise NotApplicable("the network has one tower")
    return {"groups": 1}


def _half_net(config: TrainConfig, channels: int) -> Mapping[str, Any]:
    if config.architecture != "alexnet_2012_source":
        raise NotApplicable("it is half of alexnet_2012_source")
    if config.groups == 1:
        raise NotApplicable("the network has one tower")
    return {"architecture": "alexnet_2012_half"}


def _no_dropout(config: TrainConfig, channels: int) -> Mapping[str, Any]:
    if parse_schedule(config.dropout) == Constant(0.0):
        raise NotApplicable("dropout is 0")
    return {"dropout": "0"}


def _no_color_noise(config: TrainConfig, channels: int) -> Mapping[str, Any]:
    if channels == 1:
        raise NotApplicable("the images are grey")
    if parse_schedule(config.color_noise) == Constant(0.0):
        raise NotApplicable("color_noise is 0")
    return {"color_noise": "0"}


def _no_crop(config: TrainConfig, channels: int) -> Mapping[str, Any]:
    size = config.image_size or get_architecture(config.architecture).input_size
    if config.augmentation == "modern":
        # Its parts of random size, and the jitter that comes with them.
        return {"augmentation": "2012", "color_noise": "0", "resize_size": size}
    if config.resize_size == size and not config.crop_padding:
        raise NotApplicable("images are as large as the network's input")
    # The whole image, in training as in testing.
    return {"resize_size": size, "crop_padding": 0}


def _no_augmentation(config: TrainConfig, channels: int) -> Mapping[str, Any]:
    changes = {
        "horizontal_flip": False,
        "rotation": 0.0,
        "zoom": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
    }
    changes = {k: v for k, v in changes.items() if getattr(config, k) != v}
    for change in (_no_crop, _no_color_noise):
        try:
            changes.update(change(config, channels))
        except NotApplicable:
            continue
    if not changes:
        raise NotApplicable("images are not changed")
    return changes


# The paper's text, with which the logs of its program agree to two decimals:
# layer-params-145.cfg and -145-2010.cfg against -145-half, -147 and -148.
ABLATIONS = (
    Ablation(
        "no-lrn", "no normalisation", _no_norm, ("+1.4", "+1.2"), "paper, section 3.3"
    ),
    Ablation(
        "no-overlap",
        "pooling side by side",
        _side_by_side,
        ("+0.4", "+0.3"),
        "paper, section 3.4",
    ),
    Ablation(
        "one-tower",
        "one tower, joined",
        _one_tower,
        remark="more weights than two; the paper halves the net instead",
    ),
    Ablation(
        "half-net",
        "one tower, half the net",
        _half_net,
        ("+1.7", "+1.2"),
        "paper, section 3.2",
    ),
    Ablation(
        "no-dropout", "no dropout", _no_dropout, ("overfits", ""), "paper, section 4.2"
    ),
    Ablation(
        "no-color-noise",
        "no colour noise",
        _no_color_noise,
        ("over +1", ""),
        "paper, section 4.1",
    ),
    Ablation(
        "no-augmentation",
        "no augmentation",
        _no_augmentation,
        ("overfits", ""),
        "paper, section 4.1",
    ),
    Ablation("no-crop", "no crop", _no_crop, remark="the whole image, in testing too"),
)
