"""Measuring on flux: Gaussian galaxies have known answers, and what is no galaxy's changes nothing."""

from __future__ import annotations

import math

import pytest
import torch

from galaxies.measure.flux import (
    MISSING_PIXELS,
    NO_SOURCE,
    FluxPhotometry,
    flux_attributes,
    measure_flux,
)
from galaxies.measure.flux_sky import without_slope

SIDE = 64
SCALE = 0.25  # arcsec a pixel
BANDS = ("g", "r", "F814W")
FLUX = torch.tensor([2000.0, 4000.0, 5000.0])  # nJy
NOISE = torch.tensor([0.3, 0.5, 0.9])
PSF_SIGMA = 1.5  # pixels
FWHM = 2 * math.sqrt(2 * math.log(2))


def gaussian(major, minor, angle=30.0, x=0.4, y=-0.7, side=SIDE):
    """A Gaussian of these widths, pixels, and of the flux 1, sampled at the pixels' centres."""
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    dx, dy = axis[None, :] - x, axis[:, None] - y
    turn = math.radians(angle)
    along, across = dx * math.cos(turn) + dy * math.sin(turn), dy * math.cos(turn) - dx * math.sin(turn)
    return torch.exp(-0.5 * ((along / major) ** 2 + (across / minor) ** 2)) / (2 * math.pi * major * minor)


