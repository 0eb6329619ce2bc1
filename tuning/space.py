"""Search space: which settings are searched, in which ranges, and which are fixed.

A space is plain data. Keras Tuner's hyperparameters are declared from it, and values of
them become a training configuration.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras_tuner

from keras_alexnet.errors import UserError, unknown
from keras_alexnet.schedules import Constant, parse_schedule
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.setting_types import hints_of
from keras_alexnet.tuning.parameters import (
    DROPOUT,
    EVERYTHING,
    LEARNING_RATE,
    PRESETS,
    Choice,
    Needed,
    Parameter,
    Range,
    Value,
    read_parameter,
)

# A search compares runs on the same data, of the same length, from the same seed.
_SAME_FOR_ALL = {"recipe", "data", "test_fraction", "seed", "epochs"}
# The settings of a run that can be searched under their own names: single values.
SETTINGS = tuple(
    name
    for name, hint in hints_of(TrainConfig).items()
    if name not in _SAME_FOR_ALL and hint != tuple[str, ...]
)
# A name, the parameter or its fixed value, and the kind of schedule that it belongs to.
_Declared = tuple[str, Parameter | Value, Needed]
_FILE = {"preset": str, "only": list, "parameters": dict, "fix": dict}
_JSON_TYPES = {str: "text", list: "list", dict: "object"}


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Parameters that are searched, and parameters that are fixed.

    Names are those of `keras_alexnet.tuning.parameters`, such as `learning_rate.kind`
    and `dropout.cosine.end`, or any setting of `TrainConfig` that is a plain value. A
    parameter that belongs to a kind of schedule counts for that kind only; one that a
    chosen kind needs, but the space lacks, has the middle of its usual range.

    Attributes:
        parameters: By name a `Range`, a `Choice`, or a value that is fixed.

    Raises:
        UserError: A name is unknown, or a parameter makes no sense.

    Example:
    >>> space = get_space("schedules").only("learning_rate")
    >>> space = space.with_({"learning_rate.kind": "cosine"})
    >>> space = space.with_({"momentum": Range(0.85, 0.95)})
    """

    parameters: Mapping[str, Parameter | Value] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        parameters = {
            name: read_parameter(name, one) for name, one in self.parameters.items()
        }
        object.__setattr__(self, "parameters", MappingProxyType(parameters))
        for name in parameters:
            if name not in (known := {**EVERYTHING, **dict.fromkeys(SETTINGS)}):
                raise UserError(unknown(name, "parameter", known))

    def only(self, *names: str) -> SearchSpace:
        """Returns the part of the space with these names.

        Args:
            *names: Parameters, or what their names begin with: `"dropout"` stands for
                all of dropout's.

        Raises:
            UserError: The space has nothing of that name.
        """
        part = {}
        for name in names:
            found = {
                one: value
                for one, value in self.parameters.items()
                if f"{one}.".startswith(f"{name}.")
            }
            if not found:
                raise UserError(
                    unknown(name, "parameter of this space", self.parameters)
                )
            part |= found
        return SearchSpace(part)

    def with_(self, parameters: Mapping[str, Any]) -> SearchSpace:
        """Returns the space with more parameters, other ranges, or fixed values.

        Args:
            parameters: By name a `Range`, a `Choice`, what stands for one in a file, or
                a value that is fixed.

        Raises:
            UserError: A name is unknown, or a parameter makes no sense.
        """
        return SearchSpace({**self.parameters, **parameters})

    def to_dict(self) -> dict[str, Any]:
        """Returns the space as JSON values, which `SearchSpace.from_dict` reads."""
        written = {}
        for name, one in self.parameters.items():
            one = list(one.values) if isinstance(one, Choice) else one
            written[name] = dataclasses.asdict(one) if isinstance(one, Range) else one
        return {"parameters": written}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSpace:
        """Makes a space from what a file holds.

        Args:
            values: `preset`, the space to begin with (none by default); `only`, the
                names to keep of it; `parameters`, more or other ranges by name; `fix`,
                fixed values by name.

        Raises:
            UserError: A key or a name is unknown, or a parameter makes no sense.
        """
        for key, value in values.items():
            if key not in _FILE:
                raise UserError(unknown(str(key), "key of a search space", _FILE))
            if not isinstance(value, _FILE[key]):
                raise UserError(
                    f"{key} must be a JSON {_JSON_TYPES[_FILE[key]]}. "
                    f"Received: {value!r}"
                )
        space = get_preset(values["preset"]) if "preset" in values else cls()
        if "only" in values:
            space = space.only(*values["only"])
        return space.with_({**values.get("parameters", {}), **values.get("fix", {})})

    def declare(
        self, hp: keras_tuner.HyperParameters, config: TrainConfig
    ) -> dict[str, Value]:
        """Declares the space's hyperparameters.

        Args:
            hp: Where to declare them.
            config: The configuration that the search varies.

        Returns:
            The values of those that are active, fixed ones too: what belongs to a kind
            of schedule only where that is chosen.
        """
        values: dict[str, Value] = {}
        for name, value, needed in self._declared(config):
            if isinstance(value, Parameter):
                value = value.declare(hp, name, needed)
            # Keras Tuner returns None where it is not, and a default on the way there.
            if needed is None or values[needed[0]] == needed[1]:
                values[name] = value
        return values

    def configure(
        self, hp: keras_tuner.HyperParameters, config: TrainConfig
    ) -> tuple[dict[str, Value], TrainConfig]:
        """Turns values of hyperparameters into a training configuration.

        Args:
            hp: Hyperparameters with values.
            config: What the search varies.

        Returns:
            The values of those that are active and searched, and the configuration.

        Raises:
            UserError: The values contradict each other or the configuration.
        """
        values = self.declare(hp, config)
        searched = {name: value for name, value in values.items() if name in hp.values}
        return searched, _configured(config, values)

    def check(self, config: TrainConfig) -> None:
        """Tries the ends of every range on a configuration.

        Raises:
            UserError: The space is empty, or leads to what cannot be configured.
        """
        declared = list(self._declared(config))
        searched = [one for one in declared if isinstance(one[1], Parameter)]
        if not searched:
            raise UserError(
                "The search space is empty: nothing in it is searched. Choose "
                f"{', '.join(PRESETS)}, or a file with parameters."
            )
        for name, parameter, needed in searched:
            for corner in parameter.corners:
                hp = keras_tuner.HyperParameters()
                hp.values = {**dict([needed] if needed else []), name: corner}
                try:
                    self.configure(hp, config)
                except UserError as error:
                    raise UserError(f"{name} = {corner!r}: {error}") from None

    def _declared(self, config: TrainConfig) -> Iterator[_Declared]:
        """Yields all parameters, searched or fixed, kinds before what is theirs."""
        for name, usual in (("learning_rate", LEARNING_RATE), ("dropout", DROPOUT)):
            if any(one.startswith(f"{name}.") for one in self.parameters):
                yield from self._schedule(name, usual, getattr(config, name))
        for name, one in self.parameters.items():
            if "." not in name:
                yield name, one, None

    def _schedule(
        self, prefix: str, usual: Mapping[str, Parameter], text: str
    ) -> Iterator[_Declared]:
        """Yields the parameters of a schedule: its kind, its value, its kind's own.

        Args:
            prefix: What their names begin with.
            usual: The presets' parameters.
            text: The configuration's own schedule, for what the space does not mention.
        """
        kinds = usual["kind"].values
        own = parse_schedule(text)
        found = {name: one.middle for name, one in usual.items()}
        if type(own).__name__.lower() in kinds:
            found["kind"] = type(own).__name__.lower()
        found["value"] = getattr(own, "value", found["value"])
        found = {k: self.parameters.get(f"{prefix}.{k}", x) for k, x in found.items()}
        searched = isinstance(found["kind"], Parameter)
        possible = found["kind"].values if searched else (found["kind"],)
        for one in possible:
            if one not in kinds:
                raise UserError(unknown(str(one), f"kind of {prefix}", kinds))
        for name, one in found.items():
            kind, dot, _ = name.partition(".")
            if not dot or kind in possible:
                needed = (f"{prefix}.kind", kind) if dot and searched else None
                yield f"{prefix}.{name}", one, needed


