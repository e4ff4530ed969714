"""The condition vector, what a network is told of a galaxy: its one layout, built and taken apart.

In order: the one-hot class (with `Config.soft_classes` the shares of the classes), the attributes of the run scaled by
`Attribute.to_unit`, 0 where unknown, and with `Config.condition_mask` a flag for each attribute, 1 where it is known.
`Config.condition_parts` has the lengths; no other place knows which entry is what.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from config_physics import Config


class ConditionParts(NamedTuple):
    """The parts of condition vectors, in their order; each is a view of the vectors that were taken apart.

    Attributes
    ----------
    one_hot : Tensor, (N, K)
        Of K classes; or their shares, of sum 1.
    scaled : Tensor, (N, A)
        Attributes in the units of the condition vector, 0 where unknown.
    flags : Tensor, (N, A) or (N, 0)
        1 where an attribute is known; without `condition_mask` there are none.
    """

    one_hot: Tensor
    scaled: Tensor
    flags: Tensor


def condition_vector(classes: Tensor, values: Tensor, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Build condition vectors.

    Parameters
    ----------
    classes : Tensor, (N,), int64; or (N, K), float32
        Class indices, or the shares of the classes, of sum 1.
    values : Tensor, (N, A), float32
        Attributes of `config` in physical units, NaN where unknown.

    Returns
    -------
    condition : Tensor, (N, config.condition_dim)
        One-hot class or shares, scaled values (0 where unknown), and with `condition_mask` the flags of what is known.
    scaled : Tensor, (N, A)
        The scaled values alone: the target of the physics loss.
    known : Tensor, (N, A), float32
    """
    known = torch.isfinite(values).float()
    table = config.attribute_rows
    scaled = torch.stack([a.to_unit(values[:, i]) for i, a in enumerate(table)], 1)
    scaled = torch.where(known > 0, scaled, torch.zeros_like(scaled))
    flags = known if config.condition_mask else known[:, :0]
    shares = classes.float() if classes.ndim == 2 else F.one_hot(classes, len(config.classes)).float()
    return torch.cat(ConditionParts(shares, scaled, flags), 1), scaled, known


def condition_entries(config: Config) -> list[tuple[str, str]]:
    """Name the entries of condition vectors in order, by what they are of and of which class or attribute."""
    kinds = ("class", "attribute", "known")
    names = (config.classes, config.attributes, config.attributes if config.condition_mask else ())
    return [(kind, name) for kind, group in zip(kinds, names, strict=True) for name in group]


def reading_entries(config: Config) -> list[tuple[str, str]]:
    """Name in the same way what a discriminator reads off images, in order: attributes, then a logit for each class."""
    return [*(("attribute", name) for name in config.attributes), *(("class", name) for name in config.classes)]


def take_apart(condition: Tensor, config: Config) -> ConditionParts:
    """Return the parts of condition vectors (N, config.condition_dim), without copying them.

    Raises
    ------
    RuntimeError
        From torch, if the vectors are not as long as those of `config`.
    """
    return ConditionParts(*condition.split(config.condition_parts, 1))


def with_scaled(condition: Tensor, scaled: Tensor, config: Config) -> Tensor:
    """Return condition vectors (N, config.condition_dim) with other scaled attributes (N, A), else the same."""
    return torch.cat(take_apart(condition, config)._replace(scaled=scaled), 1)
