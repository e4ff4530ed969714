"""The spectral columns of the mock survey: what they follow from, how much they scatter, and what they leave alone."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from config_physics import MORPHOLOGY_NAMES
from galaxies.datasets.prepared import PreparedDataset
from galaxies.mock_survey.observation import MockSurvey
from galaxies.mock_survey.population import draw_galaxies
from galaxies.mock_survey.star_formation import (
    LUCK,
    SPECTRAL_ATTRIBUTES,
    color_at_rest,
    luck_of_spectra,
    spectral_columns,
)
from galaxies.mock_survey.writing import write_dataset

NAMES = ("log_ssfr", "d4000", "halpha_ew")


@pytest.fixture(scope="module")
def tables():
    return {name: draw_galaxies(name, 4000, np.random.default_rng(2)) for name in MORPHOLOGY_NAMES}


def columns(table, luck=None):
    return spectral_columns(table, np.zeros((len(table.redshift), LUCK)) if luck is None else luck)


def test_galaxies_of_the_blue_cloud_and_of_the_red_sequence_have_published_values(tables):
    blue, red = columns(tables["spiral"]), columns(tables["elliptical"])
    is_blue, is_red = color_at_rest(tables["spiral"]) < 0.5, color_at_rest(tables["elliptical"]) > 0.78
    # Brinchmann et al. 2004, fig. 24; Kauffmann et al. 2003, fig. 2: about 1.2 to 1.4, and 1.7 to 1.9.
    assert np.median(blue["log_ssfr"][is_blue]) == pytest.approx(-9.8, abs=0.3)
    assert np.median(red["log_ssfr"][is_red]) < -11.8
    assert 1.2 < np.median(blue["d4000"][is_blue]) < 1.4 and 1.7 < np.median(red["d4000"][is_red]) < 1.9
    assert 20 < np.median(blue["halpha_ew"][is_blue]) < 60 and -1.5 < np.median(red["halpha_ew"][is_red]) < 1


def test_the_width_of_h_alpha_is_that_of_kennicutt(tables):
    table = tables["spiral"]
    found = columns(table)
    # By hand: star formation in solar masses a year, its line (Kennicutt 1998, eq. 2, over 1.5 for Kroupa's stars, and
    # dimmed by 1 mag), over the continuum of so many suns of 4.64 mag, each 3631 Jy x 10^(-0.4 x 4.64) at 10 pc.
    line = 10 ** (found["log_ssfr"] + table.stellar_mass) * 1.5 / 7.9e-42 * 10**-0.4
    jansky = 3631 * 10 ** (-0.4 * 4.64) * 1e-23  # erg/s/cm2/Hz
    sun = 4 * math.pi * (10 * 3.0857e18) ** 2 * jansky * 2.9979e10 / (6564.6e-8) ** 2 * 1e-8  # erg/s/Angstrom
    expected = line / (sun * 10 ** (-0.4 * (table.absolute_magnitude - 4.64)))
    passive = 1 / (1 + np.exp((found["log_ssfr"] + 10.8) / 0.35))
    assert np.allclose(found["halpha_ew"] + passive, expected, rtol=1e-3)


def test_arms_and_encounters_go_with_star_formation(tables):
    spiral = tables["spiral"]
    color, strength = color_at_rest(spiral), spiral.structure.spiral.arm_strength
    alike = np.abs(color - 0.45) < 0.03
    assert spearmanr(strength[alike], columns(spiral)["log_ssfr"][alike]).statistic > 0.9
    merger = tables["merger"]
    wet, blue = merger.structure.pair.dry == 0, np.abs(color_at_rest(merger) - 0.4) < 0.05
    assert np.median(columns(merger)["log_ssfr"][wet & blue]) == pytest.approx(-9.4, abs=0.05)


def test_scatter_is_as_large_as_it_is_said_and_independent(tables):
    table, luck = tables["spiral"], luck_of_spectra(3, range(63), 64)[:4000]
    assert np.allclose(luck.mean(0), 0, atol=0.06) and np.allclose(luck.std(0), 1, atol=0.05)
    assert np.abs(np.corrcoef(luck.T) - np.eye(LUCK)).max() < 0.06
    exact, found = columns(table), columns(table, luck)
    assert (found["log_ssfr"] - exact["log_ssfr"]).std() == pytest.approx(0.2, rel=0.05)
    assert np.abs(spearmanr(exact["log_ssfr"], found["log_ssfr"]).statistic) < 0.98
    old = 1 / (1 + np.exp((found["log_ssfr"] + 10.8) / 0.35))
    assert (found["d4000"] - 1.25 - 0.6 * old).std() == pytest.approx(0.05, rel=0.05)


def test_each_random_number_scatters_what_it_is_for(tables):
    """The second moves the break alone, the third the line by a factor, the fourth its width by 0.5 Angstrom."""
    table = tables["spiral"]
    size = len(table.redshift)
    exact = columns(table)
    moved = [columns(table, np.eye(LUCK)[[place]].repeat(size, 0)) for place in range(LUCK)]
    differs = [[name for name in NAMES if not np.allclose(found[name], exact[name])] for found in moved]
    assert differs == [list(NAMES), ["d4000"], ["halpha_ew"], ["halpha_ew"]]
    assert np.allclose(moved[3]["halpha_ew"] - exact["halpha_ew"], 0.5)
    old = 1 / (1 + np.exp((exact["log_ssfr"] + 10.8) / 0.35))
    absorbed = 1.0 * old  # Angstrom, of old stars
    assert np.allclose((moved[2]["halpha_ew"] + absorbed) / (exact["halpha_ew"] + absorbed), 10**0.15)


def test_a_galaxy_has_its_values_whatever_the_batch_and_the_size_of_the_survey():
    one = next(iter(MockSurvey(5).batches(70, 2))).truth
    parts = [batch.truth for batch in MockSurvey(5).batches(70)]
    for name in NAMES:
        assert np.array_equal(one[name], np.concatenate([part[name] for part in parts]))
        assert np.isfinite(one[name]).all() and np.ptp(one[name]) > 0
    assert not np.array_equal(one["log_ssfr"], next(iter(MockSurvey(6).batches(70, 2))).truth["log_ssfr"])


def test_a_dataset_says_what_they_are(tmp_path):
    write_dataset(tmp_path / "d", 64, 5, 64, "cpu", "")
    data = PreparedDataset.open(tmp_path / "d")
    assert data.layout.own == SPECTRAL_ATTRIBUTES
    truth = next(iter(MockSurvey(5).batches(64))).truth
    values = data.attributes(NAMES, np.arange(64))
    assert np.allclose(values, np.stack([truth[name] for name in NAMES], 1), rtol=1e-6)
    inside = [(row.low <= column) & (column <= row.high) for row, column in zip(data.layout.own, values.T, strict=True)]
    assert np.mean(inside) > 0.98
