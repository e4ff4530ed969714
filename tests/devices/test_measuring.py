"""Measuring on a GPU gives what measuring on a CPU gives."""

from __future__ import annotations

import pytest
import torch

from galaxies.measure import source
from galaxies.measure.flux import measure_flux
from galaxies.measure.photometry import measure, measure_with_morphology
from galaxies.measure.power_spectrum import power_spectrum
from galaxies.measure.statistics_table import measure_images
from tests.conftest import render_galaxies

# Of a true device. Its sums are taken in another order, which shows in the last of 24 bits, and in a few steps of the
# iterations that follow; where such a digit decides whether a pixel belongs to a galaxy, one value of many moves by
# more, so that a part of them has to agree.
ROUNDING = {"rtol": 1e-3, "atol": 1e-4}
PART = 0.98


@pytest.fixture(scope="module")
def galaxies():
    return torch.from_numpy(render_galaxies(12)[0]).float() / 255


def assert_agree(found, right, gpu):
    """Compare what a device found with what is right: to the bit if the device is a pretended one."""
    found, right = found.cpu(), right.cpu()
    assert (found.shape, found.dtype) == (right.shape, right.dtype)
    if gpu is not None:
        torch.testing.assert_close(found, right, rtol=0, atol=0, equal_nan=True)
        return
    same = torch.isclose(found, right, **ROUNDING, equal_nan=True) if found.is_floating_point() else found == right
    assert same.double().mean() >= PART


def test_photometry_structure_and_morphology(galaxies, gpu):
    expected, found = measure_with_morphology(galaxies), measure_with_morphology(galaxies.to("cuda"))
    for parts, rights in zip(found, expected, strict=True):
        for part, right in zip(parts, rights, strict=True):
            assert part.device.type == "cuda"
            assert_agree(part, right, gpu)


def test_the_slope_of_photometry(galaxies, gpu):
    slopes = []
    for device in ("cpu", "cuda"):
        images = galaxies[:4].to(device).detach().requires_grad_()
        found = measure(images)
        (found.size.sum() + found.ellipticity.sum() + found.brightness.sum()).backward()
        slopes.append(images.grad.cpu())
    assert slopes[0].abs().max() > 0
    # A true device sums up in another order; slopes of sizes are differences of large numbers.
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0 if gpu else 2e-2, atol=0 if gpu else 1e-4)


def test_the_table_of_all_statistics(galaxies, gpu):
    images = (galaxies * 255).byte()
    found, expected = (torch.from_numpy(measure_images(images, device).table()) for device in ("cuda", "cpu"))
    assert_agree(found, expected, gpu)


def test_power_spectra(galaxies, gpu):
    assert_agree(power_spectrum(galaxies.to("cuda")), power_spectrum(galaxies), gpu)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_what_is_connected_is_found(dtype, gpu):
    generator = torch.Generator().manual_seed(0)
    ceiling = torch.randint(0, 2, (4, 32, 32), generator=generator).to(dtype)
    ceiling[:, 10:20, 4:28] = 1
    marker = torch.zeros_like(ceiling)
    marker[:, 15, 15] = 1
    expected = source.reconstruct(marker, ceiling)
    found = source.reconstruct(marker.to("cuda"), ceiling.to("cuda"))
    assert found.dtype == dtype
    assert torch.equal(found.cpu(), expected)
    assert 240 <= expected.sum() < ceiling.sum()  # what is connected, and not all


def test_measuring_on_mps(galaxies, pretended_mps):
    expected = measure_with_morphology(galaxies[:4])
    found = measure_with_morphology(galaxies[:4].to("mps"))
    for parts, rights in zip(found, expected, strict=True):
        for part, right in zip(parts, rights, strict=True):
            torch.testing.assert_close(part.cpu(), right, rtol=0, atol=0, equal_nan=True)
    images = galaxies[:2].to("mps").detach().requires_grad_()
    measure(images).size.sum().backward()
    assert images.grad.cpu().abs().max() > 0


def test_flux_is_measured_in_a_recorded_step(galaxies, pretended):
    galaxies = galaxies[:2, :, 16:48, 16:48]  # small, since a pretended device takes its time
    images = galaxies.to("cuda").detach().requires_grad_()
    noise, width, scale = (torch.full(shape, v).to("cuda") for shape, v in (((2, 3), 0.02), ((2, 3), 1.0), ((2,), 0.4)))
    measure_flux(images.detach(), scale)  # keeps the places of the frame's pixels, as steps before a recorded one do
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = measure_flux(images, scale, noise=noise, psf_fwhm=width)
        (slope,) = torch.autograd.grad(found.size_arcsec.sum() + found.magnitude.sum(), images)
    graph.replay()
    right = measure_flux(galaxies, 0.4, noise=noise.cpu(), psf_fwhm=width.cpu())
    for part, expected in zip(found, right, strict=True):
        torch.testing.assert_close(part.detach().cpu(), expected, rtol=0, atol=0, equal_nan=True)
    assert slope.cpu().abs().amax((1, 2, 3)).min() > 0


def test_flux_on_mps(galaxies, pretended_mps):
    found, right = (measure_flux(images, 0.4) for images in (galaxies[:2].to("mps"), galaxies[:2]))
    for part, expected in zip(found, right, strict=True):
        torch.testing.assert_close(part.cpu(), expected, rtol=0, atol=0, equal_nan=True)
