"""Galaxies drawn on a GPU: by graphs as without, the noise made there, and nobody waits before the end."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from config_physics import Config
from galaxies.compute.device import Engine
from galaxies.compute.recorded_functions import plainly
from galaxies.datasets.population import Population
from galaxies.generation.build import build_generator
from galaxies.generation.catalogue import generate_blocks
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.serving.application import create_app
from galaxies.serving.models import load_models

FAMILIES = {
    "GAN": {"latent_dim": 8},
    "residual GAN": {"latent_dim": 8, "generator": "residual"},
    "diffusion": {"diffusion": True, "unet_blocks": 1, "solver_steps": 3},
}
NUMBER = 27  # three chunks of 8, and a part


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch):
    """Draw and measure fewer images together than a GPU needs to be busy."""
    monkeypatch.setattr("galaxies.generation.sampler.chunk_size", lambda config, device: 8)
    monkeypatch.setattr("galaxies.generation.attribute_measuring._RECORDED_TOGETHER", 16)


def make_sampler(family: str, device: str, **more) -> GalaxySampler:
    config = Config(**{"attributes": ("size", "ellipticity"), "width": 4, **FAMILIES[family], **more})
    torch.manual_seed(1)
    network = build_generator(config)
    if config.diffusion:  # the last layers of a new one are zero
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    engine = Engine.choose(device, "fp32", "auto")
    generator = torch.Generator().manual_seed(2)
    population = Population(torch.arange(40) % 4, torch.rand(40, 2, generator=generator))
    return GalaxySampler(engine.prepare(network), config, population, engine)


def request(count: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    return torch.arange(count) % 4, torch.full((count, 2), 0.15), list(range(100, 100 + count))


@pytest.mark.slow
def test_light_on_a_gpu_is_light_on_a_processor(gpu):
    bands = {"kind": "flux", "bands": ("g", "r"), "softening": (2.0, 3.0), "pixel_scale": 0.2, "psf_fwhm": (0.8, 0.7)}
    classes, values, seeds = torch.arange(3) % 4, torch.full((3, 2), 0.3), [5, 6, 7]
    more = {**bands, "attributes": ("size_arcsec", "ellipticity"), "solver_steps": 2}
    expected, found = (make_sampler("diffusion", device, **more) for device in ("cpu", "cuda"))
    for _ in range(3):  # what is used three times is recorded
        light = found.light(classes, values, seeds)
    torch.testing.assert_close(light, expected.light(classes, values, seeds), rtol=1e-3, atol=1e-3)
    seen = found.generate(classes, values, seeds)
    torch.testing.assert_close(seen, expected.generate(classes, values, seeds), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_drawing_on_a_gpu_is_drawing_on_a_processor(gpu, family):
    expected = make_sampler(family, "cpu").generate(*request(NUMBER))
    sampler = make_sampler(family, "cuda")
    found = sampler.generate(*request(NUMBER))
    assert found.device.type == "cpu"
    assert sampler.kind_of_device == "cuda, 8 at a time"
    assert (found.int() - expected.int()).abs().max() <= 1
    assert sampler._run.num_graphs == 2 + (family == "diffusion")  # noise, network, and noise of a step
    assert torch.equal(sampler.generate(*request(NUMBER)), found)
    classes, values, seeds = request(NUMBER)
    for k in (0, 9, 26):
        assert torch.equal(sampler.generate(classes[k : k + 1], values[k : k + 1], seeds[k : k + 1])[0], found[k])
    sampler._run = plainly
    assert torch.equal(sampler.generate(*request(NUMBER)), found)


@pytest.mark.parametrize("solver", ["sde", "dpm", "ddim", "ddpm"])
def test_every_solver_on_a_gpu(gpu, solver):
    more = {"solver": solver, "guidance": 2.0}
    expected = make_sampler("diffusion", "cpu", **more).generate(*request(5))
    sampler = make_sampler("diffusion", "cuda", **more)
    for _ in range(2):
        assert (sampler.generate(*request(5)).int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_drawing_and_measuring_wait_for_nothing(pretended, family):
    sampler = make_sampler(family, "cuda")
    for _ in range(2):  # of two blocks; before it is recorded, photometry looks whether a mask still grows
        sampler.measure(sampler.draw(*request(NUMBER)))
    before = len(pretended.waits)
    finish = sampler.measure.begin(sampler.draw(*request(NUMBER)))
    (only,) = pretended.waits[before:]
    assert only.startswith("a copy to the host")  # of the result, which is begun and not waited for
    assert len(finish()) == NUMBER


def test_the_page_has_its_graphs_before_the_first_visitor(gpu, untrained):
    models = load_models([untrained["gan"]], "cuda")
    client, sampler = create_app(models).test_client(), models[0].sampler
    assert (sampler._run.num_graphs, sampler.measure._run.num_graphs) == (2, 1)
    query = "morphology=spiral&size=0.12&brightness=0.3&ellipticity=0.4&redshift=0.05&seed=7"
    shown = np.asarray(Image.open(io.BytesIO(client.get(f"/api/image.png?{query}&pixels=64").data)).convert("RGB"))
    drawn = sampler.generate(torch.tensor([0]), torch.tensor([[0.12, 0.3, 0.4, 0.05]]), [7])[0]
    assert np.array_equal(shown, drawn.permute(1, 2, 0).numpy())
    assert client.get(f"/api/measure?{query}").status_code == 200
    assert (sampler._run.num_graphs, sampler.measure._run.num_graphs) == (2, 1)


def test_blocks_of_a_gpu_hold_what_those_of_a_processor_do(gpu):
    requests = Requests.alike(1, [float("nan"), 0.3], 5, 40)
    pictures, tables = {}, {}
    for device in ("cpu", "cuda"):
        sampler = make_sampler("GAN", device)
        sampler.block = 16
        blocks = list(generate_blocks(sampler, requests))
        assert [len(images) for images, _ in blocks] == [16, 16, 8]
        pictures[device] = torch.cat([images for images, _ in blocks])
        tables[device] = [table for _, table in blocks]
        assert all(images.device.type == "cpu" for images, _ in blocks)
    assert (pictures["cuda"].int() - pictures["cpu"].int()).abs().max() <= 1
    for one, other in zip(tables["cuda"], tables["cpu"], strict=True):
        assert list(one.columns) == list(other.columns)
        for name in ("seed", "morphology", "requested_size", "set_by_user", "supported"):
            assert one[name].equals(other[name])
        # A grey level more here or there changes what is measured by little; where a mask is another one, by more.
        assert np.isclose(one["measured_size"], other["measured_size"], rtol=0.02, equal_nan=True).mean() > 0.9
