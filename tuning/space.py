"""Search space: which settings are searched, in which ranges, and which are fixed.

A space is plain data. Keras Tuner's hyperparameters are declared from it, and values of
them become a training configuration.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras_tuner

from keras_alexnet.architectures import get_architecture
from keras_alexnet.errors import UserError, unknown
from keras_alexnet.schedules import Constant, parse_schedule
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.setting_types import hints_of
from keras_alexnet.tuning.parameters import (
    DROPOUT,
    DROPOUT_KINDS,
    EVERYTHING,
    LEARNING_RATE,
    PRESETS,
    Parameter,
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
# A name, the parameter or its fixed value, and which others must have which values.
_Declared = tuple[str, Parameter | Value, tuple[tuple[str, Value], ...]]
_JSON_TYPES = {str: "text", list: "list", dict: "object"}


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Parameters that are searched, and parameters that are fixed.

    Names are those of `keras_alexnet.tuning.parameters`, such as `learning_rate.kind`
    and `dropout.cosine.end`, or any setting of `TrainConfig` that is a plain value. A
    parameter that belongs to a kind of schedule counts for that kind only; one that a
    chosen kind needs, but the space lacks, has the middle of its usual range.

    With `dropout.per_layer`, each dropout layer has the parameters of `dropout` for
    itself, called `dropout.drop6.kind` and so on; one given under that name takes the
    place of the shared one.

    Attributes:
        parameters: What is searched, by name.
        fixed: Values of other parameters, by name.

    Raises:
        UserError: A name is unknown, or given twice.

    Example:
    >>> space = get_space("schedules").only("learning_rate")
    >>> space = space.fix({"learning_rate.kind": "cosine"})
    >>> space = space.with_({"momentum": Range(0.85, 0.95)})
    """

    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Value] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        parameters = {
            name: read_parameter(name, one) for name, one in self.parameters.items()
        }
        object.__setattr__(self, "parameters", MappingProxyType(parameters))
        object.__setattr__(self, "fixed", MappingProxyType(dict(self.fixed)))
        for name in self._given:
            words = name.split(".")
            of_layer = words[0] == "dropout" and ".".join(words[2:]) in DROPOUT
            if not (name in EVERYTHING or name in SETTINGS or of_layer):
                raise UserError(unknown(name, "parameter", [*EVERYTHING, *SETTINGS]))
            if name in self.parameters and name in self.fixed:
                raise UserError(f"{name} is both searched and fixed.")

    @property
    def _given(self) -> dict[str, Parameter | Value]:
        return {**self.parameters, **self.fixed}

    def only(self, *names: str) -> SearchSpace:
        """Returns the part of the space with these names.

        Args:
            *names: Parameters, or what their names begin with: `"dropout"` stands for
                all of dropout's.

        Raises:
            UserError: The space has nothing of that name.
        """

        def part(values: Mapping[str, Any]) -> dict[str, Any]:
            return {
                one: value
                for one, value in values.items()
                if any(f"{one}.".startswith(f"{name}.") for name in names)
            }

        for name in names:
            if not any(f"{one}.".startswith(f"{name}.") for one in self._given):
                raise UserError(
                    unknown(name, "parameter of this space", self.parameters)
                )
        return SearchSpace(part(self.parameters), part(self.fixed))

    def with_(self, parameters: Mapping[str, Any]) -> SearchSpace:
        """Returns the space with more parameters, or other ranges.

        Args:
            parameters: By name a `Range`, a `Choice`, or what stands for one in a file.

        Raises:
            UserError: A name is unknown, or a parameter makes no sense.
        """
        fixed = {k: v for k, v in self.fixed.items() if k not in parameters}
        return SearchSpace({**self.parameters, **parameters}, fixed)

    def fix(self, values: Mapping[str, Value]) -> SearchSpace:
        """Returns the space with some parameters fixed.

        Args:
            values: By name.

        Raises:
            UserError: A name is unknown.
        """
        left = {k: v for k, v in self.parameters.items() if k not in values}
        return SearchSpace(left, {**self.fixed, **values})

    def to_dict(self) -> dict[str, Any]:
        """Returns the space as JSON values, which `SearchSpace.from_dict` reads."""
        parameters = {name: one.to_json() for name, one in self.parameters.items()}
        return {"parameters": parameters, "fix": dict(self.fixed)}

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
        known = {"preset": str, "only": list, "parameters": dict, "fix": dict}
        for key, value in values.items():
            if key not in known:
                raise UserError(unknown(str(key), "key of a search space", known))
            if not isinstance(value, known[key]):
                raise UserError(
                    f"{key} must be a JSON {_JSON_TYPES[known[key]]}. "
                    f"Received: {value!r}"
                )
        space = get_preset(values["preset"]) if "preset" in values else cls()
        if "only" in values:
            space = space.only(*values["only"])
        return space.with_(values.get("parameters", {})).fix(values.get("fix", {}))

    def declare(
        self, hp: keras_tuner.HyperParameters, config: TrainConfig
    ) -> dict[str, Value]:
        """Declares the space's hyperparameters.

        A hyperparameter of a schedule's kind is declared in Keras Tuner's
        `conditional_scope`, and its value is returned only where the kind is chosen.

        Args:
            hp: Where to declare them.
            config: The configuration that the search varies; its architecture has the
                dropout layers.

        Returns:
            The values of those that are active, fixed ones too.
        """
        values: dict[str, Value] = {}
        for name, parameter, conditions in self._declared(config):
            active = all(values.get(parent) == one for parent, one in conditions)
            value = parameter
            if isinstance(parameter, Parameter):
                with ExitStack() as scopes:
                    for parent, one in conditions:
                        scopes.enter_context(hp.conditional_scope(parent, [one]))
                    value = parameter.declare(hp, name)
            # Keras Tuner returns None where it is not, and a default on the way there.
            if active:
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
        for name, parameter, conditions in searched:
            for corner in parameter.corners:
                hp = keras_tuner.HyperParameters()
                hp.values = {**dict(conditions), name: corner}
                try:
                    self.configure(hp, config)
                except UserError as error:
                    raise UserError(f"{name} = {corner!r}: {error}") from None

    def _declared(self, config: TrainConfig) -> Iterator[_Declared]:
        """Yields all parameters, searched or fixed, those with conditions later."""
        given = self._given
        if any(name.startswith("learning_rate.") for name in given):
            yield from self._schedule("learning_rate", config.learning_rate, ())
        if any(name.startswith("dropout.") for name in given):
            yield from self._dropouts(config)
        for name, one in given.items():
            if not name.startswith(("learning_rate.", "dropout.")):
                yield name, one, ()

    def _dropouts(self, config: TrainConfig) -> Iterator[_Declared]:
        architecture = get_architecture(config.architecture)
        specs = architecture.features + architecture.top
        layers = [spec.name for spec in specs if spec.role == "dropout"]
        for name in self._given:
            layer = name.split(".")[1] if name.startswith("dropout.") else None
            if layer and name.count(".") > 1 and layer not in (*layers, *DROPOUT_KINDS):
                raise UserError(unknown(layer, "dropout layer", layers))
        name = "dropout.per_layer"
        per_layer = self._given.get(name, False)
        searched = isinstance(per_layer, Parameter)
        if name in self._given:
            yield name, per_layer, ()
        prefixes = {"dropout": False, **{f"dropout.{one}": True for one in layers}}
        for prefix, own in prefixes.items():
            if searched or bool(per_layer) == own:
                conditions = ((name, own),) if searched else ()
                yield from self._schedule(prefix, config.dropout, conditions)

    def _schedule(
        self, prefix: str, text: str, conditions: tuple[tuple[str, Value], ...]
    ) -> Iterator[_Declared]:
        """Yields the parameters of a schedule: its kind, its value, its kind's own.

        Args:
            prefix: What their names begin with.
            text: The configuration's own schedule, for what the space does not mention.
            conditions: What must hold for all of them.
        """
        usual = LEARNING_RATE if prefix == "learning_rate" else DROPOUT
        own = parse_schedule(text)
        kinds = usual["kind"].values
        own_kind = type(own).__name__.lower()
        fallback = {
            **{name: one.middle for name, one in usual.items()},
            "kind": own_kind if own_kind in kinds else usual["kind"].middle,
            "value": getattr(own, "value", usual["value"].middle),
        }

        def find(name: str) -> Parameter | Value:
            shared = self._given.get(f"{prefix.split('.')[0]}.{name}", fallback[name])
            return self._given.get(f"{prefix}.{name}", shared)

        kind = find("kind")
        possible = kind.values if isinstance(kind, Parameter) else (kind,)
        for one in possible:
            if one not in kinds:
                raise UserError(unknown(str(one), f"kind of {prefix}", kinds))
        yield f"{prefix}.kind", kind, conditions
        yield f"{prefix}.value", find("value"), conditions
        for name in usual:
            of_kind, dot, _ = name.partition(".")
            if dot and of_kind in possible:
                chosen = ((f"{prefix}.kind", of_kind),)
                needed = chosen if isinstance(kind, Parameter) else ()
                yield f"{prefix}.{name}", find(name), conditions + needed