def get_preset(name: str) -> SearchSpace:
    """Returns the space of a name.

    Args:
        name: `"schedules"` (learning rate and dropout), `"recipe"` (also momentum,
            weight decay, batch size, augmentation) or `"everything"` (also the
            network).

    Raises:
        UserError: There is none.
    """
    if name not in PRESETS:
        raise UserError(unknown(name, "search space", PRESETS, "or a JSON file"))
    return SearchSpace(PRESETS[name])


def get_space(space: str | Path | SearchSpace) -> SearchSpace:
    """Returns a space: itself, that of a name, or that of a JSON file.

    Raises:
        UserError: There is no such space or file, or it makes no sense.
    """
    if isinstance(space, SearchSpace):
        return space
    if str(space) in PRESETS or not (Path(space).suffix or Path(space).is_file()):
        return get_preset(str(space))
    try:
        values = json.loads(Path(space).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {space}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{space} is not JSON: {error}") from None
    try:
        if not isinstance(values, dict):
            raise UserError("it does not hold a search space.")
        return SearchSpace.from_dict(values)
    except UserError as error:
        raise UserError(f"{space}: {error}") from None


# === From values to a configuration ===


def _configured(config: TrainConfig, values: Mapping[str, Value]) -> TrainConfig:
    """Returns a configuration with the values of a search's parameters.

    Args:
        config: What the search varies.
        values: By name, as `SearchSpace.declare` returns them.

    Raises:
        UserError: They contradict each other or the configuration.
    """
    changes = {name: one for name, one in values.items() if name in SETTINGS}
    for name in ("learning_rate", "dropout"):
        if f"{name}.kind" in values:
            changes[name] = _schedule_text(name, values, config.epochs)
    if "dropout.kind" in values:
        changes["dropout_by_layer"] = ()
    if "augmentation_magnitude" in values:
        changes = {**_augmented(config, values["augmentation_magnitude"]), **changes}
    return config.updated(changes)


def _schedule_text(prefix: str, values: Mapping[str, Value], epochs: int) -> str:
    """Writes a schedule, such as `"cosine(0.02, warmup=0.05)"`, to six digits.

    Args:
        prefix: `"learning_rate"` or `"dropout"`.
        values: Of the prefix, `.kind`, `.value` and the attributes of the kind.
        epochs: Length of the run, which a plateau's patience is a fraction of.
    """
    kind, start = values[f"{prefix}.kind"], values[f"{prefix}.value"]
    own = f"{prefix}.{kind}."
    its = {k.removeprefix(own): v for k, v in values.items() if k.startswith(own)}
    match prefix, kind:
        case "dropout", "step":
            its["boundaries"] = [its.pop("boundary")]
        case _, "step":
            # Evenly spaced, the last followed by half a step.
            drops = its.pop("drops")
            its["boundaries"] = [(n + 1) / (drops + 0.5) for n in range(drops)]
        case _, "exponential":
            its = {"end": start / its["fall"]}
        case _, "dexp":
            its = {"target_factor": its["fall"], "levels": its["levels"]}
        case "learning_rate", "linear":
            its = {"end": start * its["end"]}
        case _, "plateau":
            its["patience"] = max(1, round(its["patience"] * epochs))
    if kind == "constant":
        return _number(start)
    attributes = (f"{name}={_number(one)}" for name, one in its.items())
    return f"{kind}({', '.join([_number(start), *attributes])})"


def _number(value: float | list[float]) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(_number, value))},)"
    return f"{value:.6g}"


def _augmented(config: TrainConfig, magnitude: float) -> dict[str, Value]:
    """Returns the augmentation settings, each multiplied."""
    padding = round(config.crop_padding * magnitude)
    if config.image_size and config.resize_size:
        # No less than the crop needs.
        needed = math.ceil((config.image_size - config.resize_size) / 2)
        padding = max(padding, needed)
    changes = {
        "crop_padding": padding,
        "rotation": config.rotation * magnitude,
        "zoom": min(config.zoom * magnitude, 0.99),
    }
    noise = parse_schedule(config.color_noise)
    if isinstance(noise, Constant):
        changes["color_noise"] = _number(noise.value * magnitude)
    return changes
