"""Pixels of other sizes: flux is conserved, noise follows, and point spread functions stay in the middle."""

from __future__ import annotations

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.images.area_resampling import framed, resample, shares
from galaxies.images.psf_images import fwhm_px, middle_of, prepared_psf

AXIS = np.arange(81) - 40.0


def gaussian(width, row=0.0, column=0.0, axis=AXIS):
    light = np.exp(-((axis[:, None] - row) ** 2 + (axis - column) ** 2) / (2 * width**2))
    return light / light.sum()


@pytest.mark.parametrize("step", [0.7, 1.0, 1.37, 2.0, 81 / 64])
def test_flux_is_conserved_and_stays_where_it_is(step):
    image = 1000 * gaussian(6, 3, -5)
    size = 120
    found = resample(image, size, step).values
    inside = np.isfinite(found)
    assert found[inside].sum() == pytest.approx(1000, rel=1e-6)
    axis = (np.arange(size) - (size - 1) / 2) * step
    values = np.nan_to_num(found)
    assert (values.sum(1) @ axis) / 1000 == pytest.approx(3, abs=0.01)
    assert (values.sum(0) @ axis) / 1000 == pytest.approx(-5, abs=0.01)
    # Each pixel has the flux of its area: the second moment grows by that of both pixels' squares alone.
    width = (values.sum(1) @ (axis - 3) ** 2) / 1000
    assert width == pytest.approx(36 + step**2 / 12 + (1 / 12 if step not in (1.0, 2.0) else 0), rel=0.01)


def test_whole_steps_add_pixels_up():
    image = np.arange(36.0).reshape(6, 6)
    assert (resample(image, 3, 2).values == image.reshape(3, 2, 3, 2).sum((1, 3))).all()
    assert (resample(image, 6, 1).values == image).all()
    assert shares(6, 3, 2).sum(0) == pytest.approx(np.ones(6))


def test_beyond_the_frame_there_is_nothing():
    found = resample(np.ones((10, 10)), 8, 2).values
    assert np.isnan(found[0]).all() and np.isnan(found[-1]).all()
    # The pixels that half of the frame covers have the flux of the whole, as what was seen says.
    assert found[1:-1, 2:-2] == pytest.approx(4.0)
    assert np.isnan(found[1, 1])  # a quarter is too little


def test_a_missing_pixel_is_made_up_for_by_its_neighbours():
    image = np.full((8, 8), 3.0)
    image[2, 2] = np.nan
    image[4:6, 4:6] = np.nan
    found, error = resample(image, 4, 2, np.ones_like(image))
    assert found[1, 1] == pytest.approx(12)
    assert error[0, 0] == pytest.approx(2) and error[1, 1] == pytest.approx(np.sqrt(3) * 4 / 3)
    assert np.isnan(found[2, 2]) and np.isnan(found).sum() == 1


@pytest.mark.parametrize("step", [1.5, 2.0, 2.7])
def test_noise_follows_the_pixels(step):
    """Measured on noise of independent pixels, of which one side has twice as much."""
    error = np.where(AXIS < 0, 1.0, 2.0) * np.ones((81, 1))
    rng = np.random.default_rng(5)
    drawn = [resample(rng.normal(0, error), 20, step, error) for _ in range(300)]
    measured = np.std([each.values for each in drawn], 0)
    assert measured / drawn[0].error == pytest.approx(np.ones((20, 20)), abs=0.2)
    assert np.mean(measured / drawn[0].error) == pytest.approx(1, abs=0.01)


def test_framing_changes_no_pixel():
    image = np.arange(63.0).reshape(9, 7)
    cut = framed(image, 5)
    assert (cut == image[2:7, 1:6]).all()
    wide = framed(image, 12)
    assert np.isnan(wide).sum() == 144 - 63
    assert (wide[2:11, 3:10] == image).all()
    both = framed(image, 8)
    assert (both[:, 1:] == image[0:8]).all() and np.isnan(both[:, 0]).all()


def test_psf_is_centred_and_of_unit_flux():
    psf = prepared_psf(0.98 * gaussian(4, 0.4, -0.3), 25, 2.0, "psf.fits")
    assert psf.shape == (25, 25) and psf.sum() == pytest.approx(1)
    axis = np.arange(25) - 12
    assert psf.sum(1) @ axis == pytest.approx(0, abs=0.02)
    assert psf.sum(0) @ axis == pytest.approx(0, abs=0.02)
    assert np.sqrt(psf.sum(0) @ axis**2) == pytest.approx(np.sqrt(16 + 1 / 12 + 4 / 12) / 2, rel=0.01)
    even = prepared_psf(gaussian(3, 0.5, 0.5, np.arange(64) - 32.0), 31, 1.0, "psf.fits")
    assert np.unravel_index(even.argmax(), even.shape) == (15, 15)


@pytest.mark.parametrize("fwhm", [2.5, 4.0, 9.0])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_width_of_gaussians(fwhm, shift):
    image = gaussian(fwhm / (2 * np.sqrt(2 * np.log(2))), shift)
    assert fwhm_px(image, "psf.fits") == pytest.approx(fwhm, rel=0.03)
    assert middle_of(image) == pytest.approx((40 + shift, 40), abs=0.05)


def test_width_of_what_telescopes_have():
    """A Moffat function, and a round aperture's diffraction of lambda / D 2.5 pixels wide."""
    galsim = pytest.importorskip("galsim")
    for profile in (galsim.Moffat(beta=2.5, fwhm=3.1), galsim.Airy(lam_over_diam=2.5)):
        image = profile.drawImage(nx=61, ny=61, scale=1, method="no_pixel").array
        assert fwhm_px(image, "psf.fits") == pytest.approx(profile.calculateFWHM(), rel=0.03)


@pytest.mark.parametrize("image", [np.zeros((9, 9)), np.full((9, 9), np.nan), -gaussian(2), np.ones(9)])
def test_what_is_no_psf(image):
    with pytest.raises(UserError, match=r"psf.fits is no point spread function"):
        prepared_psf(image, 5, 1.0, "psf.fits")
