"""Shapes of point-spread functions by name, against GalSim's transfer functions and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.common.errors import UserError
from galaxies.telescope.profiles import kolmogorov, profile_of

FREQUENCIES = np.linspace(0, 2.5, 60)  # cycles an arcsecond


def transfer_of(text: str, fwhm: float) -> np.ndarray:
    squared = torch.from_numpy(FREQUENCIES).square()
    return profile_of(text)(squared, torch.tensor(fwhm, dtype=torch.float64)).numpy()


@pytest.mark.parametrize("text", ["moffat:1.6", "moffat:2.5", "moffat:3.5", "moffat:4.765", "moffat:20"])
def test_moffat_is_galsims(text):
    galsim = pytest.importorskip("galsim")
    theirs = galsim.Moffat(beta=float(text.split(":")[1]), fwhm=0.8)
    expected = [theirs.kValue(2 * np.pi * f, 0).real for f in FREQUENCIES]
    assert np.abs(transfer_of(text, 0.8) - expected).max() < 2e-4


def test_gaussians_and_sums_of_two_are_galsims():
    galsim = pytest.importorskip("galsim")
    expected = [galsim.Gaussian(fwhm=0.8).kValue(2 * np.pi * f, 0).real for f in FREQUENCIES]
    assert np.abs(transfer_of("gaussian", 0.8) - expected).max() < 1e-6
    radius = np.linspace(0.2, 0.6, 4001)
    core, halo = (part / s**2 * np.exp(-((radius / s) ** 2) / 2) for part, s in ((0.9, 0.3), (0.1, 0.9)))
    width = 2 * np.interp(-0.5, -(core + halo) / (0.9 / 0.09 + 0.1 / 0.81), radius)
    expected = [
        0.9 * np.exp(-2 * (np.pi * 0.3 * f) ** 2) + 0.1 * np.exp(-2 * (np.pi * 0.9 * f) ** 2) for f in FREQUENCIES
    ]
    assert np.abs(transfer_of("double_gaussian:0.1,3", width) - expected).max() < 1e-5
    assert np.allclose(transfer_of("double_gaussian:0,3", 0.8), transfer_of("gaussian", 0.8), atol=1e-7)


def test_many_betas_are_a_gaussian():
    assert np.abs(transfer_of("moffat:50", 0.8) - transfer_of("gaussian", 0.8)).max() < 0.015


@pytest.mark.parametrize("text", ["kolmogorov", "gaussian", "moffat:3.5", "double_gaussian:0.1,2", "airy:0.31"])
def test_slopes_are_those_of_finite_differences(text):
    width = torch.tensor([0.7, 0.9], dtype=torch.float64, requires_grad=True)
    squared = torch.tensor([[0.04], [0.49], [1.21]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda w: profile_of(text)(squared, w), (width,), atol=1e-4)
    assert profile_of(text)(torch.zeros(1), torch.ones(1)).item() == pytest.approx(1, abs=1e-5)


def test_texts_name_profiles():
    assert profile_of("kolmogorov") is kolmogorov
    squared, width = torch.tensor([0.5]), torch.tensor([0.8])
    assert profile_of("airy", 0.3)(squared, width) == profile_of(" airy:0.3")(squared, width)
    assert profile_of("airy")(squared, width) == profile_of("airy:0.0")(squared, width)
    assert profile_of("airy", 0.3)(squared, width) != profile_of("airy")(squared, width)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sinc", "called 'sinc': choose from kolmogorov, gaussian, moffat:BETA"),
        ("moffat", "'moffat': moffat takes beta from 1.5 to 50"),
        ("moffat:1", "'moffat:1': moffat takes beta from 1.5 to 50"),
        ("moffat:nan", "moffat takes beta"),
        ("moffat:2,3", "moffat takes beta"),
        ("gaussian:2", "'gaussian:2': gaussian takes no number"),
        ("airy:1.2", "airy takes obscuration from 0 to 0.9"),
        ("double_gaussian:0.1", "double_gaussian takes fraction from 0 to 0.9 and ratio from 1 to 20"),
        ("", "called ''"),
    ],
)
def test_what_is_no_profile_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        profile_of(text)


def test_what_comes_round_is_the_sum_of_all_copies_wings():
    # Wings of r^-3 over a square lattice: 4 zeta(3/2) beta(3/2) = 9.0336, times 1 / 4 pi^2 of -|f|.
    mirror = profile_of("airy:0.3")
    periods = torch.tensor([5.0, 10.0], dtype=torch.float64)
    expected = mirror.cusp * 9.0336 / (4 * np.pi**2) / periods
    torch.testing.assert_close(mirror.come_round(periods), expected, rtol=1e-3, atol=0)
    assert profile_of("gaussian").come_round(periods).tolist() == [0, 0]
