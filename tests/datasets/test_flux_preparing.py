"""What is done to planes of flux on their way into a dataset."""

from __future__ import annotations

import numpy as np
import pytest

from galaxies.datasets import flux_preparing
from galaxies.datasets.flux_preparing import FluxBlock, filled_in, sky_noise
from galaxies.datasets.layout import DataLayout, FluxBand

SIDE = 64


def noise_of(sigma, seed, count=8, smooth=0):
    """Return images of noise of a given standard deviation, with that of neighbours shared if smoothed."""
    grain = np.random.default_rng(seed).standard_normal((count, 1, SIDE, SIDE))
    for _ in range(smooth):
        grain = sum(np.roll(grain, shift, (2, 3)) for shift in ((0, 0), (0, 1), (1, 0), (1, 1))) / 2
    return sigma * grain / grain.std()


def galaxy(flux, radius, count=8):
    """Return a round exponential galaxy of a total flux, whose wings reach the border."""
    axis = np.arange(SIDE) - 31.5
    light = np.exp(-np.hypot(axis[:, None], axis) / radius)
    return np.broadcast_to(flux * light / light.sum(), (count, 1, SIDE, SIDE))


@pytest.mark.parametrize("smooth", [0, 1, 3])
@pytest.mark.parametrize("sigma", [1e-3, 5.0, 2e6])
def test_noise_of_an_empty_sky(sigma, smooth):
    """Also where it is shared by neighbours, as after resampling."""
    found = sky_noise(noise_of(sigma, 1, smooth=smooth))
    assert found.shape == (8, 1)
    assert np.median(found) == pytest.approx(sigma, rel=0.03)
    assert np.abs(found / sigma - 1).max() < 0.15


def test_noise_is_unbiased_although_what_lies_far_out_is_cut_off():
    """A normal distribution that is cut at three standard deviations has 0.98658 of its own."""
    found = sky_noise(np.random.default_rng(5).standard_normal((150, 2, SIDE, SIDE)))
    assert found.mean() == pytest.approx(1, abs=0.006)


def test_noise_beside_a_galaxy_a_star_and_a_sky_that_was_left_in():
    images = noise_of(2.0, 2) + galaxy(20_000, 6) + 700
    images[:, :, 10:13, 50:53] += 5000
    assert np.median(sky_noise(images)) == pytest.approx(2.0, rel=0.04)


def test_noise_of_what_is_partly_missing():
    images = noise_of(2.0, 3)
    images[:, :, :30] = np.nan
    assert np.median(sky_noise(images)) == pytest.approx(2.0, rel=0.04)
    images[:, :, 4:] = np.nan
    assert np.isnan(sky_noise(images)).all()
    assert np.isnan(sky_noise(np.zeros((1, 2, SIDE, SIDE)))).all()


def test_what_is_missing_is_filled_in():
    images = (galaxy(5000, 8, 2) + noise_of(0.1, 4, 2)).astype(np.float32)
    damaged = images.copy()
    damaged[0, 0, 30:33, 20] = np.nan  # in the galaxy
    damaged[0, 0, :12] = np.nan  # an edge
    filled = filled_in(damaged, np.full((2, 1), 0.1), ["a", "b"])
    assert filled.dtype == np.float32 and np.isfinite(filled).all()
    there = np.isfinite(damaged)
    assert (filled[there] == damaged[there]).all()
    assert filled[0, 0, 30:33, 20] == pytest.approx(images[0, 0, 30:33, 20], rel=0.15)
    assert filled[0, 0, :4].std() == pytest.approx(0.1, rel=0.25)
    assert abs(filled[0, 0, :4].mean()) < 0.05
    # By the galaxy's id alone, whatever stands beside it.
    assert (filled_in(damaged[:1], np.full((1, 1), 0.1), ["a"])[0] == filled[0]).all()
    assert (filled_in(damaged[:1], np.full((1, 1), 0.1), ["c"])[0] != filled[0]).any()


def test_what_is_filled_in_without_noise_is_smooth():
    images = galaxy(5000, 8, 1).astype(np.float32).copy()
    truth = images.copy()
    images[0, 0, 40, 40:42] = np.nan
    filled = filled_in(images, np.full((1, 1), np.nan), ["a"])
    assert filled[0, 0, 40, 40:42] == pytest.approx(truth[0, 0, 40, 40:42], rel=0.05)


def neighbours(grain):
    """Return the correlation of neighbours along x and y."""
    along = [(grain[1:] * grain[:-1]).mean(), (grain[:, 1:] * grain[:, :-1]).mean()]
    return np.mean(along) / (grain**2).mean()


