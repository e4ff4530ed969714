"""Photometry of flux against galaxies that GalSim draws, a few of those of `studies/flux_instruments.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.measure.flux import measure_flux
from galaxies.measure.flux_model import psf_width, width_by_wings
from galaxies.telescope.profiles import profile_of

pytest.importorskip("galsim")
pytest.importorskip("scipy")
import galsim

from studies.flux_instruments import FLUX, SIDE, bias_and_scatter, draw, draw_filling, observe

# Signal-to-noise ratio of the whole galaxy, and how far the mean absolute errors of magnitude, radius (relative) and
# ellipticity may go: a few faint galaxies have errors that no estimate could avoid.
CASES = [(20, 0.4, 0.5, 0.16), (100, 0.1, 0.15, 0.05), (1000, 0.04, 0.1, 0.03)]


@pytest.fixture(scope="module")
def truth():
    return draw(24, seed=3)


@pytest.mark.parametrize("significance, most", [(s, most) for s, *most in CASES], ids=[str(s) for s, *_ in CASES])
def test_magnitudes_radii_and_shapes_are_true(truth, significance, most):
    _, errors = observe(truth, significance)
    assert errors.found.all()
    for values, bound, bias in zip(errors[:3], most, (0.05, 0.1, 0.05), strict=True):
        assert np.abs(values).mean() < bound
        # Of 24 galaxies the median has an error of its own.
        assert abs(np.median(values)) < bias + 1.25 * bias_and_scatter(values)[1] / np.sqrt(len(values))


def test_the_noise_tells_how_wrong_a_flux_is(truth):
    pulls = np.concatenate([observe(truth, significance)[1].pull for significance in (20, 100, 1000)])
    assert 0.7 < np.sqrt((pulls**2).mean()) < 1.25


@pytest.mark.parametrize("significance", [50, 300])
def test_concentrations_before_the_psf_are_true_within_their_errors(truth, significance):
    """The truth is Sersic's law in closed form; as observed, concentrations are 0.7 less."""
    found, errors = observe(truth, significance)
    assert abs(np.median(errors.concentration)) < 0.08
    observed = found.concentration.numpy() - truth.concentration
    assert np.abs(errors.concentration).mean() < 0.4 * np.abs(observed).mean()
    pulls = errors.concentration / found.intrinsic_concentration_error.numpy()
    assert 0.4 < bias_and_scatter(pulls)[1] < 1.3
    assert np.corrcoef(found.intrinsic_concentration, truth.concentration)[0, 1] > 0.9


def test_a_flux_scatters_by_its_error_over_draws_of_the_noise(truth):
    drawn = type(truth)(*(np.repeat(column[:8], 32, 0) for column in truth))
    found, _ = observe(drawn, 100, seed=1)
    flux, error = (values[:, 0].numpy().reshape(8, 32) for values in (found.flux, found.flux_error))
    # Of 32 draws a deviation has an error of an eighth, and the middle of eight such less than half of that.
    assert np.median(flux.std(1, ddof=1) / error.mean(1)) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    "kind, significance, sky, most",
    [
        ("bulge", 300, 0.0, 0.07),
        ("elliptical", 1000, 0.0, 0.05),
        ("sersic", 300, 0.3, 0.09),
        ("sersic", 1000, 1e3, 0.06),
    ],
)
def test_light_far_out_is_told_from_the_sky(truth, kind, significance, sky, most):
    """By the zero of the file where it is the sky's, and else by what the galaxy's wings are in the corners."""
    drawn = truth if kind == "sersic" else draw_filling(16, seed=5, bulge=kind == "bulge")
    _, errors = observe(drawn, significance, sky=sky)
    assert np.abs(errors.magnitude).mean() < most


def test_the_wings_of_a_psf_do_not_count_as_the_galaxys():
    _, errors = observe(draw(24, seed=4, psf="moffat"), 300)
    assert abs(np.median(errors.radius)) < 0.08 and abs(np.median(errors.ellipticity)) < 0.03
    assert np.abs(errors.magnitude).mean() < 0.06


def test_wings_beyond_the_frame_are_those_that_the_frame_shows():
    """Bulge and disc fill the frame: a single Sersic profile's wings would be a fifth of the light too many."""
    images = []
    for bulge, radius, ratio in ((0.2, 6, 0.9), (0.3, 9, 0.6), (0.4, 12, 0.8), (0.5, 8, 0.5), (0.6, 10, 0.7)):
        galaxy = bulge * galsim.DeVaucouleurs(half_light_radius=radius / 4) + (1 - bulge) * galsim.Exponential(
            half_light_radius=radius
        )
        seen = galsim.Convolve(galaxy.shear(q=ratio, beta=0.7 * galsim.radians), galsim.Gaussian(fwhm=3))
        images.append(FLUX * seen.drawImage(nx=SIDE, ny=SIDE, scale=1).array)
    light = torch.from_numpy(np.stack(images))[:, None]
    sigma = light.square().sum((1, 2, 3)).sqrt()[:, None, None, None] / 1000
    grain = sigma * torch.randn(light.shape, generator=torch.Generator().manual_seed(1))
    width = torch.full((len(light), 1), 3.0)
    for sky, most in ((0.0, 0.08), (1e3, 0.12)):  # the zero of the file counts where it is the sky's
        found = measure_flux((light + grain + sky * sigma).float(), 1.0, psf_fwhm=width)
        assert (found.flux[:, 0] / FLUX - 1).abs().median() < most


def test_bands_together_tell_more_than_one(truth):
    one, several = (observe(truth, 30 * scale, bands=bands)[1] for bands, scale in ((1, 1), (4, 2)))
    # The noise of each band is the same in both, so four of them know centre, shape and profile twice as well.
    assert np.abs(several.ellipticity).mean() < 0.75 * np.abs(one.ellipticity).mean()


@pytest.mark.parametrize(
    "text, psf",
    [
        ("kolmogorov", galsim.Kolmogorov(fwhm=4)),
        ("gaussian", galsim.Gaussian(fwhm=4)),
        ("moffat:3.5", galsim.Moffat(beta=3.5, fwhm=4)),
    ],
)
def test_a_psf_of_a_known_shape_is_as_wide_as_by_its_image(text, psf):
    star = torch.from_numpy(psf.drawImage(nx=81, ny=81, scale=1).array)
    assert 4 * width_by_wings(profile_of(text)) == pytest.approx(psf_width(star[None, None]).item(), rel=0.005)


def test_radii_behind_the_atmospheres_wings_are_true():
    """By the width at half maximum alone those of small galaxies would be 8 to 10 % too large."""
    drawn = draw(16, seed=6, psf="kolmogorov", largest=3)
    wider = width_by_wings(profile_of("kolmogorov"))
    _, errors = observe(drawn._replace(fwhm=wider * drawn.fwhm), 300)
    assert abs(np.median(errors.radius)) < 0.03
    assert np.median(observe(drawn, 300)[1].radius) > 0.06
