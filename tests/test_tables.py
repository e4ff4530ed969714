"""That nothing knows how many bands and classes there are but the settings of a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from config_physics import ATTRIBUTES, Config
from diffusion_model import DiffusionGenerator, GaussianDiffusion
from galaxies.compute.device import Engine
from galaxies.datasets.batches import Batch
from galaxies.datasets.conditions import condition_vector, take_apart
from galaxies.datasets.population import Population
from galaxies.generation.build import FAMILIES, Asked
from galaxies.generation.sampler import GalaxySampler
from galaxies.generation.solvers import Solver
from galaxies.networks.sky_grain import GrainyGenerator
from galaxies.networks.unet import ContextUnet
from galaxies.telescope.exposure import Exposure
from galaxies.training.diffusion_learner import DiffusionLearner
from galaxies.training.gan_learner import GanLearner
from galaxies.training.trainer import LEARNERS
from gan_model import (
    DISCRIMINATORS,
    GENERATORS,
    Discriminator,
    FrameGenerator,
    Generator,
    ProjectionDiscriminator,
    ResidualDiscriminator,
    ResidualGenerator,
)
from physics_model import PhysicsPredictor


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("bands", [1, 5])
@pytest.mark.parametrize("kind", [Generator, FrameGenerator, ResidualGenerator])
def test_a_generator_has_as_many_planes_as_it_is_told(kind, bands):
    network = kind(16, 8, 4, num_bands=bands)
    assert network(random(2, network.noise_dim), random(2, 8)).shape == (2, bands, 64, 64)
    grainy = GrainyGenerator(network, 16, 8, 64, bands)
    assert grainy.noise_dim == 16 + bands * 70 * 70
    images = grainy(random(2, grainy.noise_dim), random(2, 8))
    assert images.shape == (2, bands, 64, 64)
    assert images.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("bands", [1, 5])
@pytest.mark.parametrize("kind", [Discriminator, ProjectionDiscriminator, ResidualDiscriminator])
def test_a_discriminator_sees_as_many_planes_as_it_is_told(kind, bands):
    torch.manual_seed(0)
    network = kind(8, 4, num_bands=bands).eval()
    images = random(2, bands, 64, 64)
    without_last = torch.cat([images[:, :-1], torch.zeros(2, 1, 64, 64)], 1)
    logits = network(images, random(2, 8))
    assert logits.shape == (2,)
    assert (network(without_last, random(2, 8)) != logits).all()


@torch.no_grad()
@pytest.mark.parametrize("bands", [1, 5])
def test_the_predictor_sees_as_many_planes_as_it_is_told(bands):
    torch.manual_seed(0)
    network = PhysicsPredictor(4, width=4, num_bands=bands).eval()
    images = random(2, bands, 64, 64)
    without_last = torch.cat([images[:, :-1], torch.zeros(2, 1, 64, 64)], 1)
    assert network(images).shape == (2, 4)
    assert (network(without_last) != network(images)).any(1).all()


@torch.no_grad()
@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("bands", [1, 5])
def test_the_unet_has_as_many_planes_as_it_is_told(bands, patch):
    unet = ContextUnet(8, 4, 64, 1, patch, bands)
    model = DiffusionGenerator(unet, GaussianDiffusion("cosine", 10, "v"), 64, bands)
    assert model.noise_dim == bands * 64 * 64
    x_t = random(2, model.noise_dim).view(2, *model.shape)
    assert model.output(x_t, torch.tensor([1, 9]), random(2, 8)).shape == (2, bands, 64, 64)
    assert model.to_images(model.normalise(x_t)).shape == (2, bands, 64, 64)


@pytest.mark.parametrize(("setting", "table"), [("generator", GENERATORS), ("discriminator", DISCRIMINATORS)])
def test_the_choices_of_a_network_are_those_of_its_table(setting, table):
    assert Config.__dataclass_fields__[setting].metadata["choices"] == tuple(table)


def test_tables_of_networks_name_what_they_build():
    def layers(name):
        network = GENERATORS[name](Config(generator=name, width=4, latent_dim=8))
        return type(network), any(isinstance(module, torch.nn.ConvTranspose2d) for module in network.modules())

    assert {name: layers(name) for name in GENERATORS} == {
        "frame": (FrameGenerator, False),
        "residual": (ResidualGenerator, False),
        "resize": (Generator, False),
        "transposed": (Generator, True),
    }
    kinds = {"projection": ProjectionDiscriminator, "residual": ResidualDiscriminator, "dcgan": Discriminator}
    for name, kind in kinds.items():
        assert type(DISCRIMINATORS[name](Config(discriminator=name, regression_weight=0.0, width=4))) is kind


def test_every_step_of_a_diffusion_model_has_noise_of_its_own(monkeypatch):
    steps = []

    def draw_images(network, noise, condition, solver, step_noise, *told):
        steps.extend(step_noise(step) for step in range(3))
        return noise

    monkeypatch.setattr("galaxies.generation.build.draw_images", draw_images)
    config = Config(diffusion=True, width=4, unet_blocks=1)
    family, seeds = FAMILIES["diffusion"], np.array([5, 6])
    network = family.build(config)
    noise = family.noise(config, network, seeds)
    family.draw(network, noise, Asked(seeds, torch.zeros(2, 8), torch.zeros(2, 4), torch.zeros(2, 4), ()), Solver())
    drawn = [noise.view(2, 3, 64, 64), *steps]
    for one in range(4):
        for other in range(one):
            assert (drawn[one] - drawn[other]).abs().mean() > 0.5


def test_plausible_limits_of_a_catalogue_s_attributes():
    assert {a.name: a.plausible for a in ATTRIBUTES.values() if a.source == "catalogue"} == {
        "redshift": (0.0, 10.0),
        "petro_r50_kpc": (0.0, 200.0),
        "absolute_magnitude": (-30.0, -5.0),
        "stellar_mass": (4.0, 14.0),
    }


@pytest.mark.parametrize(
    ("learner", "settings"),
    [
        (GanLearner, {"generator": "frame", "latent_dim": 8}),
        (GanLearner, {"generator": "resize", "discriminator": "residual", "class_weight": 1.0, "latent_dim": 8}),
        (GanLearner, {"discriminator": "dcgan", "regression_weight": 0.0, "label_jitter": 0.1, "latent_dim": 8}),
        (DiffusionLearner, {"diffusion": True, "unet_blocks": 1, "solver_steps": 2}),
    ],
)
@pytest.mark.parametrize(("num_bands", "num_classes"), [(1, 4), pytest.param(5, 4, marks=pytest.mark.slow), (3, 5)])
def test_training_and_generation_follow_bands_and_classes(num_bands, num_classes, learner, settings):
    engine = Engine.choose("cpu", "fp32")
    classes = torch.arange(8) % num_classes
    values = torch.full((8, 2), 0.1)
    config = Config(
        kind="flux",
        bands=tuple(f"B{k}" for k in range(num_bands)),
        classes=tuple(f"class {k}" for k in range(num_classes)),
        softening=(1.0,) * num_bands,
        psf_fwhm=(0.8,) * num_bands,
        pixel_scale=0.2,
        attributes=("size_arcsec", "redshift"),
        width=4,
        batch_size=8,
        photometry_weight=0.0,
        device="cpu",
        **settings,
    )
    condition, scaled, known = condition_vector(classes, values, config)
    assert condition.shape == (8, num_classes + 4)
    assert torch.equal(take_apart(condition, config).one_hot.argmax(1), classes)
    exposure = Exposure(torch.full((8,), 0.2), torch.full((8, num_bands), 0.8), torch.ones(8, num_bands))
    batch = Batch(random(8, num_bands, 64, 64), classes, condition, scaled, known, exposure)
    one = learner(config, engine)
    for phase in ("predictor", "generator"):
        terms, *_ = one.step(batch, one.variant(phase, 1))
        assert all(torch.isfinite(term) for term in terms)
    sampler = GalaxySampler(one.generator, config, Population(classes, values), engine)
    assert sampler.generate(classes[-1:], values[-1:], [3]).shape == (1, num_bands, 64, 64)
    assert len(sampler.supported) == num_classes


def test_every_family_can_be_built_drawn_and_trained():
    assert set(FAMILIES) == set(LEARNERS) == {Config(diffusion=diffusion).family for diffusion in (False, True)}