def get_preset(name: str) -> SearchSpace:
    """Returns the space of a name.

    Args:
        name: `"schedules"` (learning rate and dropout), `"recipe"` (also momentum,
            weight decay, batch size, augmentation) or `"everything"` (also the network,
            and dropout by layer).

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
    if "learning_rate.kind" in values:
        factor = 1.0
        if values.get("scale_rate"):
            # Twice the batch, twice the rate (layer-params-170-256-double.cfg).
            batch = values.get("global_batch_size", config.global_batch_size)
            factor = batch / config.global_batch_size
        changes["learning_rate"] = _learning_rate_text(values, config.epochs, factor)
    elif values.get("scale_rate"):
        raise UserError("scale_rate scales learning_rate.value: search or fix it too.")
    # Of all layers, or of single ones: dropout.kind, dropout.drop6.kind.
    dropouts = [
        name.removesuffix(".kind")
        for name in values
        if name.startswith("dropout.") and name.endswith(".kind")
    ]
    if dropouts == ["dropout"]:
        changes["dropout"] = _dropout_text("dropout", values)
        changes["dropout_by_layer"] = ()
    elif dropouts:
        changes["dropout_by_layer"] = tuple(
            f"{prefix.removeprefix('dropout.')}={_dropout_text(prefix, values)}"
            for prefix in dropouts
        )
    if "augmentation_magnitude" in values:
        changes = {**_augmented(config, values["augmentation_magnitude"]), **changes}
    return config.updated(changes)


def _learning_rate_text(
    values: Mapping[str, Value], epochs: int, factor: float = 1.0
) -> str:
    """Writes a learning-rate schedule, such as `"cosine(0.02, warmup=0.05)"`.

    Args:
        values: `learning_rate.kind`, `.value` and the attributes of the kind.
        epochs: Length of the run, which a plateau's patience is a fraction of.
        factor: What the rate is multiplied by.
    """
    kind, start, its = _schedule_of("learning_rate", values)
    start *= factor
    match kind:
        case "step":
            # Evenly spaced, the last followed by half a step.
            drops = its.pop("drops")
            its["boundaries"] = [(n + 1) / (drops + 0.5) for n in range(drops)]
        case "exponential":
            its = {"end": start / its["fall"]}
        case "dexp":
            its = {"target_factor": its["fall"], "levels": its["levels"]}
        case "linear":
            its = {"end": start * its["end"]}
        case "plateau":
            its["patience"] = max(1, round(its["patience"] * epochs))
    return _text(kind, start, its)


def _dropout_text(prefix: str, values: Mapping[str, Value]) -> str:
    """Writes a dropout schedule, such as `"linear(0.5, end=0.2)"`."""
    kind, start, its = _schedule_of(prefix, values)
    if kind == "step":
        its["boundaries"] = [its.pop("boundary")]
    return _text(kind, start, its)


def _schedule_of(
    prefix: str, values: Mapping[str, Value]
) -> tuple[str, float, dict[str, Any]]:
    """Returns a schedule's kind, its value, and the attributes of its kind."""
    kind = values[f"{prefix}.kind"]
    start = f"{prefix}.{kind}."
    its = {k.removeprefix(start): v for k, v in values.items() if k.startswith(start)}
    return kind, values[f"{prefix}.value"], its


def _text(kind: str, start: float, its: Mapping[str, Any]) -> str:
    """Writes a schedule, with numbers rounded to six digits."""
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
