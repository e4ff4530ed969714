"""What may be asked of a galaxy: the one set of rules of the command line, of tables, of HTTP and of Python.

Every way in hands over what it was given, as text or as a number, and gets the value or a `RequestError`, whose
sentence is the same everywhere. What no galaxy can have (`Attribute.plausible`) is refused; what is unusual is not.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Sequence
from typing import Any

from config_physics import MORPHOLOGY_NAMES, Attribute, attribute_of, attribute_table, morphology_index
from galaxies.common.errors import UserError, shown
from galaxies.common.parsing import MAX_IMAGES, MAX_SEED, NUMBER_FORM, WHOLE_FORM

SHARE = "requested_share_"  # before the name of a class, in columns of catalogues
POSITION_ANGLE = "position_angle"  # beside the attributes: no network is told of it
_SHARE = re.compile(r"\s*(.+?)\s*:\s*([0-9]*\.?[0-9]+)\s*(?:,|$)")  # of a class in a mixture
_SHARES_OFF = 1e-3  # by which shares may miss 1, as thirds that are rounded do
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")


class RequestError(UserError):
    """A request for what there is not.

    Attributes
    ----------
    sentence : str
        Names the parameter and what it may be.
    parameter, allowed : str
        The same two for programs.
    """

    def __init__(self, sentence: str, parameter: str, allowed: str) -> None:
        super().__init__(sentence)
        self.sentence, self.parameter, self.allowed = sentence, parameter, allowed


def attribute_value(attribute: str | Attribute, value: Any) -> float:
    """Return the value of an attribute that is asked for.

    Parameters
    ----------
    attribute : str or Attribute
        The name of one that `attribute_of` knows, or what it is.
    value : str or real number
        In physical units. A text holds the number and nothing else: ASCII digits, with a point and an exponent if need
        be. A number rounded to single precision may lie on the end of the range.

    Raises
    ------
    RequestError
        If it is no number, or none that a galaxy can have.
    """
    if isinstance(attribute, str):
        (attribute,) = attribute_table((attribute,))
    name = attribute.name
    low, high = attribute.plausible
    allowed, unit = f"{low:g} to {high:g}", f" {attribute.unit}" if attribute.unit else ""
    takes = f"it takes a number from {allowed}{unit}"
    text = _text(name, value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        text = f"{value:.7g}"
    if _DECIMAL_COMMA.fullmatch(text):
        raise RequestError(f"{name} is {shown(text)}: {takes}, with a decimal point", name, allowed)
    if not (NUMBER_FORM.fullmatch(text) and low <= float(text) <= high):
        raise RequestError(f"{name} is {shown(text)}: {takes}", name, allowed)
    return min(high, max(low, float(value))) + 0.0  # no negative zero


def whole_value(name: str, value: Any, low: int, high: int) -> int:
    """Return a whole number that is asked for, such as a count, between two limits, both allowed.

    Parameters
    ----------
    name : str
        What it is, for the sentence.
    value : str or int
        A text holds ASCII digits, and a minus where the limits allow it.
    low, high : int

    Raises
    ------
    RequestError
        If it is no whole number, or beyond the limits.
    """
    text = _text(name, value)
    if not (WHOLE_FORM.fullmatch(text) and low <= int(text) <= high):
        allowed = f"{low} to {high}"
        raise RequestError(f"{name} is {shown(text)}: it takes a whole number from {allowed}", name, allowed)
    return int(text)


def angle_value(value: Any) -> float:
    """Return the position angle in degrees, from +x towards +y, that a galaxy's major axis is asked to have.

    Parameters
    ----------
    value : str or real number
        -360 to 360; half a turn makes a difference, for a galaxy is not the same after it.

    Raises
    ------
    RequestError
        If it is no number, or beyond that.
    """
    text = _text(POSITION_ANGLE, value)
    if not (NUMBER_FORM.fullmatch(text) and -360 <= float(text) <= 360):
        allowed = "-360 to 360"
        sentence = f"{POSITION_ANGLE} is {shown(text)}: it takes a number from {allowed} deg"
        raise RequestError(sentence, POSITION_ANGLE, allowed)
    return float(text) + 0.0


def class_index(value: Any, classes: Sequence[str] = MORPHOLOGY_NAMES) -> int:
    """Return the index among `classes` of one that is asked for by its name; see `morphology_index`.

    Raises
    ------
    RequestError
        If it is none of the classes.
    """
    try:
        return morphology_index(_text("morphology", value), classes)
    except RequestError:
        raise
    except UserError as error:
        raise RequestError(str(error), "morphology", ", ".join(classes)) from None


def class_shares(value: Any, classes: Sequence[str] = MORPHOLOGY_NAMES) -> tuple[int, list[float] | None]:
    """Return the class that is asked for, or the one of the largest share and the shares (K) of a mixture.

    Parameters
    ----------
    value : str
        A class by its name; or classes with their shares, such as ``spiral:0.7,elliptical:0.3``, of sum 1. Of equal
        shares that of the class that is named first counts as the largest.
    classes : sequence of str

    Raises
    ------
    RequestError
        If it is neither, a class is there twice, or the shares do not add up to 1.
    """
    text = _text("morphology", value)
    parts = [] if text.strip() in classes else _SHARE.findall(text)
    if not parts:
        return class_index(value, classes), None
    allowed = "shares of the classes that add up to 1"
    shares = [0.0] * len(classes)
    named: list[int] = []
    for name, share in parts:
        index = class_index(name, classes)
        if index in named:
            raise RequestError(f"morphology {shown(text)} names {classes[index]} twice", "morphology", allowed)
        named.append(index)
        shares[index] = float(share)
    if _SHARE.sub("", text).strip() or abs(sum(shares) - 1) > _SHARES_OFF:
        why = "it is no list such as spiral:0.7,elliptical:0.3"
        if not _SHARE.sub("", text).strip():
            why = f"its shares add up to {sum(shares):g} and not to 1"
        raise RequestError(f"morphology {shown(text)}: {why}", "morphology", allowed)
    return max(named, key=shares.__getitem__), [share / sum(shares) for share in shares]


def mixture_text(classes: Sequence[str], shares: Sequence[float], first: int) -> str:
    """Write shares (K) of classes as `class_shares` reads them: the class `first`, then the largest share first."""
    order = sorted((k for k, share in enumerate(shares) if share > 0), key=lambda k: (k != first, -shares[k]))
    return ",".join(f"{classes[k]}:{f'{shares[k]:.6f}'.rstrip('0').rstrip('.')}" for k in order)


def mixture_refused(classes: Sequence[str]) -> RequestError:
    """Return what is said of a mixture where the generator was told one class a galaxy."""
    return RequestError(
        "morphology is a mixture of classes, and this checkpoint was trained on one class a galaxy (without "
        "--soft-classes): ask for one",
        "morphology",
        ", ".join(classes),
    )


def seed_value(value: Any) -> int:
    """Return the seed of an image; those of the `MAX_IMAGES` images after it fit 64 bits too.

    Raises
    ------
    RequestError
        As `whole_value` does.
    """
    return whole_value("seed", value, 0, MAX_SEED)


def count_value(value: Any) -> int:
    """Return a number of images.

    Raises
    ------
    RequestError
        As `whole_value` does.
    """
    return whole_value("count", value, 1, MAX_IMAGES)


def check_known(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse attributes that a checkpoint was not trained with.

    Raises
    ------
    RequestError
        Naming the first of `names` that is none of those `known`.
    """
    for name in names:
        if name not in known:
            sentence = f"{shown(name) if attribute_of(name) is None else name} is unknown to this checkpoint"
            raise RequestError(f"{sentence}: it knows {', '.join(known)}", name[:60], "left out")


def given_twice(name: str) -> RequestError:
    """Return what is said of a parameter that is there more than once."""
    return RequestError(f"{name} is there more than once: give it once", name, "one value")


def _text(name: str, value: Any) -> str:
    """Return a value as it would be typed, refusing what is empty."""
    text = str(value)
    if value is None or text == "":
        raise RequestError(f"{name} has no value: give it one or leave it out", name, "one value")
    return text
