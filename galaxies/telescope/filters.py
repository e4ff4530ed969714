"""What a survey's filters see of light that is known in other bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from galaxies.common.errors import UserError
from galaxies.telescope.surveys import SurveyBand, edges_between

_BEYOND = 0.25  # of a filter's width may lie beyond the bands: nothing is known there but what the last band tells
_POINTS = 400


def band_weights(wavelengths: Sequence[float], bands: Sequence[SurveyBand]) -> Tensor:
    """Return of what parts of the light in some bands the light in a survey's filters is made.

    The flux density a unit of frequency is taken as lines between the wavelengths of the bands, and as constant beyond
    the first and the last. A filter sees its mean over the logarithm of wavelength, as a detector that counts photons
    does (Hogg et al. 2002, eq. 5). What is known of a band is a mean itself, over about the distance to its
    neighbours; so a filter is taken as narrower by that (in squares), and one of the bands is seen as it is.

    Parameters
    ----------
    wavelengths : sequence of float, (B,)
        Of the bands, nanometres, all different.
    bands : sequence of SurveyBand, (F,)

    Returns
    -------
    Tensor, (F, B), float32
        On the CPU. None is negative, and each row sums to 1, so that light stays light: `weights @ fluxes`.

    Raises
    ------
    UserError
        If a wavelength is not known, or more than a quarter of a filter lies beyond the bands.
    """
    known = np.asarray(wavelengths, dtype=np.float64)
    if not len(known) or not (np.isfinite(known) & (known > 0)).all() or len(set(known.tolist())) < len(known):
        told = ", ".join(f"{each:g}" for each in known) or "none"
        raise UserError(
            f"the wavelengths of the generator's bands are {told} nm: to observe with another survey's filters all "
            "have to be known and different"
        )
    order = np.argsort(known)
    edges = edges_between(known.tolist())
    low, high = min(edge[0] for edge in edges), max(edge[1] for edge in edges)
    widths = np.array([last - first for first, last in edges])
    weights = np.zeros((len(bands), len(known)))
    for row, band in zip(weights, bands, strict=True):
        first, last = band.edges_nm
        beyond = max(low - first, 0.0) + max(last - high, 0.0)
        if beyond > _BEYOND * (last - first):
            raise UserError(
                f"filter {band.name} sees {first:.0f} to {last:.0f} nm, and the generator's bands tell of {low:.0f} to "
                f"{high:.0f} nm: choose filters of which at least three quarters lie there"
            )
        blurred = np.interp(band.wavelength_nm, known[order], widths[order])
        width = max((last - first) ** 2 - blurred**2, 0.0) ** 0.5
        points = band.wavelength_nm + width * ((np.arange(_POINTS) + 0.5) / _POINTS - 0.5)
        for place in range(len(known)):
            peak = (np.arange(len(known)) == place)[order].astype(np.float64)
            row[place] = np.average(np.interp(points, known[order], peak), weights=1 / points)
    return torch.from_numpy(weights).float()