def observed(shape, seed=0, flux=FLUX):
    """Frames (1, 3, S, S) of a galaxy with noise."""
    grain = torch.randn(3, *shape.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (shape * flux[:, None, None] + grain * NOISE[:, None, None])[None].float()


@pytest.fixture(scope="module")
def galaxy():
    # 5 and 3 pixels before the PSF, whose square adds.
    return observed(gaussian(math.hypot(5, PSF_SIGMA), math.hypot(3, PSF_SIGMA)))


@pytest.fixture(scope="module")
def found(galaxy) -> FluxPhotometry:
    return measure_flux(galaxy, SCALE, psf_fwhm=torch.full((1, 3), PSF_SIGMA * FWHM * SCALE), structure=True)


def test_a_gaussian_galaxy_has_its_flux_size_and_shape(found):
    magnitude = 31.4 - 2.5 * torch.log10(FLUX)
    assert found.flag.tolist() == [0]
    torch.testing.assert_close(found.magnitude[0], magnitude, rtol=0, atol=0.03)
    assert (found.flux[0] - FLUX).abs().div(found.flux_error[0]).amax() < 4
    assert found.noise[0].tolist() == pytest.approx(NOISE.tolist(), rel=0.05)
    assert found.ellipticity.item() == pytest.approx(1 - 3 / 5, abs=0.03)
    assert found.position_angle.item() == pytest.approx(30, abs=2)
    assert (found.centroid_x.item(), found.centroid_y.item()) == pytest.approx((0.4, -0.7), abs=0.1)


def test_in_the_mean_over_noise_a_magnitude_is_true_and_scatters_by_its_error():
    shape = gaussian(math.hypot(5, PSF_SIGMA), math.hypot(3, PSF_SIGMA))
    found = measure_flux(torch.cat([observed(shape, seed=seed, flux=0.5 * FLUX) for seed in range(16)]), SCALE)
    errors = found.magnitude - (31.4 - 2.5 * torch.log10(0.5 * FLUX))
    assert (errors.mean(0).abs() < 0.008).all()  # three times what 0.011 leaves in the mean of 16
    ratio = errors.std(0) / found.magnitude_error.mean(0)
    assert ((ratio > 0.5) & (ratio < 1.5)).all()


def test_the_radius_is_that_of_the_circle_with_half_of_the_light(found):
    # By brute force on the Gaussian without PSF, drawn five times finer.
    light = gaussian(25, 15, x=0, y=0, side=301).flatten()
    axis = torch.arange(301, dtype=torch.float64) - 150
    order = (axis[None].square() + axis[:, None].square()).flatten().sort().indices
    half = math.sqrt(int((light[order].cumsum(0) < 0.5).sum()) / math.pi) / 5
    assert found.size_arcsec.item() == pytest.approx(half * SCALE, rel=0.05)
    # As observed; two Petrosian radii hold all of a Gaussian's light.
    seen = gaussian(5 * math.hypot(5, PSF_SIGMA), 5 * math.hypot(3, PSF_SIGMA), x=0, y=0, side=301).flatten()
    half = math.sqrt(int((seen[order].cumsum(0) < 0.5).sum()) / math.pi) / 5
    assert found.petrosian_half_light_arcsec.item() == pytest.approx(half * SCALE, rel=0.03)
    mean = found.magnitude[0] + 2.5 * math.log10(2 * math.pi * found.size_arcsec.item() ** 2)
    torch.testing.assert_close(found.surface_brightness[0], mean)


def concentration(light, fine):
    """5 log10(r80 / r20) of all of the light (S, S) about the middle, drawn `fine` times as fine."""
    axis = (torch.arange(light.shape[-1], dtype=torch.float64) - (light.shape[-1] - 1) / 2) / fine
    radius, order = torch.hypot(axis, axis[:, None]).flatten().sort()
    growth = light.flatten()[order].cumsum(0) / light.sum()
    return 5 * math.log10(radius[int((growth < 0.8).sum())] / radius[int((growth < 0.2).sum())])


def test_the_concentration_before_the_psf_is_that_of_the_light_whatever_blurs_it():
    """Two Gaussians, nearly all of whose light lies within 1.5 Petrosian radii, by brute force; and two PSFs."""
    parts = ((0.4, 1.2), (0.6, 4.0))
    drawn = sum(part * gaussian(5 * width, 5 * width, x=0, y=0, side=401) for part, width in parts)
    true = concentration(drawn, 5)
    measured = []
    for blur in (1.2, 1.8):
        seen = sum(part * gaussian(math.hypot(width, blur), math.hypot(width, blur)) for part, width in parts)
        width = 0.93 * blur * FWHM * SCALE  # as photometry takes it of a Gaussian, which has no wings
        found = measure_flux(observed(seen, flux=10 * FLUX), SCALE, psf_fwhm=torch.full((1, 3), width))
        measured.append(found.intrinsic_concentration.item())
        assert found.concentration.item() < true - 0.2
    assert measured == pytest.approx([true, true], abs=0.17)
    unblurred = measure_flux(observed(drawn[::5, ::5][8:-9, 8:-9] * 25, flux=10 * FLUX), SCALE)
    assert unblurred.intrinsic_concentration.item() == pytest.approx(true, abs=0.1)


def test_the_aperture_of_two_nuclei_holds_both():
    """Half of the light is a ring, within which Petrosian's ratio is below 0.2 as well."""
    nuclei = 0.5 * (gaussian(1.5, 1.5, x=-4.0, y=0) + gaussian(1.5, 1.5, x=4.0, y=0))
    found = measure_flux(observed(nuclei), SCALE, psf_fwhm=torch.full((1, 3), 2 * SCALE))
    sharp = math.sqrt(1.5**2 - (2 / FWHM) ** 2)
    before = 0.5 * (
        gaussian(5 * sharp, 5 * sharp, x=-20, y=0, side=401) + gaussian(5 * sharp, 5 * sharp, 0, 20, 0, 401)
    )
    assert found.intrinsic_concentration.item() == pytest.approx(concentration(before, 5), abs=0.2)


def test_attributes_have_names(found):
    names = flux_attributes(BANDS)
    assert {"magnitude_F814W", "color_g_F814W", "surface_brightness_r", "size_arcsec", "gini"} <= set(names)
    assert len(names) == len(set(names)) == 3 + 3 + 3 + 5 + 3
    for name in names:
        assert found.attribute(name, BANDS).shape == (1,)
        assert found.known(name, BANDS).tolist() == [True]
    assert found.attribute("color_g_r", BANDS).item() == pytest.approx(2.5 * math.log10(2), abs=0.03)
    assert found.attribute("color_r_g", BANDS).item() == pytest.approx(-2.5 * math.log10(2), abs=0.03)
    for name in ("size", "magnitude_z", "color_g_z", "color_g", "redshift", "flux_g"):
        with pytest.raises(KeyError):
            found.attribute(name, BANDS)


def test_a_band_without_light_is_a_limit(galaxy):
    dark = galaxy.clone()
    dark[:, 0] = observed(gaussian(5, 3), seed=3, flux=torch.zeros(3))[:, 0]
    found = measure_flux(dark, SCALE)
    assert found.flux[0, 0].abs() < 4 * found.flux_error[0, 0]
    assert all(value.isfinite().all() for value in (found.magnitude, found.magnitude_error, found.surface_brightness))
    assert [found.known(name, BANDS).item() for name in ("magnitude_g", "color_g_r", "magnitude_r", "size_arcsec")] == [
        False,
        False,
        True,
        True,
    ]
    assert not found.known("gini", BANDS).item()


UNITLESS = ("size_arcsec", "petrosian_radius_arcsec", "ellipticity", "position_angle", "concentration")


@pytest.mark.parametrize("unit", [3.6e-8, 1e11])
def test_the_unit_of_the_counts_changes_nothing_but_the_flux(galaxy, unit):
    found, right = measure_flux(galaxy * unit, SCALE), measure_flux(galaxy, SCALE)
    for name in UNITLESS:
        torch.testing.assert_close(getattr(found, name), getattr(right, name), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.flux / unit, right.flux, rtol=1e-3, atol=0)


def test_a_sky_that_was_left_in_and_a_bright_star_change_nothing(galaxy):
    right = measure_flux(galaxy, SCALE)
    star = 1e6 * gaussian(PSF_SIGMA, PSF_SIGMA, x=24, y=-22).float()
    for image in (galaxy + 500, galaxy + star, galaxy + 500 + star):
        found = measure_flux(image, SCALE)
        assert found.flag.tolist() == [0]
        torch.testing.assert_close(found.size_arcsec, right.size_arcsec, rtol=0.03, atol=0)
        torch.testing.assert_close(found.magnitude, right.magnitude, rtol=0, atol=0.03)
        torch.testing.assert_close(found.ellipticity, right.ellipticity, rtol=0, atol=0.03)


def test_bad_pixels_are_filled_from_the_other_side_and_flagged(galaxy):
    right = measure_flux(galaxy, SCALE)
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[:, 34:37, :30] = True
    broken = torch.where(mask[:, None], 1e5, galaxy)
    holes = torch.where(mask[:, None], torch.nan, galaxy)
    for found in (measure_flux(broken, SCALE, mask=mask), measure_flux(holes, SCALE)):
        assert found.flag.tolist() == [MISSING_PIXELS]
        torch.testing.assert_close(found.size_arcsec, right.size_arcsec, rtol=0.03, atol=0)
        torch.testing.assert_close(found.magnitude, right.magnitude, rtol=0, atol=0.03)


def test_given_noise_is_taken_and_a_frame_without_a_galaxy_is_flagged():
    empty = observed(gaussian(5, 3), flux=torch.zeros(3))
    found = measure_flux(empty, SCALE, noise=torch.tensor([[0.3, torch.nan, 0.9]]))
    assert found.flag.item() & NO_SOURCE
    assert found.noise[0, ::2].tolist() == pytest.approx([0.3, 0.9])
    assert found.noise[0, 1].item() == pytest.approx(0.5, rel=0.05)
    for blank in (torch.zeros(1, 1, SIDE, SIDE), torch.full((1, 1, SIDE, SIDE), torch.nan)):
        found = measure_flux(blank, SCALE)
        assert found.flag.item() & NO_SOURCE
        values = [getattr(found, name) for name in ("flux", "magnitude", "surface_brightness", *UNITLESS)]
        assert all(value.isfinite().all() for value in values)


def test_slopes_are_those_of_finite_differences():
    image = observed(gaussian(5, 3)).double()
    direction = gaussian(4, 4, x=3, y=2)[None, None] * 50 * torch.tensor([1.0, 0.5, 2.0])[None, :, None, None]

    def values(step):
        found = measure_flux(image + step * direction, SCALE, noise=NOISE.double()[None])
        return torch.stack(
            [found.size_arcsec[0], found.ellipticity[0], *found.magnitude[0], *found.surface_brightness[0]]
        )

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    slopes = torch.stack([torch.autograd.grad(value, step, retain_graph=True)[0] for value in values(step)])
    with torch.no_grad():
        differences = (values(1e-3) - values(-1e-3)) / 2e-3
    torch.testing.assert_close(slopes, differences, rtol=0.1, atol=5e-4)


def test_other_shapes_are_refused():
    for images in (torch.zeros(3, SIDE, SIDE), torch.zeros(1, 3, SIDE, 32), torch.zeros(1, 3, SIDE, SIDE).long()):
        with pytest.raises(ValueError, match=r"\(N, B, S, S\)"):
            measure_flux(images, 1.0)


def test_colors_are_those_of_one_galaxy_through_the_psf_of_each_band():
    sigmas = (3.0, 1.0, 1.0)  # pixels
    shapes = torch.stack([gaussian(math.hypot(2.5, s), math.hypot(1.5, s)) for s in sigmas])
    # Faint ones, whose light is that of the fitted model; their mean color has an error of 0.02.
    image = torch.cat([observed(shapes[1], seed=seed, flux=0.05 * FLUX) for seed in range(40)])
    image[:, 0] += (0.05 * (shapes[0] - shapes[1]) * FLUX[0]).float()
    fwhm = (torch.tensor(sigmas) * FWHM * SCALE).expand(40, -1)
    found = measure_flux(image, SCALE, psf_fwhm=fwhm)
    assert found.attribute("color_g_r", BANDS).mean().item() == pytest.approx(2.5 * math.log10(2), abs=0.08)
    # A band whose PSF is not known is taken to be as sharp as the others.
    alike = torch.cat([observed(shapes[0], seed=seed, flux=0.05 * FLUX) for seed in range(40)])
    part = measure_flux(alike, SCALE, psf_fwhm=torch.tensor([[3.0, torch.nan, 3.0]]) * FWHM * SCALE)
    assert part.attribute("color_r_F814W", BANDS).mean().item() == pytest.approx(2.5 * math.log10(5 / 4), abs=0.08)


def test_a_flux_is_known_from_twice_its_error_on(found):
    for multiple, known in ((1.5, False), (2.5, True)):
        faint = found._replace(flux=multiple * found.flux_error)
        assert [faint.known(name, BANDS).item() for name in ("magnitude_r", "color_g_r")] == [known, known]
        assert faint.known("size_arcsec", BANDS).item()


def test_the_shape_is_that_of_the_disc_too_and_not_of_the_bulge_alone():
    found = measure_flux(observed(0.25 * gaussian(1.5, 1.5) + 0.75 * gaussian(8, 3), flux=20 * FLUX), SCALE)
    # From the moments of all light: 0.25 x 1.5² + 0.75 x 8² to 0.25 x 1.5² + 0.75 x 3².
    assert found.ellipticity.item() == pytest.approx(1 - math.sqrt(7.3125 / 48.5625), abs=0.1)


def test_what_lies_beyond_two_petrosian_radii_is_not_the_galaxys():
    tail = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    tail[30:34, 32:62] = 8.0
    noise = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = measure_flux((3000 * gaussian(2.5, 2.5, x=0, y=0) + tail + noise)[None, None].float(), 1.0)
    axis = torch.arange(SIDE) - (SIDE - 1) / 2
    distance = torch.hypot(axis - found.centroid_x, axis[:, None] - found.centroid_y)
    within = 3000 + tail[distance <= 2 * found.petrosian_radius_arcsec].sum().item()
    assert found.flux.item() == pytest.approx(within, rel=0.1) and found.flux.item() < 0.95 * (3000 + tail.sum().item())


def test_bad_pixels_beside_the_middle_leave_centre_and_shape(galaxy):
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[:, 28:36, 34:44] = True
    found, right = measure_flux(galaxy, SCALE, mask=mask), measure_flux(galaxy, SCALE)
    assert (found.centroid_x - right.centroid_x).abs().item() < 1  # 1.9 without what is on the other side
    assert (found.ellipticity - right.ellipticity).abs().item() < 0.03
    assert (found.position_angle - right.position_angle).abs().item() < 12


@pytest.mark.parametrize("level, across, down", [(0, 1, -0.5), (0, 5, 3), (500, 4, 2)])
def test_a_sky_that_slopes_changes_nothing(galaxy, level, across, down):
    axis = (torch.arange(SIDE) - (SIDE - 1) / 2) / (SIDE / 2)
    plane = NOISE[:, None, None] * (level + across * axis + down * axis[:, None])
    found, right = measure_flux(galaxy + plane, SCALE), measure_flux(galaxy + NOISE[:, None, None] * level, SCALE)
    torch.testing.assert_close(found.size_arcsec, right.size_arcsec, rtol=0.05, atol=0)
    torch.testing.assert_close(found.magnitude, right.magnitude, rtol=0, atol=0.05)
    torch.testing.assert_close(found.ellipticity, right.ellipticity, rtol=0, atol=0.02)


def test_a_flat_sky_a_halo_in_one_corner_and_a_masked_corner_show_no_slope(galaxy):
    good = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    assert torch.equal(without_slope(galaxy, good), galaxy)
    halo = galaxy + 1e3 * gaussian(9, 9, x=30, y=-30).float()
    assert torch.equal(without_slope(halo, good), halo)
    tilted = galaxy + torch.linspace(-5, 5, SIDE)
    assert (without_slope(tilted, good) - galaxy).abs().amax() < 0.5
    good[:, :12, -12:] = False
    assert torch.equal(without_slope(tilted, good), tilted)


@pytest.mark.parametrize("sky", [0.2, 0.5, 2.0])
def test_a_small_sky_in_a_frame_that_shows_it_is_no_wing(galaxy, sky):
    """Beside a faint galaxy, whose wings would explain it: sizes are those without it, and with a large one."""
    faint = torch.cat([observed(gaussian(4, 3), seed=seed, flux=0.3 * FLUX) for seed in range(6)])
    right = measure_flux(faint, SCALE)
    found, large = (measure_flux(faint + NOISE[:, None, None] * level, SCALE) for level in (sky, 500))
    for each in (found, large):
        ratio = each.petrosian_half_light_arcsec / right.petrosian_half_light_arcsec
        assert (ratio - 1).abs().max() < 0.08 and (ratio.median() - 1).abs() < 0.03
    torch.testing.assert_close(found.size_arcsec, large.size_arcsec, rtol=0.02, atol=0)