def test_noise_that_is_filled_in_is_shared_by_neighbours_as_around_it():
    images = noise_of(2.0, 7, 1, smooth=1).astype(np.float32)
    truth = neighbours(images[0, 0])  # 0.5, by the weights 1, 1
    images[0, 0, :30] = np.nan
    filled = filled_in(images, np.full((1, 1), 2.0), ["a"])[0, 0]
    assert neighbours(filled[:22]) == pytest.approx(truth, abs=0.07)
    assert filled[:22].std() == pytest.approx(2.0, rel=0.12)
    white = noise_of(2.0, 8, 1).astype(np.float32)
    white[0, 0, :30] = np.nan
    assert abs(neighbours(filled_in(white, np.full((1, 1), 2.0), ["a"])[0, 0, :22])) < 0.07


# What is measured


LAYOUT = DataLayout("flux", tuple(map(FluxBand.named, "gr")), ("galaxy",))


def block(images, **more):
    count = len(images)
    names = [str(k) for k in range(count)]
    return FluxBlock(images.astype(np.float32), names, ["galaxy"] * count, np.full(count, 0.2), **more)


def bright(count=2, noise=2.0):
    """Return galaxies (n, 2, S, S) of 20,000 and 40,000 nJy."""
    planes = [galaxy(flux, 4, count) + noise_of(noise, k, count) for k, flux in enumerate((20_000, 40_000))]
    return np.concatenate(planes, 1)


def test_photometry_is_told_which_pixels_are_filled_in_and_not_which_the_frame_adds(monkeypatch):
    images = bright(3)
    images[0, 1, 30:33, 40:42] = np.nan  # bad in one band
    images[1, :, :5] = images[1, :, -5:] = np.nan  # a cutout of 54 lines in the middle of the frame
    images[1, 0, 20, 20] = np.nan
    images[2, :, :5] = np.nan  # the edge of a survey
    masks, measure_flux = [], flux_preparing.measure_flux

    def measured(planes, *scale, mask=None, **more):
        masks.append(mask)
        return measure_flux(planes, *scale, mask=mask, **more)

    monkeypatch.setattr(flux_preparing, "measure_flux", measured)
    found, values = flux_preparing._measured(block(images), LAYOUT)
    wanted = np.zeros((3, SIDE, SIDE), bool)
    wanted[0, 30:33, 40:42] = wanted[1, 20, 20] = wanted[2, :5] = True
    assert (masks[0].numpy() == wanted).all()
    assert np.isfinite(found).all()
    assert values["masked"] == pytest.approx([6 / 2 / SIDE**2, (10 * SIDE + 0.5) / SIDE**2, 5 / SIDE])
    flux_preparing._measured(block(bright()), LAYOUT)
    assert masks[1] is None


def test_what_is_not_seen_in_a_band_has_no_magnitude_there():
    images = bright()
    images[0, 0] = noise_of(2.0, 9, 1)[0, 0]  # nothing in g
    _, values = flux_preparing._measured(block(images, noise=np.full((2, 2), 2.0)), LAYOUT)
    assert np.isnan(values["magnitude_g"]).tolist() == [True, False]
    assert np.isnan(values["color_g_r"]).tolist() == [True, False]
    assert values["magnitude_r"] == pytest.approx([31.4 - 2.5 * np.log10(40_000)] * 2, abs=0.05)
    assert values["magnitude_g"][1] == pytest.approx(31.4 - 2.5 * np.log10(20_000), abs=0.05)


def test_the_wings_of_a_psf_that_is_an_image_are_no_part_of_the_radius():
    """Half of the light is in a halo three times as wide, of which the width at half the peak tells next to nothing."""
    axis = np.arange(65) - 32
    squared = axis**2 + axis[:, None] ** 2
    shape = sum(0.5 / (2 * np.pi * s**2) * np.exp(-squared / (2 * s**2)) for s in (1.5, 4.5))
    images = np.zeros((1, 2, 64, 64))
    for part in (1.5, 4.5):  # of a Gaussian galaxy, whose squared width adds to each
        width = np.hypot(3, part)
        place = np.arange(64) - 31.5
        profile = np.exp(-(place**2 + place[:, None] ** 2) / (2 * width**2)) / (2 * np.pi * width**2)
        images += 0.5 * 40_000 * profile
    images += np.random.default_rng(1).normal(size=images.shape)
    psfs = np.broadcast_to(shape / shape.sum(), (1, 2, 65, 65)).astype(np.float32)
    layout = DataLayout("flux", (FluxBand("g"), FluxBand("r")), ("galaxy",))
    narrow = np.full((1, 2), 1.6 * 2.3548 * 0.2)
    known = flux_preparing._measured(block(images, psf_fwhm=narrow, psfs=psfs), layout)[1]["size_arcsec"][0]
    unknown = flux_preparing._measured(block(images, psf_fwhm=narrow), layout)[1]["size_arcsec"][0]
    true = 1.1774 * 3 * 0.2
    assert abs(known / true - 1) < 0.5 * abs(unknown / true - 1)
