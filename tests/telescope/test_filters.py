"""What filters see of light that is known in other bands."""

from __future__ import annotations

import math

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.telescope.filters import band_weights
from galaxies.telescope.surveys import SurveyBand, edges_between

GRIZ = (486.0, 625.0, 756.0, 870.0)


def band(name: str, low: float, high: float) -> SurveyBand:
    return SurveyBand(name, (low + high) / 2, (low, high), 0.7, 21.0, 27.0, 100.0)


def test_a_generators_own_bands_are_seen_as_they_are():
    own = [SurveyBand("x", w, edges, 1, 21, 27, 1) for w, edges in zip(GRIZ, edges_between(GRIZ), strict=True)]
    assert np.allclose(band_weights(GRIZ, own).numpy(), np.eye(4), atol=1e-5)
    assert np.allclose(band_weights(GRIZ[::-1], own).numpy(), np.eye(4)[:, ::-1], atol=1e-5)


def test_a_filter_between_two_bands_sees_both():
    between = band_weights(GRIZ, [band("v", 650, 720)])[0]  # no wider than the bands: at 685 nm
    assert between.numpy() == pytest.approx([0, (756 - 685) / 131, (685 - 625) / 131, 0], abs=1e-5)


def test_a_wide_filter_sees_the_mean_of_a_line():
    # Of light that is a line over wavelength any mean over the logarithm of it is known: (b - a) / ln(b / a).
    wide = band("VIS", 550, 900)
    weights = band_weights(GRIZ, [wide])[0].double().numpy()
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1, abs=1e-6)
    assert (weights[1:] > 0.15).all()
    local = np.interp(725, GRIZ, [high - low for low, high in edges_between(GRIZ)])
    half = math.sqrt(350**2 - local**2) / 2
    inside = min(725 + half, GRIZ[-1])  # the line ends with the last band, and stays level
    a, b = 725 - half, 725 + half
    expected = ((inside - a) + inside * math.log(b / inside)) / math.log(b / a)
    assert weights @ GRIZ == pytest.approx(expected, rel=1e-4)


def test_filters_beyond_the_bands_are_refused_with_the_limits():
    with pytest.raises(
        UserError, match="filter J sees 1150 to 1350 nm, and the generator's bands tell of 416 to 927 nm"
    ):
        band_weights(GRIZ, [band("r", 552, 691), band("J", 1150, 1350)])
    edge = band("Y", 870, 946)  # a quarter beyond
    assert band_weights(GRIZ, [edge])[0].tolist() == pytest.approx([0, 0, 0, 1])
    with pytest.raises(UserError, match="filter Y sees"):
        band_weights(GRIZ, [band("Y", 870, 950)])


@pytest.mark.parametrize("wavelengths", [(), (486.0, math.nan), (486.0, 486.0), (0.0, 486.0)])
def test_bands_of_unknown_wavelength_are_refused(wavelengths):
    with pytest.raises(UserError, match="have to be known and different"):
        band_weights(wavelengths, [band("r", 552, 691)])


def test_one_band_tells_of_itself_alone():
    assert band_weights([620.0], [band("r", 552, 691)]).tolist() == [[1.0]]
    with pytest.raises(UserError, match="tell of 558 to 682 nm"):
        band_weights([620.0], [band("i", 691, 818)])
