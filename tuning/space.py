"""The space that a search looks through, as plain data.

A space says which parameters are searched, and which have a fixed value. Keras Tuner's
hyperparameters are declared from it, and values of them become a training
configuration.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras_tuner

from keras_alexnet.architectures import get_architecture
from keras_alexnet.errors import UserError, unknown
from keras_alexnet.schedules import parse_schedule
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.tuning.applying import SETTINGS, configured
from keras_alexnet.tuning.parameters import (
    Parameter,
    Value,
    read_parameter,
    written,
)
from keras_alexnet.tuning.presets import (
    DROPOUT,
    DROPOUT_KINDS,
    EVERYTHING,
    LEARNING_RATE,
    PRESETS,
)


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Parameters that are searched, and parameters that are fixed.

    Names are those of `keras_alexnet.tuning.presets`, such as `learning_rate.kind` and
    `dropout.cosine.end`, or any setting of `TrainConfig` that is a plain value. A
    parameter that belongs to a kind of schedule counts for that kind only; one that a
    chosen kind needs, but the space lacks, has the middle of its usual range.

    With `dropout.per_layer`, each dropout layer has the parameters of `dropout` for
    itself, called `dropout.drop6.kind` and so on; one given under that name takes the
    place of the shared one.

    Attributes:
        parameters: What is searched, by name.
        fixed: Values of other parameters, by name.

    Raises:
        ValueError: A name is unknown, or given twice.

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
        for name in [*self.parameters, *self.fixed]:
            _check_name(name)
            if name in self.parameters and name in self.fixed:
                raise UserError(f"{name} is both searched and fixed.")

    def only(self, *names: str) -> SearchSpace:
        """Returns the part of the space with these names.

        Args:
            *names: Parameters, or what their names begin with: `"dropout"` stands for
                all of dropout's.

        Raises:
            ValueError: The space has nothing of that name.
        """
        for name in names:
            if not any(_begins(one, name) for one in [*self.parameters, *self.fixed]):
                raise UserError(
                    unknown(name, "parameter of this space", self.parameters)
                )

        def part(values: Mapping[str, Any]) -> dict[str, Any]:
            return {
                one: value
                for one, value in values.items()
                if any(_begins(one, name) for name in names)
            }

        return SearchSpace(part(self.parameters), part(self.fixed))

    def with_(self, parameters: Mapping[str, Any]) -> SearchSpace:
        """Returns the space with more parameters, or other ranges.

        Args:
            parameters: By name a `Range`, a `Choice`, or what stands for one in a file.

        Raises:
            ValueError: A name is unknown, or a parameter makes no sense.
        """
        fixed = {k: v for k, v in self.fixed.items() if k not in parameters}
        return SearchSpace({**self.parameters, **parameters}, fixed)

    def fix(self, values: Mapping[str, Value]) -> SearchSpace:
        """Returns the space with some parameters fixed.

        Args:
            values: By name.

        Raises:
            ValueError: A name is unknown.
        """
        left = {k: v for k, v in self.parameters.items() if k not in values}
        return SearchSpace(left, {**self.fixed, **values})

    def to_dict(self) -> dict[str, Any]:
        """Returns the space as JSON values, which `SearchSpace.from_dict` reads."""
        parameters = {name: written(one) for name, one in self.parameters.items()}
        return {"parameters": parameters, "fix": dict(self.fixed)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSpace:
        """Makes a space from what a file holds.

        Args:
            values: `preset`, the space to begin with (none by default); `only`, the
                names to keep of it; `parameters`, more or other ranges by name; `fix`,
                fixed values by name.

        Raises:
            ValueError: A key or a name is unknown, or a parameter makes no sense.
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
            if not isinstance(parameter, Parameter):
                if active:
                    values[name] = parameter
                continue
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
            ValueError: The values contradict each other or the configuration.
        """
        values = self.declare(hp, config)
        searched = {name: value for name, value in values.items() if name in hp.values}
        return searched, configured(config, values)

    def check(self, config: TrainConfig) -> None:
        """Tries the ends of every range on a configuration.

        Raises:
            ValueError: The space is empty, or leads to what cannot be configured.
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
                except ValueError as error:
                    raise UserError(f"{name} = {corner!r}: {error}") from None

    def _declared(self, config: TrainConfig) -> Iterator[_Declared]:
        """Yields all parameters, searched or fixed, those with conditions later."""
        given = {**self.parameters, **self.fixed}
        if any(name.startswith("learning_rate.") for name in given):
            yield from self._schedule("learning_rate", config.learning_rate, ())
        if any(name.startswith("dropout.") for name in given):
            yield from self._dropouts(config)
        for name, one in given.items():
            if not name.startswith(("learning_rate.", "dropout.")):
                yield name, one, ()

    def _dropouts(self, config: TrainConfig) -> Iterator[_Declared]:
        given = {**self.parameters, **self.fixed}
        layers = _dropout_layers(config)
        for name in given:
            layer = name.split(".")[1] if name.startswith("dropout.") else None
            if layer and name.count(".") > 1 and layer not in (*layers, *DROPOUT_KINDS):
                raise UserError(unknown(layer, "dropout layer", layers))
        name = "dropout.per_layer"
        per_layer = given.get(name, False)
        searched = isinstance(per_layer, Parameter)
        if name in given:
            yield name, per_layer, ()
        if searched or not per_layer:
            conditions = ((name, False),) if searched else ()
            yield from self._schedule("dropout", config.dropout, conditions)
        if searched or per_layer:
            conditions = ((name, True),) if searched else ()
            for layer in layers:
                yield from self._schedule(
                    f"dropout.{layer}", config.dropout, conditions
                )

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
            for place in (prefix, prefix.split(".")[0]):
                for values in (self.parameters, self.fixed):
                    if f"{place}.{name}" in values:
                        return values[f"{place}.{name}"]
            return fallback[name]

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


# A name, the parameter or its fixed value, and which others must have which values.
_Declared = tuple[str, Parameter | Value, tuple[tuple[str, Value], ...]]
_JSON_TYPES = {str: "text", list: "list", dict: "object"}


def get_preset(name: str) -> SearchSpace:
    """Returns the space of a name.

    Args:
        name: `"schedules"` (learning rate and dropout), `"recipe"` (also momentum,
            weight decay, batch size, augmentation) or `"everything"` (also the network,
            and dropout by layer).

    Raises:
        ValueError: There is none.
    """
    if name not in PRESETS:
        raise UserError(unknown(name, "search space", PRESETS, "or a JSON file"))
    return SearchSpace(PRESETS[name])


def get_space(space: str | Path | SearchSpace) -> SearchSpace:
    """Returns a space: itself, that of a name, or that of a JSON file.

    Raises:
        ValueError: There is no such space or file, or it makes no sense.
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
    except ValueError as error:
        raise UserError(f"{space}: {error}") from None


def _begins(name: str, beginning: str) -> bool:
    return name == beginning or name.startswith(f"{beginning}.")


def _check_name(name: str) -> None:
    """Raises a ValueError unless a parameter has a meaning."""
    words = name.split(".")
    of_layer = words[0] == "dropout" and ".".join(words[2:]) in DROPOUT
    if not (name in EVERYTHING or name in SETTINGS or of_layer):
        raise UserError(unknown(name, "parameter", [*EVERYTHING, *SETTINGS]))


def _dropout_layers(config: TrainConfig) -> list[str]:
    architecture = get_architecture(config.architecture)
    layers = architecture.features + architecture.top
    return [spec.name for spec in layers if spec.role == "dropout"]
