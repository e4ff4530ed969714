"""A diffusion model whose network paints light: the two noises of a picture, and what is drawn of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from config_physics import Config
from diffusion_model import (
    DiffusionGenerator,
    ObservedDenoiser,
    build_diffusion_generator,
    two_noises,
)
from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.generation.build import FAMILIES
from galaxies.generation.sampler import GalaxySampler
from galaxies.generation.solvers import Solver, draw_images
from galaxies.images.stretch import NOISE_SOFTENING, AsinhStretch
from galaxies.networks.light_telescope import NUM_EXPOSURES
from galaxies.networks.unet import ContextUnet, Interpolation
from galaxies.telescope.exposure import Exposure
from tests.generation.painted import FLUX, population, write_flux_checkpoint

SETTINGS = {name: value for name, value in FLUX.items() if name != "latent_dim"}
SETTINGS |= {"diffusion": True, "unet_blocks": 1, "unet_patch": 4, "solver_steps": 2, "psf_fwhm": (0.8, 0.7, 0.6, 0.6)}


def exposures(count, num_bands=4):
    """The first is the deepest, the last the shallowest and widest."""
    step = torch.linspace(0, 1, count)[:, None].expand(-1, num_bands)
    noise = torch.tensor(FLUX["softening"])[:num_bands] / NOISE_SOFTENING
    return Exposure(torch.full((count,), 0.2), 0.6 + 0.2 * step, noise * (0.8 + 0.4 * step))


def model_of(**settings):
    """Return a denoiser all of whose layers say something, and its settings."""
    config = Config(**{**SETTINGS, **settings})
    torch.manual_seed(3)
    model = build_diffusion_generator(config)
    for parameter in model.parameters():  # some begin at zero, and hide what lies before them
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    model.telescope.learn(exposures(NUM_EXPOSURES), torch.full((4,), 0.5))
    return model.eval(), config


@pytest.fixture(scope="module")
def model():
    return model_of()[0]


def normal(*shape, seed=5):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("signal", [0.0, 0.3, 0.9])
def test_the_mean_of_a_noisy_picture_follows_from_that_of_the_clean_one(signal):
    # Clean pictures of three pixels with a covariance, each with noise of its own: all is normal, and so is known.
    rng = np.random.default_rng(0)
    root = rng.standard_normal((3, 3))
    clean, noise = root @ root.T, np.diag([0.05, 0.6, 2.0])
    sigma = math.sqrt(1 - signal**2)
    seen = signal * rng.standard_normal((3, 50)) + sigma * rng.standard_normal((3, 50))
    inverse = np.linalg.inv(signal**2 * (clean + noise) + sigma**2 * np.eye(3))
    mean_clean, mean_noisy = (signal * covariance @ inverse @ seen for covariance in (clean, clean + noise))
    variance = torch.from_numpy(np.diag(noise)[:, None].copy())
    found = two_noises(
        torch.from_numpy(seen),
        torch.tensor(signal, dtype=torch.float64),
        torch.tensor(sigma, dtype=torch.float64),
        torch.from_numpy(mean_clean),
        variance,
    )
    np.testing.assert_allclose(found.numpy(), mean_noisy, rtol=1e-9, atol=1e-12)


def test_the_loss_is_least_for_the_clean_picture_and_not_for_the_noisy_one():
    # Clean values c ~ N(0, 1), recorded as y = c + n; the best line through x_t is E[c | x_t], not E[y | x_t].
    signal, sigma, variance = (torch.tensor(v, dtype=torch.float64) for v in (0.8, 0.6, 0.5))
    clean, noise, more = np.random.default_rng(1).standard_normal((3, 200_000))
    noisy = torch.from_numpy(clean + math.sqrt(0.5) * noise)
    x_t = signal * noisy + sigma * torch.from_numpy(more)
    slope = torch.zeros((), dtype=torch.float64, requires_grad=True)
    loss = (two_noises(x_t, signal, sigma, slope * x_t, variance) - noisy).square().mean()
    (gradient,) = torch.autograd.grad(loss, slope, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient, slope)
    best = float((-gradient / curvature).detach())  # the loss is a parabola
    total = 0.8**2 * 1.5 + 0.6**2
    assert best == pytest.approx(0.8 / total, rel=0.01)
    assert abs(best - 0.8 * 1.5 / total) > 0.2


def test_the_stretched_noise_has_the_moments_that_drawing_it_gives(model):
    telescope, exposure = model.telescope, exposures(1)
    seen = torch.tensor([-2.0, 0.0, 10.0, 40.0, 2000.0])[None, None, :, None].expand(1, 4, 5, 1)
    mean, variance = telescope.noisy_moments(seen, exposure)
    rng = np.random.default_rng(2)
    for band in range(4):
        softening = FLUX["softening"][band]
        for place, flux in enumerate(seen[0, 0, :, 0].tolist()):
            deviation = math.sqrt((0.8 * softening / 2) ** 2 + 0.5 * max(flux, 0))
            drawn = np.arcsinh((flux + deviation * rng.standard_normal(100_000)) / softening)
            drawn = 2 * drawn / np.arcsinh(1000) - 1
            assert mean[0, band, place, 0].item() == pytest.approx(drawn.mean(), abs=0.02 * drawn.std())
            assert variance[0, band, place, 0].item() == pytest.approx(drawn.var(), rel=0.03)
    # The stretch bends: a telescope that sees two softenings records less than them, stretched.
    bent = (AsinhStretch(telescope.softening)(seen) - mean)[0, 0, 3, 0]
    assert 0.05 < bent / variance[0, 0, 3, 0].sqrt() < 0.5


def test_what_is_expected_goes_from_the_light_alone_to_the_picture_itself(model):
    seen = 50 * torch.rand(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    x_t, exposure = normal(2, 4, 64, 64), exposures(2)
    last = model.process.num_steps
    mean = model.normalise(model.telescope.noisy_moments(seen, exposure)[0])
    torch.testing.assert_close(model.expected(x_t, torch.tensor([last, last]), seen, exposure), mean)
    near = model.expected(x_t, torch.tensor([1, 1]), seen, exposure)
    assert (near - x_t).abs().mean() < 0.1 * (mean - x_t).abs().mean()


@torch.no_grad()
def test_a_new_network_paints_what_little_noise_hides_and_nothing_of_much(model):
    new = build_diffusion_generator(Config(**SETTINGS))
    new.mean.fill_(-0.8), new.deviation.fill_(0.3)
    last, exposure = new.process.num_steps, exposures(1)
    dusk = new.output(normal(1, 4, 64, 64), torch.tensor([last]), torch.zeros(1, 10), new.told(exposure))
    torch.testing.assert_close(dusk[..., 8:-8, 8:-8], torch.full((1, 4, 112, 112), -0.5))
    axis = torch.arange(64) - 31.5
    flux = 2000 * torch.exp(-0.5 * (torch.hypot(axis, axis[:, None]) / 6) ** 2).expand(1, 4, -1, -1)
    x_t = new.normalise(new.telescope.stretch(flux)) * new.process.signal[1]
    light = new.telescope.light_of(new.output(x_t, torch.tensor([1]), torch.zeros(1, 10), new.told(exposure)))
    seen = light.view(1, 4, 64, 2, 64, 2).sum((3, 5))
    bright = flux > 1000
    torch.testing.assert_close(seen[bright], flux[bright], rtol=0.06, atol=0)


def test_painting_what_is_seen_gives_it_back(model):
    flux = torch.tensor([0.1, 1.0, 30.0, 1e5, 1e9])[:, None, None, None].expand(5, 4, 128, 128)
    light = 4 * model.telescope.light_of(model.telescope.painting_of(flux))[..., 64, 64]
    least = 0.0185 * torch.tensor(FLUX["softening"])  # that of a sky: sinh(ln(1 + e^-4))
    torch.testing.assert_close(light, torch.maximum(flux[..., 0, 0], least), rtol=0.01, atol=0)


def test_patterns_of_a_period_are_gone_and_repeated_pixels_are_interpolated():
    for period in (2, 4):
        smooth = Interpolation(period)
        pattern = normal(1, 3, period, period).repeat(1, 1, 40 // period, 40 // period)
        inner = smooth(pattern)[..., 8:-8, 8:-8]
        torch.testing.assert_close(inner, pattern.mean((2, 3), keepdim=True).expand_as(inner), rtol=0, atol=1e-5)
        ramp = torch.arange(40.0).expand(1, 1, 40, -1).repeat_interleave(period, 3).repeat_interleave(period, 2)
        inner = smooth(ramp)[0, 0, 50, 16:-16]
        torch.testing.assert_close(inner.diff(), torch.full((len(inner) - 1,), 1 / period), rtol=1e-3, atol=0)


def test_light_is_never_negative_and_finer_than_the_pictures(model):
    light = model.predict_light(normal(2, 4, 64, 64), torch.tensor([500, 3]), torch.zeros(2, 10))
    assert light.shape == (2, 4, 128, 128) and light.min() >= 0 and light.std() > 0
    assert model_of(oversampling=4)[0].predict_light(
        normal(1, 4, 64, 64), torch.tensor([5]), torch.zeros(1, 10)
    ).shape == (1, 4, 256, 256)


def test_a_gradient_reaches_every_weight_through_the_telescope():
    model, _ = model_of()
    x_t, t, exposure = normal(2, 4, 64, 64), torch.tensor([300, 20]), exposures(2)
    condition = torch.ones(2, 10)
    light = model.telescope.light_of(model.output(x_t, t, condition, model.told(exposure)))
    seen = model.telescope.observed(light, exposure, None)
    model.expected(x_t, t, seen, exposure).square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == [] and all(p.grad.isfinite().all() for p in model.parameters())


def test_the_network_is_told_how_each_picture_was_taken(model):
    told = model.told(exposures(5))
    assert told.shape == (5, 9) and (told[:, 8] == 0).all()  # all pixels are alike
    assert (told[:, :8].diff(dim=0) > 0.3).all()  # noise and width of each band rise
    wide = exposures(5)._replace(psf_fwhm=exposures(5).psf_fwhm * torch.tensor([1.0, 1.0, 1.1, 1.0]))
    changed = (model.told(wide) - told).abs().amax(0) > 0.1
    assert changed.tolist() == [False] * 6 + [True] + [False] * 2
    assert abs(float(told[2, 0])) < 0.2 and model.told(model.telescope.kept()).std(0)[:8].tolist() == pytest.approx(
        [1] * 8, abs=0.02
    )
    x_t, t, condition = normal(1, 4, 64, 64), torch.tensor([100]), torch.zeros(1, 10)
    first, last = (model.output(x_t, t, condition, told[k : k + 1]) for k in (0, 4))
    assert not torch.equal(first, last)


def test_light_is_drawn_in_a_deep_exposure_but_not_the_deepest(model):
    kept = model.telescope.kept()
    deep = model.deep_exposure(3)
    assert (deep.noise == kept.noise[8]).all() and (deep.psf_fwhm == kept.psf_fwhm[8]).all()
    x_t, t, condition = normal(1, 4, 64, 64), torch.tensor([100]), torch.zeros(1, 10)
    told = model.told(kept.of(torch.tensor([8])))
    assert torch.equal(model.output(x_t, t, condition), model.output(x_t, t, condition, told))


def test_guidance_moves_what_is_painted(model):
    x_t, t, condition = normal(2, 4, 64, 64), torch.tensor([100, 100]), torch.ones(2, 10)
    plain, nothing = (model.predict_light(x_t, t, c) for c in (condition, torch.zeros(2, 10)))
    torch.testing.assert_close(model.predict_light(x_t, t, condition, 0.0), nothing)
    more = model.predict_light(x_t, t, condition, 2.0)
    assert ((more > plain) == (plain > nothing)).float().mean() > 0.9 and more.min() >= 0


def sampler_of(**solver):
    model, config = model_of()
    return GalaxySampler(model, config, population(), Engine.choose("cpu", "fp32"), Solver(**{"num_steps": 2} | solver))


def asked(count):
    values = torch.full((count, 4), math.nan)
    values[:, 0] = torch.linspace(19, 21, count)
    return torch.arange(count) % 2, values


@pytest.mark.parametrize("solver", ["sde", "ddim"])
def test_light_and_pictures_depend_on_the_seed_alone(solver):
    sampler, (classes, values) = sampler_of(name=solver), asked(5)  # chunks of four
    light = sampler.light(classes, values, [7, 8, 9, 10, 11])
    assert light.shape == (5, 4, 128, 128) and light.min() >= 0
    assert torch.equal(sampler.light(classes[3:], values[3:], [10, 11]), light[3:])
    assert not torch.equal(sampler.light(classes[4:], values[4:], [12]), light[4:])
    images = sampler.generate(classes[2:], values[2:], [9, 10, 11])
    assert torch.equal(sampler.generate(classes[4:], values[4:], [11]), images[2:])


def test_what_is_generated_is_the_light_behind_a_telescope_with_its_noise():
    sampler, (classes, values) = sampler_of(), asked(4)
    light, images = sampler.light(classes, values, range(4)), sampler.generate(classes, values, range(4))
    telescope = sampler.network.telescope
    # The telescope's noise, 0.8 to 1.2 times the usual, lies on what it sees of the light, and photons' own.
    rest = sampler.family.noise(sampler.config, sampler.network, np.arange(4))[:, math.prod(sampler.network.shape) :]
    exposure = telescope.kept_exposure(rest[:, -1])
    seen = telescope.observed(light, exposure, None)
    deviation = (exposure.noise[..., None, None].square() + 0.5 * seen).sqrt()
    scatter = (images - seen) / deviation
    assert scatter.std().item() == pytest.approx(1, abs=0.02) and abs(float(scatter.mean())) < 0.01
    assert len(set(exposure.noise[:, 0].tolist())) == 4


def test_a_checkpoint_draws_the_light_of_its_denoiser(tmp_path):
    of_gan = {"latent_dim": Config.latent_dim}
    path = write_flux_checkpoint(tmp_path / "run/latest.pt", **SETTINGS, **of_gan)
    sampler, (classes, values) = GalaxySampler.from_checkpoint(path, "cpu", num_steps=2), asked(1)
    light = sampler.light(classes, values, [3])
    assert light.shape == (1, 4, 128, 128) and sampler.light_pixel_scale == pytest.approx(0.1)
    assert "light behind a telescope" in sampler.describe()
    torch.manual_seed(0)
    kept = build_diffusion_generator(sampler.config).state_dict()  # as `write_flux_checkpoint` makes it
    assert all(torch.equal(kept[name], value) for name, value in sampler.network.state_dict().items())
    with pytest.raises(UserError, match="whose generator does not turn galaxies onto the sky"):
        sampler.light(classes, values, [3], torch.tensor([30.0]))
    off = write_flux_checkpoint(tmp_path / "off/latest.pt", **SETTINGS, **of_gan, telescope="off")
    with pytest.raises(UserError, match="it takes one that was trained on flux with --telescope on"):
        GalaxySampler.from_checkpoint(off, "cpu").light(classes, values, [3])


def test_guidance_and_photometric_guidance_move_light():
    classes, values = asked(2)
    plain, guided = (sampler_of(guidance=w, num_steps=1).light(classes, values, [1, 2]) for w in (1.0, 3.0))
    assert guided.isfinite().all() and not torch.equal(plain, guided)
    axis = torch.arange(128) - 63.5
    galaxy = torch.exp(-(axis.square() + axis[:, None].square()) / 24**2)  # photometry needs one that ends
    drawn = []
    for push in (0.0, 1.0):
        sampler = sampler_of(photometry=push, num_steps=5)
        telescope = sampler.network.telescope
        telescope.light_of = lambda painted, light_of=telescope.light_of: light_of(painted) * galaxy
        drawn.append(sampler.light(classes, values, [1, 2]))
    plain, pushed = drawn
    assert pushed.isfinite().all() and pushed.min() >= 0 and not torch.equal(plain, pushed)


def test_a_denoiser_that_knows_the_light_draws_it():
    # The best denoiser of a universe with one galaxy paints that galaxy, whatever the picture.
    model, _config = model_of()
    truth = 30 * torch.rand(1, 4, 128, 128, generator=torch.Generator().manual_seed(1))
    model.telescope.light_of = lambda painted: truth.expand(len(painted), -1, -1, -1)
    pictures = model.telescope.stretched(truth, model.deep_exposure(1), normal(1, 4, 64, 64))
    model.mean.copy_(pictures.mean((0, 2, 3))[:, None, None])
    model.deviation.fill_(float((pictures - model.mean).square().mean().sqrt()))
    model.output = lambda x_t, t, condition: x_t
    noise = normal(2, 4, 64, 64)
    drawn = draw_images(model, noise, torch.zeros(2, 10), Solver("dpm", 20))
    mean, variance = model.telescope.noisy_moments(
        model.telescope.observed(truth, model.deep_exposure(1), None), model.deep_exposure(1)
    )
    # Its pictures are of that galaxy with noise as strong as the exposure's.
    scatter = (drawn - mean) / variance.sqrt()
    assert abs(float(scatter.mean())) < 0.05 and 0.9 < float(scatter.std()) < 1.05
    assert torch.equal(draw_images(model, noise, torch.zeros(2, 10), Solver("dpm", 2), light=True)[1], truth[0])


def test_light_is_painted_where_the_process_has_half_the_noise_of_the_sky(monkeypatch):
    model, _ = model_of()
    model.deviation.fill_(0.4)
    ratio = 1 / math.asinh(1000) / 2 / 0.4  # half a softening is a standard deviation, and its stretch 2 / asinh(1000)
    assert model.process.noise_ratios[model.light_time] == pytest.approx(ratio, rel=0.05)
    painted = []
    monkeypatch.setattr(model, "predict_x0", lambda x_t, t, condition, guidance: x_t)
    monkeypatch.setattr(model, "predict_light", lambda x_t, t, condition, guidance: painted.append(int(t[0])))
    draw_images(model, normal(1, 4, 64, 64), torch.zeros(1, 10), Solver("dpm", 20), light=True)
    assert len(painted) == 1 and 0.75 < model.process.noise_ratios[painted[0]] / ratio < 1.34  # of steps by 1.7


def test_without_the_telescope_the_network_is_the_one_of_before():
    config = Config(**{**SETTINGS, "telescope": "off"})
    torch.manual_seed(1)
    found = build_diffusion_generator(config)
    torch.manual_seed(1)
    unet = ContextUnet(config.condition_dim, 4, 64, 1, 4, 4)
    assert type(found) is DiffusionGenerator and not isinstance(found, ObservedDenoiser)
    assert found.state_dict().keys() == {"mean", "deviation", *(f"unet.{name}" for name in unet.state_dict())}
    assert all(torch.equal(found.state_dict()[f"unet.{name}"], value) for name, value in unet.state_dict().items())
    network = FAMILIES["diffusion"].noise(config, found, np.arange(2))
    assert network.shape == (2, 4 * 64 * 64)
