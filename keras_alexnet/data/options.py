"""Options behind the name of a source, as in an address: `NAME?key=value&key=value`."""

from __future__ import annotations

import re

from keras_alexnet.errors import UserError, unknown


def parse_options(argument: str, known: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Separates a name from its options.

    Args:
        argument: What follows the kind of source. A question mark begins the options
            only where a word and an equals sign follow it, because patterns of file
            names have question marks too.
        known: The options that there are, with their defaults.

    Returns:
        The name, and all options.

    Raises:
        ValueError: An option is unknown.
    """
    name, mark, text = re.match(r"(?s)(.*?)(?:(\?)(\w+=.*))?$", argument).groups()
    options = dict(known)
    for option in text.split("&") if mark else []:
        key, _, value = option.partition("=")
        if key not in known:
            raise UserError(unknown(key, "option of the source", known))
        options[key] = value
    return name, options
