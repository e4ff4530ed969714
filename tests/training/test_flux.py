"""Runs on flux: their attributes and settings, both families trained, stopped and resumed, and started from weights."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import galaxy
import resume_training
from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.datasets.layout import DataLayout, FluxBand
from galaxies.datasets.prepared import PreparedDataset
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.metrics_log import read_metrics
from galaxies.storage.schema import RUN_STATE, TRAINING_STATE
from galaxies.training.fitting import default_attributes
from galaxies.training.health import check_samples
from galaxies.training.learner import Drawn
from galaxies.training.starting import Start, take_over
from tests.conftest import differences, make_trainer, records_of, write_flux_dataset
from tests.training.copying_sampler import CopyingSampler

BANDS = ("g", "r", "i", "z")
CLASSES = ("disc", "ring")
ATTRIBUTES = ("magnitude_r", "color_g_r", "size_arcsec", "redshift")
OPTIONS = ["--width", "4", "--batch-size", "16", "--log-every", "2", "--seed", "3", "--device", "cpu"]
OPTIONS += ["--pretrain-epochs", "1", "--epochs", "1", "--attributes", "magnitude_r,redshift"]
FAMILIES = {
    "GAN": ["--latent-dim", "8"],
    "diffusion": ["--diffusion", "--unet-blocks", "1", "--unet-patch", "4", "--solver-steps", "2"],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Four bands and two classes of our own; 49 train."""
    return write_flux_dataset(tmp_path_factory.mktemp("flux") / "survey", 60, BANDS, CLASSES)


@pytest.fixture(scope="module")
def data(path):
    return PreparedDataset.open(path)


def resolve(data, *words, start=None):
    parser = galaxy.Parser()
    galaxy.add_config_options(parser)
    parser.set_defaults(start_from=start.path if start else None)
    return galaxy.resolve_config(parser.parse_args([*words, "--device", "cpu"]), data, start)


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (("Ks",), ("magnitude_Ks",)),
        (("g", "r"), ("magnitude_g", "color_g_r")),
        (("g", "r", "z"), ("magnitude_r", "color_g_r", "color_r_z")),
        (("g", "r", "i", "z"), ("magnitude_r", "color_g_r", "color_r_z")),
        (tuple("ugrizyJHK"), ("magnitude_z", "color_u_z", "color_z_K")),
    ],
)
def test_attributes_that_nobody_named_are_of_the_middle_band(bands, expected):
    class Data:
        layout = DataLayout("flux", tuple(FluxBand(name) for name in bands))

    assert default_attributes(Data) == (*expected, "size_arcsec", "ellipticity", "redshift")


def test_a_run_takes_over_what_its_data_are(data, capsys):
    config = resolve(data)
    # The discs are all round, and no color of r and z is written.
    assert config.attributes == ("magnitude_r", "color_g_r", "size_arcsec", "redshift")
    said = capsys.readouterr().out
    assert "conditioned on magnitude_r, color_g_r, size_arcsec, redshift: --attributes chooses others" in said
    assert "left out: color_r_z (known for no galaxy); ellipticity (0 for every training galaxy that knows it)" in said
    assert (config.kind, config.bands, config.classes, config.image_size) == ("flux", BANDS, CLASSES, 64)
    assert config.condition_dim == 2 + 4 + 4
    # Twice the median noise, which is 20, 40, 60 and 80 nJy within 10 %.
    assert np.allclose(config.softening, [40, 80, 120, 160], rtol=0.05)
    assert config.psf_fwhm == (0.8, 0.75, 0.7, 0.65) and config.pixel_scale == 0.2
    row = config.attribute_rows[0]
    known = data.attributes(("magnitude_r",), data.rows("train"))
    assert row.low <= known.min() + 0.1 and row.high >= known.max() - 0.1 and row.high - row.low < 6


@pytest.mark.parametrize(
    ("words", "share"),
    [((), 0.0), (("--telescope", "off"), 0.25), (("--low-noise-share", "0.1"), 0.1)],
)
def test_a_denoiser_of_light_has_no_grain_to_learn(data, words, share):
    assert resolve(data, "--diffusion", *words).low_noise_share == share


@pytest.mark.parametrize(
    ("words", "profiles"),
    [
        ((), "fine"),
        (("--telescope", "off"), "coarse"),
        (("--generator", "residual"), "coarse"),
        (("--diffusion",), "coarse"),
        (("--profiles", "coarse"), "coarse"),
    ],
)
def test_generators_of_light_draw_profiles_as_fine_as_its_pixels(data, words, profiles):
    assert resolve(data, *words).profiles == profiles


