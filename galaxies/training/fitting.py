"""Settings that fit a dataset: what a run would need and the data cannot give is left out, and said."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.compute.ranks import Ranks
from galaxies.datasets.attribute_support import choose_attributes
from galaxies.datasets.prepared import PreparedDataset
from physics_model import is_measured

Ranges = Mapping[str, tuple[float, float]]


def default_attributes(data: PreparedDataset) -> tuple[str, ...]:
    """Return the attributes of a run on flux whose user names none: brightness, two colours, size, shape and redshift.

    The brightness is that of the middle band, and the colours are those of the first and of the last band with it.
    """
    names = data.layout.band_names
    middle = (len(names) - 1) // 2
    pairs = [(first, last) for first, last in ((0, middle), (middle, len(names) - 1)) if first < last]
    colors = [f"color_{names[first]}_{names[last]}" for first, last in pairs]
    return (f"magnitude_{names[middle]}", *colors, "size_arcsec", "ellipticity", "redshift")


def fit_to_data(
    config: Config, data: PreparedDataset, given: Collection[str], ranges: Ranges | None = None
) -> tuple[Config, list[str]]:
    """Return settings that can be trained with on a dataset, and a line for each thing that is otherwise than asked.

    Parameters
    ----------
    config : Config
        Of defaults, a recipe, and what the user gave.
    data : PreparedDataset
    given : collection of str
        Settings that the user gave: these are not changed.
    ranges : dict of str to tuple of float, optional
        By attribute: the range that trained weights know it in. Those of other attributes of flux are the data's.

    Raises
    ------
    UserError
        If an attribute that the user named cannot be had, or there is too little to train on at all.
    """
    num_train, num_ranks = len(data.rows("train")), Ranks.from_environment().size
    if num_train < 2 * num_ranks:
        raise UserError(
            f"{data.path} has {num_train} for training, and two a process are the least: prepare more galaxies"
        )
    if config.soft_classes:
        data.class_shares(data.rows("train")[:1])
    attributes, said = choose_attributes(data, config.attributes, "attributes" in given)
    lines = [f"{said} ({data.path})"] if said else []
    own = {row.name: row for row in config.own_attributes}
    definitions = tuple(own[name].definition() for name in attributes if name in own)
    changes: dict[str, Any] = {"attributes": attributes, "attribute_definitions": definitions}
    if data.layout.is_flux:
        changes = data.settings(attributes) | changes
        of_data = zip(changes["attribute_ranges"][::2], changes["attribute_ranges"][1::2], strict=True)
        pairs = [(ranges or {}).get(name, pair) for name, pair in zip(attributes, of_data, strict=True)]
        changes["attribute_ranges"] = tuple(end for pair in pairs for end in pair)
    if config.batch_size * num_ranks > num_train and "batch_size" not in given:
        changes["batch_size"] = num_train // num_ranks
        lines.append(
            f"batch size {num_train // num_ranks} instead of {config.batch_size}: {num_train} training galaxies"
        )
    config = dataclasses.replace(config, **changes)
    return config, lines + _idle_terms(config, data)


def _idle_terms(config: Config, data: PreparedDataset) -> list[str]:
    """Say which terms of the loss have nothing to compare."""
    lines = []
    classes = set(data.classes(data.rows("train")).tolist())
    if len(classes) == 1 and config.class_weight > 0:
        only = config.classes[classes.pop()]
        lines.append(f"note: the class loss teaches nothing, since every training galaxy is {only}")
    if config.photometry_weight > 0 and not any(map(is_measured, config.attribute_rows)):
        lines.append("note: photometry takes no part in the loss, since it measures none of the attributes")
    return lines
