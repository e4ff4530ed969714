"""The rules of settings: how one is declared, and what makes a set of them acceptable.

They are ours because no library of settings knows that one belongs to a family of models, or needs values of others,
and can say so in a sentence.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import field
from typing import Any

from galaxies.common.errors import UserError


def setting(default: Any, help: str, **rules: Any) -> Any:
    """Declare a setting, a field of a dataclass.

    Parameters
    ----------
    default : int, float, str, bool or tuple of str
    help : str
        One line, with the unit.
    **rules
        ``low`` and ``high``, limits of a number (``low`` is 0 if only the other is given); ``choices``; ``option``,
        False for one that no command line has; ``family``, "GAN" or "diffusion" if only that model has it; ``needs``,
        a dict of the values of other settings without which it has to stay at its default, None there for any value
        but zero and nothing; ``off``, a value that needs none of them.
    """
    if "high" in rules:
        rules = {"low": type(default)(0), **rules}
    return field(default=default, metadata={"help": help, **rules})


def check_settings(config: Any) -> None:
    """Check every setting by its own rules, and then by those that name other settings.

    Raises
    ------
    UserError
        Naming the setting, its value and what is allowed, or both of two settings that exclude each other.
    """
    settings = dataclasses.fields(config)
    for one in settings:
        _check_value(one, getattr(config, one.name))
    changed = [one for one in settings if getattr(config, one.name) != one.default]
    for one in changed:
        value = getattr(config, one.name)
        family = one.metadata.get("family")
        if config.diffusion and family == "GAN":
            raise UserError(f"{one.name} is {value!r}: it is a setting of the GAN, and with diffusion none is trained")
        if not config.diffusion and family == "diffusion":
            raise UserError(f"{one.name} is {value!r}: it is a setting of the diffusion model, and needs diffusion too")
        needs = {} if value == one.metadata.get("off") else one.metadata.get("needs", {})
        for name, allowed in needs.items():
            other = getattr(config, name)
            if not (other in allowed if allowed else other):
                wanted = " or ".join(map(repr, allowed)) if allowed else "too"
                raise UserError(f"{one.name} is {value!r}: it needs {name} {wanted}, which is {other!r}")


def check_kind(setting: dataclasses.Field, value: Any) -> None:
    """Check the type of one setting's value.

    Raises
    ------
    UserError
    """
    expected = type(setting.default)
    valid = type(value) is expected or (expected is float and type(value) is int)
    if not valid or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{setting.name} is {value!r}: it takes a {KIND_WORDS[expected]}")


def _check_value(setting: dataclasses.Field, value: Any) -> None:
    """Check one setting's type and range."""
    check_kind(setting, value)
    rules = setting.metadata
    if "choices" in rules and value not in rules["choices"]:
        raise UserError(f"{setting.name} is {value!r}: choose one of {', '.join(map(str, rules['choices']))}")
    if "low" in rules and not rules["low"] <= value <= rules["high"]:
        raise UserError(f"{setting.name} is {value}: it must lie between {rules['low']} and {rules['high']}")


KIND_WORDS = {
    int: "whole number",
    float: "finite number",
    str: "text",
    bool: "yes or no",
    tuple: "list of names",
}