def test_attributes_that_were_named_need_their_bands(data):
    config = resolve(data, "--attributes", "color_r_i,size_arcsec")
    assert config.attributes == ("color_r_i", "size_arcsec") and len(config.attribute_ranges) == 4
    for named, wrong in (
        ("magnitude_K", "attribute 'magnitude_K' needs band K: there are g, r, i, z"),
        ("brightness", "has no values of 'brightness'"),
        ("color_r_r", "unknown attribute 'color_r_r'"),
    ):
        with pytest.raises(UserError, match=wrong):
            resolve(data, "--attributes", named)


def test_the_original_recipe_is_not_of_flux(data):
    with pytest.raises(UserError, match=r"the original recipe has colour pictures, and .* holds flux"):
        resolve(data, "--recipe", "paper")


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request, path, tmp_path_factory):
    """The folder of a whole run `whole`, and of one `resumed` that was stopped in its first epoch of phase 2."""
    folder = tmp_path_factory.mktemp(request.param)
    family = [*OPTIONS, *FAMILIES[request.param], "--data", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("galaxies.training.trainer.check_samples", functools.partial(check_samples, per_class=4))
        galaxy.main([*family, "--run", "whole"])
        taken = []

        def stop(trainer, may_wait):
            taken.append(trainer.phase)
            trainer.time_is_up = taken.count("generator") == 1
            return trainer.time_is_up

        with pytest.MonkeyPatch.context() as early:
            early.setattr("galaxies.training.trainer.Trainer._agree_to_stop", stop)
            galaxy.main([*family, "--run", "resumed"])
        resume_training.main(["--run", "resumed"])
    return folder


def test_a_run_on_flux_trains_and_shows_pictures(trained):
    records = read_metrics(trained / "checkpoints" / "whole" / "metrics.jsonl")
    kinds = [record["kind"] for record in records]
    assert kinds.count("check") == 1 and kinds.count("test") == 1
    assert not any(record.get("skipped") for record in records)
    check = next(record for record in records if record["kind"] == "check")
    assert {"diversity_disc", "diversity_ring", "unmeasurable"} <= set(check)
    with Image.open(trained / "samples" / "whole" / "epoch_0001.png") as grid:
        assert grid.mode == "RGB"
        # Two classes, and a sweep of each attribute with a caption.
        assert grid.height == 34 + 2 * 132 + 2 * 150 + 4


def test_a_run_on_flux_goes_on_exactly(trained):
    states = [
        load_checkpoint(trained / "checkpoints" / run / "latest.pt", RUN_STATE + TRAINING_STATE)
        for run in ("whole", "resumed")
    ]
    for state in states:
        del state["config"]["run"]
    assert differences(*states) == []
    whole, resumed = (records_of(trained / "checkpoints" / run) for run in ("whole", "resumed"))
    assert whole == resumed


def test_real_galaxies_cost_photometry_little(data, tmp_path):
    trainer = make_trainer(data, tmp_path, **{**settings_of(data), "batch_size": 32})
    trainer.batches.start_epoch()
    batch = trainer.batches.next_batch()
    term = next(term for term in trainer.learner.loss_terms if term.name == "photometry")
    nothing = (torch.zeros(()),) * 3
    real, other = (
        float(term.compute(trainer.learner, Drawn(images, batch, batch.known, None, nothing)))
        for images in (batch.images, batch.images.roll(1, 0))
    )
    assert 0 < real < 0.01 and other > 5 * real  # the true values, and those of other galaxies


def test_a_new_run_learns_the_noise_of_its_data(data, tmp_path):
    learner = make_trainer(data, tmp_path, telescope="off", **settings_of(data)).learner
    grains = [learner.generator.grain, learner.average.module.grain]
    assert torch.equal(grains[0].scatter, grains[1].scatter)
    # Noise differs within 10 % from galaxy to galaxy; a layer that has measured nothing takes all for alike.
    assert all(0.03 < part < 0.15 for part in grains[0].scatter.diagonal().tolist())
    assert grains[0].strength.tolist() == pytest.approx([20, 40, 60, 80], rel=0.06)


def test_check_of_perfect_galaxies_of_flux_finds_little_error(data):
    sampler = CopyingSampler(data, ("magnitude_r", "redshift"))
    real = {k: sampler.images[sampler.population.classes == k] for k in range(2)}
    report = check_samples(sampler, real)
    assert report["measured_mae_magnitude_r"] < 0.12 and report["unmeasurable"] == 0
    assert "measured_mae_redshift" not in report
    assert all(0.6 < report[f"diversity_{name}"] < 1.5 for name in CLASSES)
    sampler.images[::2, 1] = 0  # a band without light has no magnitude, and no error of one
    assert check_samples(sampler, real)["measured_mae_magnitude_r"] < 0.12


def start_of(trainer, tmp_path):
    state = {"networks": trainer.learner.state_dict()["networks"], "ema": None, "provenance": {"sha256": {}}}
    return Start(tmp_path / "first.pt", state, trainer.config, "0" * 64)


def settings_of(data, attributes=ATTRIBUTES):
    return {**data.settings(attributes), "attributes": attributes, "width": 4}


def test_weights_of_pictures_and_of_flux_are_no_start_for_each_other(data, tmp_path):
    pictures = Start(tmp_path / "a.pt", {}, Config(), "")
    with pytest.raises(UserError, match=r"a.pt draws colour pictures, and .*survey holds flux: leave out --start-from"):
        resolve(data, start=pictures)


@pytest.mark.parametrize(
    "family",
    [{}, {"diffusion": True, "unet_blocks": 1}, {"diffusion": True, "unet_blocks": 1, "telescope": "off"}],
    ids=["gan", "diffusion", "diffusion of pictures"],
)
def test_planes_are_taken_over_by_their_bands(data, tmp_path, family):
    first = make_trainer(data, tmp_path, **settings_of(data), **family)
    start = start_of(first, tmp_path)
    other = PreparedDataset.open(write_flux_dataset(tmp_path / "other", 30, ("z", "Y", "r"), CLASSES, seed=5))
    attributes = ("magnitude_r", "size_arcsec")
    second = make_trainer(other, tmp_path, **settings_of(other, attributes), **family, seed=9)
    before = {name: value.clone() for name, value in second.learner.generator.state_dict().items()}
    take_over(second.learner, start, same_data=False)
    old, new = (trainer.learner.generator.state_dict() for trainer in (first, second))
    if "telescope" in family:
        name, places = "unet.leave.2.weight", lambda band: slice(4 * band, 4 * band + 4)  # patches of 2 x 2 pixels
    else:
        name = "unet.paint.weight" if family else "network.paint.weight"
        places = lambda band: slice(band, band + 1)  # noqa: E731
    assert torch.equal(new[name][places(0)], old[name][places(BANDS.index("z"))])
    assert torch.equal(new[name][places(1)], before[name][places(1)])
    assert torch.equal(new[name][places(2)], old[name][places(BANDS.index("r"))])
    if family and "telescope" not in family:  # what is told of each exposure: noise and width of the bands, and a scale
        told = (trainer.learner.generator.unet.embed_told.weight for trainer in (second, first))
        here, there = told
        assert torch.equal(here[:, [0, 2, 3, 5, 6]], there[:, [3, 1, 7, 5, 8]])
        assert torch.equal(here[:, 1], before["unet.embed_told.weight"][:, 1])
    predictors = [trainer.learner.predictor.features[0].weight for trainer in (first, second)]
    assert torch.equal(predictors[1][:, 0], predictors[0][:, 3])


def test_exposures_are_those_of_the_new_survey(data, tmp_path):
    first = make_trainer(data, tmp_path, **settings_of(data))
    other = PreparedDataset.open(write_flux_dataset(tmp_path / "other", 30, BANDS, CLASSES, seed=5))
    for same in (False, True):
        second = make_trainer(other, tmp_path, **settings_of(other))
        own = second.learner.generator.noise.clone()
        take_over(second.learner, start_of(first, tmp_path), same_data=same)
        assert torch.equal(second.learner.generator.noise, first.learner.generator.noise if same else own)
    assert not torch.equal(own, first.learner.generator.noise)


def test_attributes_keep_the_range_that_the_weights_know(data, tmp_path):
    ranges = tuple(float(k) for k in range(8))
    known = Config(**{**settings_of(data), "attribute_ranges": ranges}, latent_dim=8)
    config = resolve(data, "--attributes", "size_arcsec,color_r_i", start=Start(tmp_path / "a.pt", {}, known, ""))
    assert config.attribute_ranges[:2] == (4.0, 5.0)
    assert config.attribute_ranges[2:] == data.settings(("color_r_i",))["attribute_ranges"]
    assert config.latent_dim == 8


def batch_of(trainer):
    trainer.batches.start_epoch()
    return trainer.batches.next_batch()


def test_light_is_observed_as_the_real_galaxies_beside_it_were(data, tmp_path, monkeypatch):
    trainer = make_trainer(data, tmp_path, **settings_of(data))
    batch, learner = batch_of(trainer), trainer.learner
    monkeypatch.setattr(learner, "_draw", lambda *shape, uniform=False: torch.ones(len(batch.classes), *shape))
    found = learner._drawn(batch)
    light = learner.generator.light(torch.ones(len(found), learner.generator.latent_dim), batch.condition)
    white = torch.ones_like(found)
    torch.testing.assert_close(found, learner.generator.stretched(light, batch.exposure, white), rtol=0, atol=1e-4)
    usual = learner.generator.kept_exposure(torch.zeros(len(found)))
    assert (found - learner.generator.stretched(light, usual, white)).abs().max() > 1e-2
    with pytest.raises(ValueError, match="light is observed as the images of its batch were"):
        learner._drawn(replace(batch, exposure=None))


def test_a_denoiser_is_held_to_noisy_pictures_through_its_galaxies_own_telescopes(data, tmp_path, monkeypatch):
    settings = {**settings_of(data), "diffusion": True, "unet_blocks": 1, "precision": "fp32"}
    trainer = make_trainer(data, tmp_path, **settings)
    batch, learner = batch_of(trainer), trainer.learner
    blurred = batch.exposure._replace(psf_fwhm=2 * batch.exposure.psf_fwhm)
    batch, model, seen = replace(batch, exposure=blurred), learner.generator, []
    for parameter in model.parameters():  # some begin at zero, and hide what lies before them
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    monkeypatch.setattr(learner, "_loss", lambda network, drawn, variant: seen.append(drawn) or stop())

    def stop():
        raise InterruptedError

    def draw(*shape, uniform=False):
        return torch.full((len(batch.classes),), 0.5) if uniform else torch.zeros(len(batch.classes), *shape)

    monkeypatch.setattr(learner, "_draw", draw)
    with pytest.raises(InterruptedError):
        learner._generator_step(batch, learner.variant("generator", 0))
    (drawn,) = seen
    level = (torch.arange(len(batch.classes)) + 0.5) / len(batch.classes)
    t = model.process.draw_times(level, learner.config.low_noise_share)
    signal = model.process.signal[t][:, None, None, None]
    x_t = signal * model.normalise(batch.images)
    light = model.telescope.light_of(model.output(x_t, t, batch.condition, model.told(batch.exposure)))
    clean = model.telescope.observed(light, batch.exposure, None)
    # No noise is drawn here: physics sees the light as the telescopes of the batch do.
    torch.testing.assert_close(drawn.images, model.telescope.stretch(clean), rtol=0, atol=1e-4)
    usual = model.telescope.stretched(light, model.deep_exposure(len(light)), None)
    assert (drawn.images - usual).abs().max() > 1e-3
    expected = model.expected(x_t, t, clean, batch.exposure)
    torch.testing.assert_close(model.process.predict_x0(x_t, t, drawn.output), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        model.process.predict_x0(x_t, t, drawn.target), model.normalise(batch.images), rtol=1e-3, atol=1e-4
    )
    with pytest.raises(ValueError, match="light is observed as the images of its batch were"):
        learner._generator_step(replace(batch, exposure=None), learner.variant("generator", 0))


def test_photometry_in_the_loss_goes_by_each_galaxy_s_exposure(data, tmp_path):
    trainer = make_trainer(data, tmp_path, **{**settings_of(data), "batch_size": 32})
    batch = batch_of(trainer)
    term = next(term for term in trainer.learner.loss_terms if term.name == "photometry")
    exposure = batch.exposure._replace(pixel_scale=2 * batch.exposure.pixel_scale)
    right, wrong = (
        float(term.compute(trainer.learner, Drawn(asked.images, asked, asked.known, None, (torch.zeros(()),) * 3)))
        for asked in (batch, replace(batch, exposure=exposure))
    )
    assert wrong > 5 * right  # sizes in arcseconds are twice as large


def test_photon_noise_is_that_of_the_data_where_it_is_told_and_measured_else(data, tmp_path):
    told = {**settings_of(data), "photons": (5.0, 0.0, 7.0, 0.0)}
    learner = make_trainer(data, tmp_path, **told).learner
    photons = learner.generator.photons
    assert (photons[0], photons[2]) == (5.0, 7.0) and photons[1] != 5 and (photons[[1, 3]] >= 0).all()
    assert torch.equal(photons, learner.average.module.photons)
    kept = {round(float(noise), 3) for noise in learner.generator.noise[:, 0]}
    denoiser = make_trainer(data, tmp_path, **told, diffusion=True, unet_blocks=1, batch_size=16).learner
    for network in (denoiser.generator, denoiser.average.module):
        assert torch.equal(network.telescope.photons, photons)
        assert torch.equal(network.telescope.noise, learner.generator.noise)
    assert kept <= {round(float(noise), 3) for noise in data.noise(data.rows("train"))[:, 0]} and len(kept) > 30
