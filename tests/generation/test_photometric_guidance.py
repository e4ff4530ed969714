"""Steps towards requested photometry, and the changes of a galaxy that they are made of."""

from __future__ import annotations

import math

import pytest
import torch

from config_physics import Config, attribute_table
from galaxies.datasets.prepared import to_float
from galaxies.generation.photometric_guidance import galaxy_changes, push_to_photometry
from physics_model import FluxScale, photometric_residuals
from tests.conftest import flux_galaxies, render_galaxies

TABLE = attribute_table(("size", "brightness", "ellipticity", "redshift"))


@pytest.fixture(scope="module")
def images():
    return to_float(torch.from_numpy(render_galaxies(12, seed=5)[0]))


def residuals(images, requested, known=None):
    known = torch.ones_like(requested) if known is None else known
    return photometric_residuals(images, requested, known, TABLE)[0]


def present(images):
    return residuals(images, torch.zeros(len(images), 4))


@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_few_steps_give_a_galaxy_what_was_asked_for(images, column, sign):
    wanted = present(images)
    wanted[:, column] += 0.08 * sign
    wanted = wanted.clamp(0.02, 1)
    moved = images
    for _ in range(4):
        moved = push_to_photometry(moved, 1.0, wanted, torch.ones_like(wanted), TABLE)
    before, after = (residuals(each, wanted)[:, :3].abs() for each in (images, moved))
    assert after[:, column].mean() < 0.35 * before[:, column].mean()
    # What was right stays about right.
    assert after.mean() < 0.03


def test_what_nobody_asked_for_moves_nothing(images):
    wanted = present(images) + 0.1
    assert torch.equal(push_to_photometry(images, 1.0, wanted, torch.zeros_like(wanted), TABLE), images)


def test_an_empty_frame_is_left_alone():
    empty = torch.full((2, 3, 64, 64), -0.9)
    wanted = torch.full((2, 4), 0.5)
    assert torch.equal(push_to_photometry(empty, 1.0, wanted, torch.ones_like(wanted), TABLE), empty)


def test_each_image_is_moved_on_its_own(images):
    wanted = present(images) + 0.05
    together = push_to_photometry(images, 0.5, wanted, torch.ones_like(wanted), TABLE)
    alone = push_to_photometry(images[3:4], 0.5, wanted[3:4], torch.ones(1, 4), TABLE)
    torch.testing.assert_close(together[3:4], alone, rtol=1e-4, atol=1e-5)


def test_more_light_is_the_light_and_not_the_sky():
    x = torch.zeros(1, 3, 64, 64) + 0.25
    x[..., 28:36, 28:36] += 0.5
    more = galaxy_changes(x)[:, 0]
    torch.testing.assert_close(more[..., 30:34, 30:34], torch.full((1, 3, 4, 4), 0.5), rtol=1e-3, atol=1e-3)
    assert more[..., :8, :8].abs().max() < 1e-6


def test_a_larger_galaxy_is_the_derivative_of_zooming():
    axis = (torch.arange(64) + 0.5) / 32 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    def galaxy(scale):
        return torch.exp(-(x**2 + 2 * y**2) / scale**2 * 20).expand(1, 3, 64, 64)

    expected = (galaxy(1.01) - galaxy(0.99)) / 0.02
    found = galaxy_changes(galaxy(1.0))[:, 1]
    assert (found - expected).abs().max() < 0.12 * expected.abs().max()  # the blur takes off the peaks


# Flux

FLUX = Config(
    attributes=("magnitude_r", "color_g_r", "size_arcsec", "redshift"),
    kind="flux",
    bands=("g", "r", "i"),
    classes=("galaxy",),
    softening=(40.0, 80.0, 120.0),
    pixel_scale=0.2,
    psf_fwhm=(0.0, 0.0, 0.0),
    attribute_ranges=(18.0, 22.0, 0.0, 1.5, 0.5, 2.5, 0.0, 1.0),
)
SCALE = FluxScale.of(FLUX, torch.device("cpu"))


@pytest.fixture(scope="module")
def stretched():
    return SCALE.stretch(torch.from_numpy(flux_galaxies(3, FLUX.bands, seed=2)[0]))


def flux_residuals(images, requested):
    return photometric_residuals(images, requested, torch.ones_like(requested), FLUX.attribute_rows, SCALE)[0]


def test_a_few_steps_give_flux_what_was_asked_for(stretched):
    present = flux_residuals(stretched, torch.zeros(3, 4))
    # Brighter; redder; larger.
    wanted = present + torch.tensor([[-0.06, 0.0, 0.0, 0.0], [0.0, 0.08, 0.0, 0.0], [0.0, 0.0, 0.05, 0.0]])
    known, moved = torch.ones_like(wanted), stretched
    for _ in range(3):
        moved = push_to_photometry(moved, 1.0, wanted, known, FLUX.attribute_rows, SCALE)
    before, after = (flux_residuals(images, wanted)[:, :3].abs() for images in (stretched, moved))
    assert (after.diagonal() < 0.4 * before.diagonal()).all() and after.mean() < 0.015
    unknown = torch.zeros_like(wanted)
    assert torch.equal(push_to_photometry(stretched, 1.0, wanted, unknown, FLUX.attribute_rows, SCALE), stretched)


def test_more_light_is_as_much_more_flux_in_one_band(stretched):
    changes = galaxy_changes(stretched.double(), SCALE)
    assert changes.shape == (3, 6, 3, 64, 64)
    flux = SCALE.stretch.flux(stretched.double())
    step = 1e-4
    inner = (..., slice(28, 36), slice(28, 36))  # where the window is 1
    for band in range(3):
        brighter = SCALE.stretch.flux(stretched.double() + step * changes[:, band])
        assert torch.allclose(brighter[:, band][inner], (flux[:, band] * math.exp(step))[inner], rtol=1e-5, atol=1e-3)
        others = [k for k in range(3) if k != band]
        assert torch.equal(changes[:, band, others], torch.zeros(3, 2, 64, 64, dtype=changes.dtype))
