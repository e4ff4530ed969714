"""Networks of flux: unbounded, of any bands and classes, and held to what was asked by photometry."""

from __future__ import annotations

import math

import pytest
import torch

from config_physics import Config
from diffusion_model import build_diffusion_generator
from galaxies.common.errors import UserError
from galaxies.generation.solvers import Solver, draw_images
from galaxies.measure.flux import measure_flux
from galaxies.telescope.exposure import Exposure
from gan_model import GENERATORS, build_discriminator, build_gan_generator
from physics_model import FluxScale, build_predictor, is_measured, photometric_errors, photometric_loss
from tests.conftest import flux_galaxies

BANDS = ("g", "r", "z")
ATTRIBUTES = ("magnitude_r", "color_g_z", "size_arcsec", "redshift", "gini")
FLUX = {
    "kind": "flux",
    "bands": BANDS,
    "classes": ("galaxy",),
    "softening": (40.0, 80.0, 120.0),
    "pixel_scale": 0.2,
    "psf_fwhm": (0.8, 0.75, 0.0),
    "attributes": ATTRIBUTES,
    "attribute_ranges": (18.0, 22.0, 0.0, 4.0, 0.5, 2.5, 0.0, 0.5, 0.3, 0.7),
}
CONFIG = Config(**FLUX, width=4, latent_dim=8)
SCALE = FluxScale.of(CONFIG, torch.device("cpu"))
ROWS = CONFIG.attribute_rows


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def images():
    """Stretched galaxies with noise."""
    return SCALE.stretch(torch.from_numpy(flux_galaxies(6, BANDS)[0]))


def measured_in_units(images):
    """What the photometry of flux measures, in the units of the condition vector; 0 for the others."""
    found = measure_flux(
        SCALE.stretch.flux(images),
        0.2,
        noise=torch.tensor([[20.0, 40.0, 60.0]]).expand(len(images), 3),
        psf_fwhm=torch.tensor([[0.8, 0.75, math.nan]]).expand(len(images), 3),
    )
    magnitude, color = found.magnitude[:, 1], found.magnitude[:, 0] - found.magnitude[:, 2]
    columns = [(magnitude - 18) / 4, color / 4, (found.size_arcsec - 0.5) / 2]
    return torch.stack([*columns, torch.zeros_like(magnitude), torch.zeros_like(magnitude)], 1)


@torch.no_grad()
@pytest.mark.parametrize("name", GENERATORS)
def test_generators_begin_with_the_sky_and_may_be_as_bright_as_they_like(name):
    network = GENERATORS[name](Config(**FLUX, generator=name, width=4, latent_dim=8, telescope="off"))
    drawn = network(random(4, 8), random(4, CONFIG.condition_dim))
    assert drawn.shape == (4, 3, 64, 64)
    assert drawn.mean().item() == pytest.approx(-1, abs=0.3)
    last = network.upsample[-1] if name in ("resize", "transposed") else network.paint
    last.bias.fill_(7.0)
    assert network(random(4, 8), random(4, CONFIG.condition_dim)).max() > 3


@torch.no_grad()
def test_display_pictures_stay_within_their_bounds():
    for name in GENERATORS:
        network = GENERATORS[name](Config(generator=name, width=4, latent_dim=8))
        for parameter in network.parameters():
            parameter.mul_(4)
        assert network(random(4, 8), random(4, 12)).abs().max() <= 1


@torch.no_grad()
@pytest.mark.parametrize("bands", [("F814W",), tuple(f"B{k}" for k in range(12))])
def test_networks_have_as_many_planes_and_classes_as_the_data(bands):
    settings = {"kind": "flux", "bands": bands, "classes": ("disc", "ring", "star"), "pixel_scale": 0.03}
    settings |= {"softening": (1.0,) * len(bands), "psf_fwhm": (0.1,) * len(bands), "attributes": ("size_arcsec",)}
    config = Config(**settings, width=4, latent_dim=8, regression_weight=1.0, class_weight=1.0)
    generator, condition = build_gan_generator(config), random(2, config.condition_dim)
    drawn = generator(random(2, generator.noise_dim), condition)
    assert drawn.shape == (2, len(bands), 64, 64)
    logits, readings = build_discriminator(config).assess(drawn, condition)
    assert logits.shape == (2,) and readings.shape == (2, 1 + 3)
    assert build_predictor(config).eval()(drawn).shape == (2, 1)
    model = build_diffusion_generator(Config(**settings, diffusion=True, width=4, unet_blocks=1))
    made = draw_images(model, random(2, *model.shape), condition, Solver("dpm", 2))
    assert made.shape == (2, len(bands), 64, 64)


