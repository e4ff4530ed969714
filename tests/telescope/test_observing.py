"""The telescope against GalSim: blur, pixels, flux and noise; and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from galaxies.telescope.observing import Noise, gathered, noisy, observe
from galaxies.telescope.profiles import kolmogorov
from galaxies.telescope.psf import Psf, PsfImages

SIDE, SCALE, FWHM = 48, 0.2, 0.7


def light_of(profile, oversampling: int) -> torch.Tensor:
    """Return a GalSim profile's light on fine pixels, (1, 1, k S, k S)."""
    size = SIDE * oversampling
    image = profile.drawImage(nx=size, ny=size, scale=SCALE / oversampling, dtype=float).array
    return torch.from_numpy(image).float()[None, None]


@pytest.mark.parametrize("oversampling", [1, 2, 3])
def test_light_is_seen_as_galsim_sees_it(oversampling):
    galsim = pytest.importorskip("galsim")
    galaxy = galsim.Exponential(half_light_radius=0.8, flux=3000).shear(q=0.5, beta=0.6 * galsim.radians)
    expected = galsim.Convolve(galaxy.shift(0.31, -0.17), galsim.Kolmogorov(fwhm=FWHM))
    expected = expected.drawImage(nx=SIDE, ny=SIDE, scale=SCALE, dtype=float).array
    psf = Psf(torch.tensor([[FWHM]]), kolmogorov)
    seen = observe(light_of(galaxy.shift(0.31, -0.17), oversampling), psf, SCALE, oversampling=oversampling)
    seen = seen[0, 0].double().numpy()
    assert seen.shape == (SIDE, SIDE)
    assert seen.sum() == pytest.approx(expected.sum(), rel=0.003)
    # Without finer pixels, light is blurred by a pixel before the air as well as after it.
    assert np.abs(seen - expected).max() < (0.003 if oversampling > 1 else 1e-4 + 0.02) * expected.max()


def test_each_image_and_band_has_its_own_psf_and_pixels():
    light = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    widths = torch.tensor([[0.5, 0.7, 0.9], [1.1, 0.6, 0.8]])
    scales = torch.tensor([0.2, 0.3])
    together = observe(light, Psf(widths, kolmogorov), scales)
    for n in range(2):
        for b in range(3):
            alone = observe(light[n : n + 1, b : b + 1], Psf(widths[n : n + 1, b : b + 1], kolmogorov), scales[n])
            torch.testing.assert_close(together[n, b], alone[0, 0], atol=1e-6, rtol=0)


def test_light_does_not_come_round_the_frame():
    light = torch.zeros(1, 1, 40, 40)
    light[0, 0, 20, 0] = 1.0
    seen = observe(light, Psf(torch.tensor([[1.0]]), kolmogorov), 0.25)[0, 0]
    assert float(seen[20, 0]) == float(seen.max())
    assert float(seen[:, -4:].max()) < 0.004 * float(seen.max())
    assert 0.5 < float(seen.sum()) < 0.7  # what was blurred beyond the rim is lost


def test_a_picture_of_a_psf_moves_light_by_where_its_own_lies():
    generator = torch.Generator().manual_seed(0)
    light = torch.zeros(1, 2, 48, 48)
    light[..., 18:28, 20:30] = torch.rand(10, 10, generator=generator)
    picture = F.pad(Psf(torch.tensor([[0.9]]), kolmogorov).image(15, 0.3), (2, 2, 2, 2))
    moved = torch.cat([picture, picture.roll((0, 1), (-2, -1))], 1)  # by a pixel of the telescope, along the rows
    seen = observe(light, PsfImages(moved), 0.3, oversampling=2)
    torch.testing.assert_close(seen[0, 1, :, 6:-4], seen[0, 0, :, 5:-5], atol=1e-4 * float(seen.max()), rtol=0)
    assert float((seen[0, 1] - seen[0, 0]).abs().max()) > 0.05 * float(seen.max())


