"""Light on other pixels, against GalSim and by identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from galaxies.common.errors import UserError
from galaxies.telescope.observing import Noise, observe, resampled
from galaxies.telescope.profiles import profile_of
from galaxies.telescope.psf import Psf, PsfImages
from galaxies.telescope.surveys import find_survey

FINE, LIGHT_SIDE = 0.1, 96


def galaxy_light(galsim, side: int = LIGHT_SIDE, scale: float = FINE):
    """Return a galaxy and its light on fine pixels, which GalSim lets gather it."""
    galaxy = galsim.Exponential(half_light_radius=0.7, flux=3000).shear(q=0.6, beta=0.5 * galsim.radians)
    galaxy = galsim.Convolve(galaxy, galsim.Gaussian(fwhm=0.25)).shift(0.13, -0.21)  # no cusp for coarse pixels
    image = galaxy.drawImage(nx=side, ny=side, scale=scale, dtype=float).array
    return galaxy, torch.from_numpy(image)[None, None]


def shapes(galsim, image: np.ndarray, scale: float) -> np.ndarray:
    """Return e1, e2 and the size in arcseconds by adaptive moments (Hirata & Seljak 2003)."""
    found = galsim.hsm.FindAdaptiveMom(galsim.Image(np.ascontiguousarray(image), scale=scale))
    return np.array([found.observed_shape.e1, found.observed_shape.e2, found.moments_sigma * scale])


@pytest.mark.parametrize(
    ("text", "scale", "side"),
    [("moffat:3.5", 0.2, 48), ("kolmogorov", 0.263, 40), ("gaussian", 0.1, 96), ("double_gaussian:0.1,2", 0.396, 25)],
)
def test_other_pixels_see_what_galsim_sees(text, scale, side):
    galsim = pytest.importorskip("galsim")
    fwhm = 0.7
    galaxy, light = galaxy_light(galsim)
    psf = {"moffat:3.5": galsim.Moffat(beta=3.5, fwhm=fwhm), "kolmogorov": galsim.Kolmogorov(fwhm=fwhm)}.get(text)
    if psf is None:
        sigma = 0.28
        parts = {"gaussian": (1.0, 0.0), "double_gaussian:0.1,2": (0.9, 0.1)}[text]
        psf = parts[0] * galsim.Gaussian(sigma=sigma) + parts[1] * galsim.Gaussian(sigma=2 * sigma)
        radius = np.linspace(0, 0.6, 601)
        brightness = np.array([psf.xValue(r, 0) for r in radius])
        fwhm = 2 * np.interp(-0.5, -brightness / brightness[0], radius)
    expected = galsim.Convolve(galaxy, psf).drawImage(nx=side, ny=side, scale=scale, dtype=float).array
    blur = Psf(torch.tensor([[fwhm]], dtype=torch.float64), profile_of(text))
    seen = resampled(light, FINE, scale, side, blur)[0, 0].numpy()
    assert seen.shape == (side, side)
    assert seen.sum() == pytest.approx(expected.sum(), rel=1e-3)
    assert np.abs(seen - expected).max() < 1e-3 * expected.max()
    assert np.abs(shapes(galsim, seen, scale) - shapes(galsim, expected, scale)).max() < 1e-3


@pytest.mark.parametrize(("text", "scale"), [("kolmogorov", 0.2), ("moffat:2.5", 0.2), ("airy:0.36", 0.1)])
def test_far_wings_do_not_come_round(text, scale):
    galsim = pytest.importorskip("galsim")
    far = galsim.GSParams(folding_threshold=5e-4, maximum_fft_size=16384)
    galaxy, light = galaxy_light(galsim, 128, scale / 2)
    psf, fwhm = {
        "kolmogorov": lambda: (galsim.Kolmogorov(fwhm=0.8, gsparams=far), 0.8),
        "moffat:2.5": lambda: (galsim.Moffat(beta=2.5, fwhm=0.8, gsparams=far), 0.8),
        # The width of this obscuration's profile is 0.96229 wavelengths over the diameter.
        "airy:0.36": lambda: (
            galsim.Airy(lam_over_diam=0.17, obscuration=0.36, gsparams=far),
            0.17 * 0.9622936462348741,
        ),
    }[text]()
    expected = galsim.Convolve(galaxy, psf).drawImage(nx=64, ny=64, scale=scale, dtype=float).array
    blur = Psf.named(torch.tensor([[fwhm]], dtype=torch.float64), text)
    seen = observe(light, blur, scale, oversampling=2)[0, 0].numpy()
    assert seen.sum() == pytest.approx(expected.sum(), rel=1e-3)
    assert np.abs(shapes(galsim, seen, scale) - shapes(galsim, expected, scale)).max() < 1e-3
    corner = (slice(0, 8), slice(0, 8))  # where next to nothing is but wings, and what would come round
    assert seen[corner].sum() == pytest.approx(expected[corner].sum(), abs=2e-5 * expected.sum())


def test_measured_psfs_see_what_galsim_sees():
    # A PSF that is not round, on the telescope's pixels with their response in it, as surveys give it.
    galsim = pytest.importorskip("galsim")
    galaxy, light = galaxy_light(galsim)
    psf = galsim.Moffat(beta=3.5, fwhm=0.8, trunc=3.0).shear(g1=0.05, g2=-0.08).shift(0.04, 0.02)
    image = psf.drawImage(nx=41, ny=41, scale=0.2, dtype=float).array
    expected = galsim.Convolve(galaxy, psf).drawImage(nx=48, ny=48, scale=0.2, dtype=float).array
    blur = PsfImages(torch.from_numpy(image / image.sum())[None, None])
    for seen in (observe(light, blur, 0.2, oversampling=2), resampled(light, FINE, 0.2, 48, blur)):
        found = seen[0, 0].numpy()
        assert found.sum() == pytest.approx(expected.sum(), rel=1e-3)
        assert np.abs(found - expected).max() < 1e-3 * expected.max()
        assert np.abs(shapes(galsim, found, 0.2) - shapes(galsim, expected, 0.2)).max() < 1e-3


def test_hst_s_binned_pixels_see_the_sums_of_what_galsim_draws_on_its_own():
    galsim = pytest.importorskip("galsim")
    pytest.importorskip("surveycodex")
    hst = find_survey("COSMOS")
    binned = hst.binned(hst.binning_for(FINE))
    galaxy = galsim.Exponential(half_light_radius=0.7, flux=3000).shear(q=0.6, beta=0.5 * galsim.radians)
    galaxy = galsim.Convolve(galaxy, galsim.Gaussian(fwhm=0.4)).shift(0.13, -0.21)  # nothing finer than the light
    light = torch.from_numpy(galaxy.drawImage(nx=96, ny=96, scale=FINE, dtype=float).array)[None, None]
    psf = galsim.Airy(lam_over_diam=1.0, obscuration=hst.obscuration)
    radius = np.linspace(0, 0.8, 8001)
    brightness = np.array([psf.xValue(r, 0) for r in radius])
    width = 2 * np.interp(-0.5, -brightness / brightness[0], radius)
    psf = galsim.Airy(lam_over_diam=hst.bands[0].psf_fwhm / width, obscuration=hst.obscuration)
    own = galsim.Convolve(galaxy, psf).drawImage(nx=4 * 64, ny=4 * 64, scale=hst.pixel_scale, dtype=float).array
    expected = own.reshape(64, 4, 64, 4).sum((1, 3))
    blur = Psf.named(
        torch.tensor([[binned.bands[0].psf_fwhm]], dtype=torch.float64), binned.profile, binned.obscuration
    )
    seen = resampled(light, FINE, binned.pixel_scale, 64, blur)[0, 0].numpy()
    assert seen.sum() == pytest.approx(expected.sum(), rel=1e-3) and expected.sum() > 2800
    assert np.abs(seen - expected).max() < 1e-3 * expected.max()
    assert np.abs(shapes(galsim, seen, 0.12) - shapes(galsim, expected, 0.12)).max() < 1e-3


def test_the_flux_of_a_point_is_kept():
    light = torch.zeros(1, 1, 64, 64)
    light[..., 31:33, 31:33] = 25.0
    for text in ("gaussian", "moffat:4.765", "double_gaussian:0.1,2"):
        seen = resampled(light, 0.1, 0.17, 60, Psf(torch.tensor([[0.5]]), profile_of(text)))
        assert float(seen.sum()) == pytest.approx(100, rel=1e-3)


def test_whole_ratios_are_the_same_as_observing():
    light = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    psf = Psf(torch.tensor([[0.5, 0.7, 0.9], [0.6, 0.8, 1.0]]), profile_of("kolmogorov"))
    scales = torch.tensor([0.2, 0.3])
    for k in (1, 2, 3):
        expected = observe(light, psf, scales, oversampling=k)
        torch.testing.assert_close(resampled(light, scales / k, scales, 24 // k, psf), expected, atol=1e-5, rtol=0)


def test_each_galaxy_has_its_own_scales():
    light = torch.rand(3, 2, 20, 20, generator=torch.Generator().manual_seed(0))
    psf = Psf(torch.tensor([[0.5, 0.7], [0.6, 0.8], [0.9, 1.0]]), profile_of("moffat:3"))
    fine, coarse = torch.tensor([0.1, 0.12, 0.2]), torch.tensor([0.3, 0.12, 0.25])
    together = resampled(light, fine, coarse, 15, psf)
    again = resampled(light, fine, coarse, 15, psf, coarsest=3.0)
    torch.testing.assert_close(together, again)
    for n in range(3):
        one = Psf(psf.fwhm[n : n + 1], psf.profile)
        alone = resampled(light[n : n + 1], fine[n : n + 1], coarse[n : n + 1], 15, one, coarsest=3.0)
        torch.testing.assert_close(together[n], alone[0], atol=1e-5, rtol=0)


def test_nothing_happens_to_light_on_its_own_pixels_without_a_blur():
    light = torch.rand(1, 1, 21, 21, generator=torch.Generator().manual_seed(0))
    sharp = Psf(torch.tensor([[1e-4]]), profile_of("gaussian"))
    torch.testing.assert_close(resampled(light, 0.2, 0.2, 21, sharp), light, atol=1e-5, rtol=0)
    torch.testing.assert_close(resampled(light, 0.2, 0.2, 11, sharp), light[..., 5:16, 5:16], atol=1e-5, rtol=0)
    wider = resampled(light, 0.2, 0.2, 25, sharp)
    torch.testing.assert_close(wider[..., 2:-2, 2:-2], light, atol=1e-5, rtol=0)
    assert float(wider[..., 0].abs().max()) < 1e-5


def test_two_gaussian_blurs_are_one():
    light = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    light[0, 0, 30:34, 28:33] = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    widths = [torch.tensor([[w]], dtype=torch.float64) for w in (0.3, 0.4, 0.5)]
    first, second, both = (Psf(w, profile_of("gaussian")) for w in widths)
    twice = observe(observe(light, first, 0.1), second, 0.1)
    torch.testing.assert_close(twice, observe(light, both, 0.1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("size", [12, 13])
def test_quarter_turns_of_all_turn_what_is_seen(turns, size):
    generator = torch.Generator().manual_seed(0)
    light = torch.rand(2, 2, 32, 32, generator=generator)
    images = torch.rand(2, 2, size, size, generator=generator)
    images = images / images.sum((-1, -2), keepdim=True)
    normal = torch.randn(2, 2, 16, 16, generator=generator)
    noise = Noise(torch.tensor([0.1, 0.2]), torch.tensor([0.01, 0.02]))

    def turned(x):
        return x.rot90(turns, (-2, -1))

    seen = observe(light, PsfImages(images), 0.2, oversampling=2, noise=noise, normal=normal)
    there = observe(turned(light), PsfImages(turned(images)), 0.2, oversampling=2, noise=noise, normal=turned(normal))
    torch.testing.assert_close(there, turned(seen), atol=1e-5, rtol=0)


def test_moved_light_is_seen_moved():
    light = torch.zeros(1, 1, 48, 48)
    light[0, 0, 20:26, 16:24] = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
    psf = Psf(torch.tensor([[0.5]]), profile_of("moffat:3"))
    seen = observe(light, psf, 0.2, oversampling=2)
    moved = observe(light.roll((4, -6), (-2, -1)), psf, 0.2, oversampling=2)
    torch.testing.assert_close(moved[..., 4:-4, 4:-8], seen[..., 2:-6, 7:-5], atol=2e-4 * float(seen.max()), rtol=0)


@pytest.mark.parametrize("kind", ["profile", "images"])
def test_slopes_are_those_of_finite_differences(kind):
    generator = torch.Generator().manual_seed(0)
    options = {"dtype": torch.float64, "generator": generator}
    light = (torch.rand(2, 2, 6, 6, **options) + 0.5).requires_grad_()
    sky = (torch.rand(2, 2, **options) + 0.5).requires_grad_()
    normal = torch.randn(2, 2, 3, 3, **options)
    psf = torch.rand(2, 2, *((3, 3) if kind == "images" else ()), **options) / 9 + 0.5
    psf.requires_grad_()

    def seen(light, psf, sky):
        blur = PsfImages(psf) if kind == "images" else Psf(psf, profile_of("moffat:3"))
        noise = Noise(sky, torch.tensor([0.3, 0.1], dtype=torch.float64))
        return resampled(light, 0.2, scale, 3, blur, coarsest=2.5, noise=noise, normal=normal)

    scale = torch.tensor([0.37, 0.45], dtype=torch.float64)
    assert torch.autograd.gradcheck(seen, (light, psf, sky), atol=1e-5)


def test_pixels_finer_than_the_lights_are_refused():
    psf = Psf(torch.tensor([[0.5]]), profile_of("gaussian"))
    light = torch.ones(1, 1, 8, 8)
    with pytest.raises(UserError, match=r"0\.5 times as large as those of the light.* at least the light's, 0.2 arcs"):
        resampled(light, 0.2, 0.1, 8, psf)
    with pytest.raises(UserError, match=r"0\.9 times as large"):
        resampled(light.expand(2, 1, 8, 8), torch.tensor([0.2, 0.2]), torch.tensor([0.4, 0.18]), 8, psf)
    with pytest.raises(UserError, match="nan times"):
        resampled(light, 0.2, float("nan"), 8, psf)


def test_frames_wider_than_the_light_see_its_wings_and_nothing_twice():
    light = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    psf = Psf(torch.tensor([[0.5]], dtype=torch.float64), profile_of("moffat:3"))
    padded = F.pad(light, (30, 30, 30, 30))
    expected = resampled(padded, 0.1, 0.2, 36, psf)
    torch.testing.assert_close(resampled(light, 0.1, 0.2, 36, psf), expected, atol=1e-5, rtol=0)
