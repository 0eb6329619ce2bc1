"""From the values of a search's parameters to a training configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping

from keras_alexnet.errors import UserError
from keras_alexnet.schedules import Constant, parse_schedule
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.setting_types import hints_of
from keras_alexnet.tuning.parameters import Value

# A search compares runs on the same data, of the same length, from the same seed.
_SAME_FOR_ALL = {
    *("recipe", "data", "test_fraction", "seed", "epochs"),
}
# The settings of a run that can be searched under their own names: single values.
SETTINGS = tuple(
    name
    for name, hint in hints_of(TrainConfig).items()
    if name not in _SAME_FOR_ALL and hint != tuple[str, ...]
)


def configured(config: TrainConfig, values: Mapping[str, Value]) -> TrainConfig:
    """Returns a configuration with the values of a search's parameters.

    Args:
        config: What the search varies.
        values: By name, as `SearchSpace.declare` returns them.

    Raises:
        ValueError: They contradict each other or the configuration.
    """
    changes = {name: one for name, one in values.items() if name in SETTINGS}
    if "learning_rate.kind" in values:
        factor = 1.0
        if values.get("scale_rate"):
            # Twice the batch, twice the rate (layer-params-170-256-double.cfg).
            batch = values.get("global_batch_size", config.global_batch_size)
            factor = batch / config.global_batch_size
        changes["learning_rate"] = learning_rate_text(
            _under("learning_rate", values), config.epochs, factor
        )
    elif values.get("scale_rate"):
        raise UserError("scale_rate scales learning_rate.value: search or fix it too.")
    if "dropout.kind" in values:
        changes["dropout"] = dropout_text(_under("dropout", values))
        changes["dropout_by_layer"] = ()
    layers = [
        name.split(".")[1]
        for name in values
        if name.startswith("dropout.") and name.endswith(".kind")
        if name.count(".") == 2
    ]
    if layers:
        changes["dropout_by_layer"] = tuple(
            f"{layer}={dropout_text(_under(f'dropout.{layer}', values))}"
            for layer in layers
        )
    if "augmentation_strength" in values:
        changes = {**_augmented(config, values["augmentation_strength"]), **changes}
    return config.updated(changes)


def learning_rate_text(
    values: Mapping[str, Value], epochs: int, factor: float = 1.0
) -> str:
    """Writes a learning-rate schedule.

    Args:
        values: `kind`, `value` and the attributes of the kind, such as `step.drops`.
        epochs: Length of the run, which a plateau's patience is a fraction of.
        factor: What the rate is multiplied by.

    Returns:
        Such as `"cosine(0.02, warmup=0.05)"`; numbers are rounded to six digits.
    """
    kind, start = values["kind"], values["value"] * factor
    its = _under(kind, values)
    value = _number(start)
    match kind:
        case "step":
            # Evenly spaced, the last followed by half a step.
            points = (
                _number((drop + 1) / (its["drops"] + 0.5))
                for drop in range(its["drops"])
            )
            boundaries = ", ".join(points)
            factor_text = _number(its["factor"])
            return f"step({value}, factor={factor_text}, boundaries=({boundaries},))"
        case "exponential":
            return f"exponential({value}, end={_number(start / its['fall'])})"
        case "dexp":
            fall = _number(its["fall"])
            return f"dexp({value}, target_factor={fall}, levels={its['levels']})"
        case "linear":
            return f"linear({value}, end={_number(start * its['end'])})"
        case "cosine":
            return f"cosine({value}, warmup={_number(its['warmup'])})"
        case "plateau":
            patience = max(1, round(its["patience"] * epochs))
            factor_text = _number(its["factor"])
            return f"plateau({value}, factor={factor_text}, patience={patience})"
    return value


def dropout_text(values: Mapping[str, Value]) -> str:
    """Writes a dropout schedule.

    Args:
        values: `kind`, `value` and the attributes of the kind, such as `linear.end`.

    Returns:
        Such as `"linear(0.5, end=0.2)"`; numbers are rounded to six digits.
    """
    kind, value = values["kind"], _number(values["value"])
    its = {name: _number(one) for name, one in _under(kind, values).items()}
    match kind:
        case "linear" | "cosine":
            return f"{kind}({value}, end={its['end']})"
        case "step":
            return (
                f"step({value}, factor={its['factor']}, "
                f"boundaries=({its['boundary']},))"
            )
        case "curriculum":
            return f"curriculum({value}, gamma={its['gamma']})"
    return value


def _augmented(config: TrainConfig, strength: float) -> dict[str, Value]:
    """Returns the augmentation settings, each multiplied."""
    padding = round(config.crop_padding * strength)
    if config.image_size and config.resize_size:
        # No less than the crop needs.
        needed = math.ceil((config.image_size - config.resize_size) / 2)
        padding = max(padding, needed)
    changes = {
        "crop_padding": padding,
        "rotation": config.rotation * strength,
        "zoom": min(config.zoom * strength, 0.99),
    }
    noise = parse_schedule(config.color_noise)
    if isinstance(noise, Constant):
        changes["color_noise"] = _number(noise.value * strength)
    return changes


def _under(prefix: str, values: Mapping[str, Value]) -> dict[str, Value]:
    start = f"{prefix}."
    return {
        name.removeprefix(start): value
        for name, value in values.items()
        if name.startswith(start)
    }


def _number(value: float) -> str:
    return f"{value:.6g}"