def test_pixels_gather_the_light_of_their_parts():
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    assert gathered(fine, 2)[0, 0].tolist() == [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]
    assert gathered(fine, 1) is fine


def test_noise_is_that_of_the_electrons_in_galsim():
    galsim = pytest.importorskip("galsim")
    sky_electrons, electrons_per_njy, flux = 900.0, 4.0, 250.0  # a pixel
    image = galsim.Image(np.full((300, 300), flux * electrons_per_njy))
    image.addNoise(galsim.PoissonNoise(galsim.BaseDeviate(7), sky_level=sky_electrons))
    expected = image.array / electrons_per_njy
    noise = Noise(torch.tensor([sky_electrons**0.5 / electrons_per_njy]), torch.tensor([1 / electrons_per_njy]))
    normal = torch.randn(1, 1, 300, 300, generator=torch.Generator().manual_seed(0))
    seen = noisy(torch.full((1, 1, 300, 300), flux), noise, normal)
    assert float(seen.mean()) == pytest.approx(float(expected.mean()), rel=1e-3)
    assert float(seen.std()) == pytest.approx(float(expected.std()), rel=0.01)


def test_normal_noise_is_close_to_counted_electrons_from_tens_on():
    stats = pytest.importorskip("scipy.stats")
    electrons = 100.0  # a pixel, of sky and source, at an electron a nanojansky
    noise = Noise(torch.tensor([60.0**0.5]), torch.tensor([1.0]))
    normal = torch.randn(1, 1, 400, 400, generator=torch.Generator().manual_seed(0))
    seen = noisy(torch.full((1, 1, 400, 400), 40.0), noise, normal) + 60
    assert float(seen.var()) == pytest.approx(electrons, rel=0.01)
    for part in (0.05, 0.5, 0.95):  # Poisson's skewness is 0.1: its quantiles lie 0.03 of the width off, and whole
        counted = stats.poisson.ppf(part, electrons)
        assert float(seen.quantile(part)) == pytest.approx(counted, abs=1.0)


def test_noise_belongs_to_its_image_and_band():
    sky = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    seen = noisy(torch.zeros(2, 2, 200, 200), Noise(sky, torch.tensor([5.0, 6.0])))
    torch.testing.assert_close(seen.std((-1, -2)), sky, rtol=0.03, atol=0)
    bright = noisy(torch.full((2, 2, 200, 200), 10.0), Noise(sky, torch.tensor([5.0, 6.0])))
    torch.testing.assert_close(bright.var((-1, -2)), sky**2 + torch.tensor([50.0, 60.0]), rtol=0.05, atol=0)
    assert noisy(torch.full((1, 1, 4, 4), -3.0), Noise(sky[:1, :1] * 0, torch.tensor([1.0]))).eq(-3).all()


def test_gradients_pass_through_the_telescope():
    generator = torch.Generator().manual_seed(0)
    light = (torch.rand(1, 1, 8, 8, generator=generator) + 0.5).requires_grad_()
    width = torch.tensor([[0.6]], requires_grad=True)
    sky = torch.tensor([[0.1]], requires_grad=True)
    normal = torch.randn(1, 1, 8, 8, generator=generator)
    weight = torch.randn(1, 1, 8, 8, generator=generator)

    def loss(light, width, sky):
        noise = Noise(sky, torch.tensor([0.02]))
        return (observe(light, Psf(width, kolmogorov), 0.25, noise=noise, normal=normal) * weight).sum()

    loss(light, width, sky).backward()
    for place, values in enumerate((light, width, sky)):
        step = 1e-2
        ends = []
        for sign in (step, -step):
            moved = [v.detach().clone() for v in (light, width, sky)]
            moved[place].view(-1)[0] += sign
            ends.append(float(loss(*moved)))
        assert float(values.grad.view(-1)[0]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.03, abs=2e-3)
