"""What a dataset tells of an attribute: which values can be believed, and whether a network could learn from them."""

from __future__ import annotations

import numpy as np

from galaxies.common.attributes import Attribute
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset

_LEAST_KNOWN = 20  # training galaxies that know an attribute, or half of them where there are fewer than twice as many
_SAME = 1e-6  # of the slider's range: values that differ by less are rounded ones of one value
# A value is an outlier if it lies farther from the median than so many interquartile ranges (20 standard deviations of
# a normal distribution) and than so many ranges of the slider.
_FAR_IN_QUARTILES, _FAR_IN_RANGES = 15.0, 2.0

Limits = dict[str, tuple[float, float]]


def value_limits(data: PreparedDataset, names: tuple[str, ...]) -> Limits:
    """Return between which values an attribute is believed, of those attributes of which some galaxy lies outside.

    One value that lies far beyond all others (a size in the wrong unit, a failed fit) would be squared in every loss,
    and stretch what all other galaxies are told to nothing. What is far is told on the attribute's scale.

    Parameters
    ----------
    data : PreparedDataset
    names : tuple of str
        Attributes, in physical units.
    """
    limits = {}
    values = _values(data, names).astype(np.float64)
    rows = data.layout.attribute_rows(names)
    for attribute, column, learned in zip(rows, values.T, values[data.rows("train")].T, strict=True):
        known = attribute.steps_of(learned[np.isfinite(learned)])
        if len(known) < 2:
            continue
        low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
        far = max(_FAR_IN_QUARTILES * (high - low), _FAR_IN_RANGES * _width(attribute))
        if (np.abs(attribute.steps_of(column[np.isfinite(column)]) - middle) > far).any():
            ends = (attribute.value_of(middle - far), attribute.value_of(middle + far))
            limits[attribute.name] = float(ends[0]), float(ends[1])
    return limits


def believed(values: np.ndarray, names: tuple[str, ...], limits: Limits) -> np.ndarray:
    """Return values (N, A) with NaN, unknown, for those outside the limits."""
    values = values.copy()
    for column, name in enumerate(names):
        if name in limits:
            low, high = limits[name]
            values[~((low <= values[:, column]) & (values[:, column] <= high)), column] = np.nan
    return values


def say_outliers(data: PreparedDataset, names: tuple[str, ...], limits: Limits) -> str:
    """Say in a phrase for each attribute with limits how many galaxies lie outside, and one of the values."""
    phrases = []
    values = _values(data, names)
    for name, (low, high) in limits.items():
        column = values[:, names.index(name)]
        outside = column[np.isfinite(column) & ~((low <= column) & (column <= high))]
        galaxies = "1 galaxy" if len(outside) == 1 else f"{len(outside)} galaxies"
        phrases.append(f"{name} of {galaxies} (such as {outside[0]:g}, beyond {low:.3g} to {high:.3g})")
    return ", ".join(phrases)


def unusable(data: PreparedDataset, names: tuple[str, ...], limits: Limits) -> dict[str, str]:
    """Name the attributes that nothing can be learned of at all, and why.

    Returns
    -------
    dict
        {attribute: reason}.
    """
    reasons = {}
    values = believed(_training_values(data, names), names, limits)
    for attribute, column in zip(data.layout.attribute_rows(names), values.T, strict=True):
        known = column[np.isfinite(column)]
        if attribute.name not in data.catalogue or data.catalogue[attribute.name].isna().all():
            reasons[attribute.name] = "known for no galaxy"
        elif len(known) == 0:
            reasons[attribute.name] = "known for no training galaxy"
        elif len(known) > 1 and np.ptp(attribute.steps_of(known.astype(np.float64))) <= _SAME * _width(attribute):
            reasons[attribute.name] = f"{known[0]:.4g} for every training galaxy that knows it"
    return reasons


def too_rare(data: PreparedDataset, names: tuple[str, ...], limits: Limits) -> dict[str, str]:
    """Name the attributes that only a handful of training galaxies know, in the same way."""
    values = believed(_training_values(data, names), names, limits)
    least = min(_LEAST_KNOWN, len(values) / 2)
    numbers = dict(zip(names, np.isfinite(values).sum(0).tolist(), strict=True))
    return {n: f"known for {k} of {len(values)} training galaxies" for n, k in numbers.items() if k < least}


def choose_attributes(data: PreparedDataset, wanted: tuple[str, ...], by_hand: bool) -> tuple[tuple[str, ...], str]:
    """Return the attributes that a run on a dataset is conditioned on, and what was left out and why ("" for nothing).

    Parameters
    ----------
    data : PreparedDataset
    wanted : tuple of str
    by_hand : bool
        The user named them: then none is left out, and one that cannot be had is an error.

    Raises
    ------
    UserError
        If an attribute that was named cannot be had, or none is left.
    """
    if by_hand:
        data.attributes(wanted, data.rows("train"))  # which refuses those that are known for no galaxy
    limits = value_limits(data, wanted)
    reasons = unusable(data, wanted, limits)
    if by_hand and reasons:
        raise UserError(f"{data.path} cannot teach {_say(reasons)}: choose --attributes from {_choice(data)}")
    if not by_hand:
        reasons = too_rare(data, wanted, limits) | reasons
        limits = {name: pair for name, pair in limits.items() if name not in reasons}
    kept = tuple(name for name in wanted if name not in reasons)
    if not kept:
        raise UserError(f"{data.path} cannot teach {_say(reasons)}: choose --attributes from {_choice(data)}")
    said = [f"left out: {_say(reasons)}"] if reasons else []
    if limits:
        said.append(f"counted as unknown: {say_outliers(data, wanted, limits)}")
    return kept, "; ".join(said)


def _say(reasons: dict[str, str]) -> str:
    """Name attributes with their reasons, those of one reason together."""
    together: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        together.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in together.items())


def _choice(data: PreparedDataset) -> str:
    """List the attributes that a run can be conditioned on."""
    names = tuple(name for name in data.manifest.get("attributes", {}) if name in data.catalogue)
    names = tuple(attribute.name for attribute in data.layout.attribute_rows(names))
    limits = value_limits(data, names)
    bad = unusable(data, names, limits) | too_rare(data, names, limits)
    return ", ".join(name for name in names if name not in bad) or "another dataset: this one has none that differs"


def _width(attribute: Attribute) -> float:
    """Return the slider's range on the attribute's scale."""
    return float(attribute.steps_of(attribute.high) - attribute.steps_of(attribute.low))


def _values(data: PreparedDataset, names: tuple[str, ...]) -> np.ndarray:
    """Return the values (N, A) of all galaxies, NaN where unknown, also of attributes that the dataset lacks."""
    return data.catalogue.reindex(columns=list(names)).to_numpy(np.float32)


def _training_values(data: PreparedDataset, names: tuple[str, ...]) -> np.ndarray:
    """Return those of the training galaxies."""
    return _values(data, names)[data.rows("train")]
