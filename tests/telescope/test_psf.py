"""Point-spread functions against GalSim's, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.telescope.fourier import FourierGrid
from galaxies.telescope.observing import observe
from galaxies.telescope.profiles import airy, gaussian, kolmogorov
from galaxies.telescope.psf import Psf, PsfImages

SIDE, SCALE = 64, 0.2
HALF_WIDTHS = torch.tensor([[0.7, 0.9]])


def by_galsim(profile, side: int = SIDE, scale: float = SCALE) -> np.ndarray:
    image = profile.drawImage(nx=side, ny=side, scale=scale, dtype=float).array  # pixels integrate
    return image / image.sum()


@pytest.mark.parametrize("side", [31, 32])
def test_the_air_blurs_as_in_galsim(side):
    galsim = pytest.importorskip("galsim")
    images = Psf(HALF_WIDTHS, kolmogorov).image(side, SCALE)[0].double().numpy()
    for image, fwhm in zip(images, HALF_WIDTHS[0].tolist(), strict=True):
        expected = by_galsim(galsim.Kolmogorov(fwhm=fwhm), side)
        assert np.abs(image - expected).max() < 2e-3 * expected.max()
        assert image.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("obscuration", [0.0, 0.36, 0.57])
def test_a_mirror_in_space_blurs_as_in_galsim(obscuration):
    galsim = pytest.importorskip("galsim")
    parameters = galsim.GSParams(folding_threshold=1e-3, maximum_fft_size=8192)
    theirs = galsim.Airy(lam_over_diam=0.4, obscuration=obscuration, gsparams=parameters)
    radius = np.linspace(0.1, 0.3, 20_001)  # its own full width is found to half a per cent only
    width = 2 * np.interp(-0.5, [-theirs.xValue(r, 0) / theirs.xValue(0, 0) for r in radius], radius)
    image = Psf(torch.tensor([[width]]), airy(obscuration)).image(SIDE, 0.1)[0, 0].double().numpy()
    expected = by_galsim(theirs, scale=0.1)
    assert np.abs(image - expected).max() < 3e-3 * expected.max()


def test_a_transfer_function_is_light_from_nowhere_but_the_point():
    field = FourierGrid(SIDE, torch.tensor([SCALE]))
    for profile in (kolmogorov, airy(0.0), airy(0.4)):
        transfer = Psf(HALF_WIDTHS, profile).transfer(field)
        assert transfer.shape == (1, 2, SIDE, SIDE // 2 + 1)
        assert transfer[..., 0, 0].tolist() == [pytest.approx([1, 1], abs=1e-5)]
        assert (transfer[0, 1] <= transfer[0, 0] + 1e-4).all() or profile is not kolmogorov  # the wider, the less
        assert transfer.abs().max() <= 1 + 1e-5


def test_nothing_passes_a_mirror_beyond_its_limit():
    # An open mirror's width is 1.02899 wavelengths over the diameter, and its limit a diameter a wavelength.
    limit = (1.02899 / 0.4) ** 2
    seen = airy(0.0)(torch.tensor([0.98 * limit, 1.02 * limit]), torch.tensor([0.4, 0.4]))
    assert 0 < float(seen[0]) < 0.01
    assert float(seen[1]) == 0


def test_the_half_width_is_that_asked_for():
    for profile in (kolmogorov, airy(0.3)):
        image = Psf(torch.tensor([[2.0]]), profile).image(129, 0.05)[0, 0].numpy()
        row = image[64] / image.max()
        across = np.interp(0.5, row[:63:-1], np.arange(65)[::-1]) * 0.05
        assert 2 * across == pytest.approx(2.0, rel=0.005)


def test_widths_have_gradients():
    field = FourierGrid(32, torch.tensor([0.3]))
    for profile in (kolmogorov, airy(0.4)):
        width = torch.tensor([[0.8, 1.0]], requires_grad=True)
        Psf(width, profile).transfer(field).square().sum().backward()
        step = 1e-2
        ends = [Psf(width.detach() + s, profile).transfer(field).double().square().sum() for s in (step, -step)]
        assert float(width.grad.sum()) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=0.02)


@pytest.mark.parametrize(("size", "oversampling"), [(33, 1), (34, 1), (65, 2), (66, 3)])
def test_a_picture_of_a_psf_blurs_as_the_psf(size, oversampling):
    width, scale, k = torch.tensor([[0.9]]), 0.2, 2
    light = torch.zeros(1, 1, 64, 64)
    light[0, 0, 24:30, 34:41] = torch.rand(6, 7, generator=torch.Generator().manual_seed(0))
    images = Psf(width, gaussian).image(size, scale / oversampling)
    seen = observe(light, PsfImages(images, oversampling), scale, oversampling=k)
    expected = observe(light, Psf(width, gaussian), scale, oversampling=k)
    assert (seen - expected).abs().max() < 2e-4 * expected.max()
