"""The report's part on photometric guidance, with a denoiser that always sees the same galaxy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from config_physics import Config
from galaxies.compute.device import Engine
from galaxies.datasets.population import Population
from galaxies.datasets.prepared import to_float
from galaxies.generation.build import build_generator
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.generation.solvers import Solver
from galaxies.measure import photometry
from galaxies.validation.guidance_effect import guidance_effect
from galaxies.validation.report.cells import LeftOut
from galaxies.validation.report.page import build_page
from tests.conftest import Oracle, render_galaxies
from tests.validation.reports import report_of


@pytest.fixture(scope="module")
def effect():
    image = torch.from_numpy(render_galaxies(1, seed=2)[0])
    config = Config(diffusion=True, diffusion_steps=50, width=4, unet_blocks=1, attributes=("brightness", "redshift"))
    network = build_generator(config)
    network.unet = Oracle(network.process, network.normalise(to_float(image)))
    population = Population(torch.arange(4), torch.rand(4, 2))
    sampler = GalaxySampler(network, config, population, Engine.choose("cpu"), Solver("ddim", 8, photometry=1.0))
    drawn = float(photometry.measure(image.float() / 255).brightness)
    wanted = np.stack([np.linspace(drawn, drawn + 0.01, 24), np.full(24, 0.1)], 1)
    requests = Requests(torch.zeros(24, dtype=torch.int64), torch.from_numpy(wanted).float(), range(24))
    return guidance_effect(sampler, requests, LeftOut("no judge"), 0)


def test_guidance_moves_a_galaxy_towards_what_was_asked_for(effect):
    errors = effect.attributes["brightness"]["photometry"]
    # Without guidance the error is that of a galaxy that never changes: the mean of 0 to 0.01.
    assert errors.plain.mae.value == pytest.approx(0.005, abs=0.0005)
    assert errors.guided.mae.value < 0.3 * errors.plain.mae.value


def test_what_photometry_cannot_read_has_no_row(effect):
    assert set(effect.attributes) == {"brightness"}


def test_cost_is_told_for_both(effect):
    assert effect.images == 24 and effect.strength == 1.0
    assert effect.seconds_per_image.plain > 0 and effect.seconds_per_image.guided > 0
    report = report_of({})
    assert "seconds an image" not in build_page(report, {})
    page = build_page(replace(report, control=replace(report.control, guidance=effect)), {})
    assert "Surface brightness, photometry" in page and "seconds an image" in page
