"""The ellipse of half-light that the page draws on a picture: where the galaxy is, as large, and turned as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.generation.sampler import GalaxySampler
from galaxies.measure.statistics_table import PLACES
from galaxies.serving.models import ServedModel
from galaxies.serving.service import GalaxyService
from tests.generation.painted import painting_sampler
from tests.measure.test_photometry import binned, picture, profile

OFFSET = (0.12, -0.07)  # of the centre, frame widths along rows and down columns


@pytest.fixture(scope="module")
def displays(untrained) -> GalaxyService:
    return GalaxyService(ServedModel(GalaxySampler.from_checkpoint(untrained["gan"], "cpu")), 4)


@pytest.fixture(scope="module")
def fluxes() -> GalaxyService:
    return GalaxyService(ServedModel(painting_sampler()), 4)


@pytest.mark.parametrize("kind", ["exponential", "gaussian"])
@pytest.mark.parametrize(("ellipticity", "angle"), [(0.3, 30.0), (0.6, 130.0)])
def test_the_ellipse_of_a_display(displays, kind, ellipticity, angle):
    """The ellipse that holds half of the light has the area of a circle of radius 0.09: see `profile`."""
    light = profile(kind, 0.09, ellipticity, angle, *OFFSET)
    image = (255 * picture(light, scale=0.8, noise=0.01)).round().to(torch.uint8)
    found = displays._ellipse(displays.sampler.measure(image[None]))
    semi_major = 0.09 / (1 - ellipticity) ** 0.5
    assert [found.x, found.y] == pytest.approx([0.5 + OFFSET[0], 0.5 + OFFSET[1]], abs=0.004)
    assert found.semi_major == pytest.approx(semi_major, rel=0.08)
    assert found.semi_minor / found.semi_major == pytest.approx(1 - ellipticity, abs=0.04)
    assert found.angle == pytest.approx(angle, abs=3)


def test_the_ellipse_of_flux_lies_on_its_picture(fluxes):
    """Whose first row is below, as FITS viewers show it."""
    light = binned(profile("exponential", 0.09, 0.5, 30.0, *OFFSET))
    noise = np.random.default_rng(1).standard_normal((4, 64, 64)) * np.array([10, 12, 20, 60])[:, None, None]
    image = torch.from_numpy(3e5 * light / light.sum() + noise).float()
    found = fluxes._ellipse(fluxes.sampler.measure(image[None]))
    assert [found.x, found.y] == pytest.approx([0.5 + OFFSET[0], 0.5 - OFFSET[1]], abs=0.004)
    assert found.semi_major == pytest.approx(0.09 / 0.5**0.5, rel=0.06)
    assert found.semi_minor == pytest.approx(0.09 * 0.5**0.5, rel=0.06)
    assert found.angle == pytest.approx(150, abs=2)
    shown = fluxes.sampler.pictures(image[None])[0].double().mean(0)
    centre = divmod(int(shown.argmax()), 64)  # row, column
    assert [found.x, found.y] == pytest.approx([(centre[1] + 0.5) / 64, (centre[0] + 0.5) / 64], abs=0.02)


def test_nothing_to_measure_has_no_ellipse(displays, fluxes):
    blank = torch.full((1, 3, 64, 64), 30, dtype=torch.uint8)
    assert displays._ellipse(displays.sampler.measure(blank)) is None
    assert fluxes._ellipse(fluxes.sampler.measure(torch.zeros(1, 4, 64, 64))) is None


def test_places_stay_out_of_catalogues_and_readings(fluxes):
    from galaxies.generation.catalogue import generate_blocks
    from galaxies.generation.requests import Requests

    asked = Requests(torch.tensor([0]), torch.tensor([[19.5, 0.7, 1.2, 0.4]]), [7])
    ((_, table),) = generate_blocks(fluxes.sampler, asked)
    assert "measured_size_arcsec" in table
    assert not any(name.endswith(PLACES) for name in table)