@torch.no_grad()
def test_a_diffusion_model_clips_display_pictures_alone():
    display = build_diffusion_generator(Config(diffusion=True, width=4, unet_blocks=1))
    flux = build_diffusion_generator(Config(**FLUX, diffusion=True, width=4, unet_blocks=1))
    values = torch.tensor([-1.8, -1.0, 0.5, 2.5]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert display.clip(values)[0, 0].flatten().tolist() == [-1.0, -1.0, 0.5, 1.0]
    assert torch.equal(flux.clip(values), values)
    assert flux.clip(torch.tensor([[[[-9.0, 9.0]]]]).expand(1, 3, 1, 2))[0, 0].flatten().tolist() == [-2.0, 3.0]


def test_vgg16_knows_no_flux():
    with pytest.raises(UserError, match="colour pictures, not flux"):
        Config(**FLUX, perceptual_weight=1.0, perceptual="vgg16", vgg_weights="vgg16.pth")


def test_what_photometry_measures_of_flux():
    assert [row.name for row in ROWS if is_measured(row)] == ["magnitude_r", "color_g_z", "size_arcsec"]


def test_flux_that_has_what_was_requested_costs_nothing(images):
    requested = measured_in_units(images)
    requested[:, 3:] = 9.0  # neither is measured
    assert photometric_loss(images, requested, torch.ones(6, 5), ROWS, scale=SCALE).item() < 1e-8


def test_errors_of_flux_are_in_ranges_of_the_data(images):
    requested = measured_in_units(images)
    requested[0] += torch.tensor([0.1, -0.05, 0.02, 7.0, 7.0])  # of 4 mag, of 4 mag, of 2 arcsec
    errors, compared = photometric_errors(images, requested, torch.ones(6, 5), ROWS, SCALE)
    assert errors[0].tolist() == pytest.approx([0.01, 0.0025, 0.0004, 0, 0], rel=2e-3)
    assert compared.tolist() == [[1, 1, 1, 0, 0]] * 6


@pytest.mark.parametrize(
    "draw", [lambda: random(4, 3, 64, 64), lambda: 5 * random(4, 3, 64, 64), lambda: torch.full((4, 3, 64, 64), -1.0)]
)
def test_gradients_are_finite_on_whatever_early_training_draws(draw):
    drawn = draw().requires_grad_()
    loss = photometric_loss(drawn, torch.full((4, 5), 0.5), torch.ones(4, 5), ROWS, scale=SCALE)
    loss.backward()
    assert loss.isfinite() and drawn.grad.isfinite().all()


def test_descent_on_the_pixels_gives_what_was_requested_of_flux(images):
    drawn = images[1:2].clone().requires_grad_()
    goal = measured_in_units(images[1:2])
    goal[:, 0] -= 0.05  # 0.2 mag brighter
    goal[:, 1] += 0.05  # 0.2 mag redder
    optimizer = torch.optim.Adam([drawn], 0.004)
    losses = []
    for _ in range(36):
        optimizer.zero_grad()
        loss = photometric_loss(drawn, goal, torch.ones(1, 5), ROWS, scale=SCALE)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    change = measured_in_units(drawn.detach()) - measured_in_units(images[1:2])
    assert change[0, :2].tolist() == pytest.approx([-0.05, 0.05], abs=0.02)


def test_photometry_of_an_exposure_takes_its_scale_blur_and_noise(images):
    flux = SCALE.stretch.flux(images)
    scale, noise = torch.linspace(0.1, 0.3, 6), torch.tensor([[30.0, 50.0, 70.0]]).expand(6, 3)
    width = torch.tensor([[0.5, 0.0, 0.9]]).expand(6, 3)
    found = SCALE.of_exposure(Exposure(scale, width, noise)).measure(flux)
    known = torch.tensor([[0.5, math.nan, 0.9]]).expand(6, 3)
    expected = measure_flux(flux, scale, noise=noise, psf_fwhm=known)
    assert torch.equal(found.size_arcsec, expected.size_arcsec)
    assert torch.equal(found.flux_error, expected.flux_error)
    assert not torch.equal(found.size_arcsec, SCALE.measure(flux).size_arcsec)


def test_a_psf_is_as_wide_as_its_wings_make_it_where_its_shape_is_known():
    cpu = torch.device("cpu")
    told = FluxScale.of(Config(**FLUX, photons=(1.0, 1.0, 1.0), psf_profile="moffat:2.5"), cpu)
    # Of Moffat's profile that photometry takes for the same sharpness; by GalSim's image of one 1.29 times as wide.
    torch.testing.assert_close(told.psf_fwhm, 1.29 * SCALE.psf_fwhm, rtol=0.01, atol=0, equal_nan=True)
    assert SCALE.psf_fwhm[0, :2].tolist() == pytest.approx([0.8, 0.75]) and SCALE.psf_fwhm[0, 2].isnan()
    one = Exposure(torch.tensor([0.2]), torch.tensor([[0.8, 0.0, 0.9]]), torch.ones(1, 3))
    seen = told.of_exposure(one).psf_fwhm[0]
    assert seen[::2].tolist() == pytest.approx([1.29 * 0.8, 1.29 * 0.9], rel=0.01) and seen[1].isnan()
    # A Gaussian of two pixels as an image: its own width but for the wings that are taken, 0.93 times as wide.
    axis = torch.arange(25) - 12.0
    star = torch.exp(-(axis.square() + axis.square()[:, None]) / (2 * 2.0**2)).expand(1, 3, -1, -1)
    known = SCALE.of_exposure(one._replace(psfs=star / star[0, 0].sum())).psf_fwhm[0]
    assert known.tolist() == pytest.approx([0.93 * 2 * 2.3548 * 0.2] * 3, rel=0.02)
