"""Starting from trained weights: the same pictures where nothing changed, and every tensor in its right place else."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch

import galaxy
from config_physics import MORPHOLOGY_NAMES, Config
from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.compute.ranks import Ranks
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.storage.checkpoint import load_checkpoint, save_checkpoint
from galaxies.storage.release import write_release
from galaxies.training.starting import Start, take_over
from galaxies.training.trainer import Trainer, build_learner
from tests.conftest import SETTINGS, TINY, make_trainer, write_dataset

UNET = {"diffusion": True, "width": 8, "unet_blocks": 1, "solver_steps": 2}
CPU = Engine.choose("cpu", "fp32")
PERMUTED = ("redshift", "ellipticity", "size", "brightness")


@pytest.fixture(scope="module")
def other_data(tmp_path_factory) -> PreparedDataset:
    """Other galaxies, with other means."""
    return PreparedDataset.open(write_dataset(tmp_path_factory.mktemp("other") / "rendered", 48, seed=7))


@pytest.fixture(scope="module")
def starts(trained, data, tmp_path_factory) -> dict[str, Start]:
    """A trained GAN, and a diffusion model after a step."""
    folder = tmp_path_factory.mktemp("start")
    trainer = make_trainer(data, folder, **UNET, precision="fp32")
    trainer.start_phase("generator")
    for parameter in trainer.learner.generator.parameters():  # its last layers begin at zero
        torch.nn.init.normal_(parameter, 0, 0.05)
    trainer.batches.start_epoch()
    trainer.take_step(1)
    trainer.learner.average.module.load_state_dict(trainer.learner.generator.state_dict())
    save_checkpoint(folder / "diffusion/latest.pt", trainer.state_dict())
    return {"gan": Start.read(trained / "checkpoints/tiny"), "diffusion": Start.read(folder / "diffusion")}


def begin(start: Start, data, tmp_path, **given) -> Trainer:
    """Return a trainer of a new run as galaxy.py makes it."""
    usual = {name: SETTINGS[name] for name in ("batch_size", "log_every", "pretrain_epochs", "epochs")}
    config = Config(**{**usual, "run": "new", "device": "cpu", **start.settings(given), **given})
    config = dataclasses.replace(config, image_size=data.image_size)
    return Trainer(config, data, tmp_path / "checkpoints/new", tmp_path / "samples/new", None, start)


def drawn(sampler: GalaxySampler, values: dict[str, float]) -> torch.Tensor:
    """Draw a galaxy of each class with the same attributes."""
    row = torch.tensor([values.get(name, float("nan")) for name in sampler.config.attributes])
    return sampler.generate(torch.arange(4), row.repeat(4, 1), [11, 12, 13, 14])


ASKED = {"size": 0.15, "brightness": 0.3, "ellipticity": 0.4, "redshift": 0.1}


@pytest.mark.parametrize("family", ["gan", "diffusion"])
@pytest.mark.parametrize("attributes", [None, PERMUTED], ids=["same", "permuted"])
def test_on_the_same_data_the_first_pictures_are_the_same(starts, data, tmp_path, family, attributes):
    start = starts[family]
    trainer = begin(start, data, tmp_path, **({"attributes": attributes} if attributes else {}))
    expected = drawn(GalaxySampler.from_state(start.state, start.path, "cpu"), ASKED)
    assert len(expected.unique()) > 20
    found = drawn(trainer.sampler(), ASKED)
    # With permuted columns the sums of the first layer are taken in another order, which a rounding can tell.
    assert (found.int() - expected.int()).abs().max() <= (1 if attributes else 0)
    if attributes is None:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("family", ["gan", "diffusion"])
def test_on_other_data_a_request_means_what_it_meant(starts, other_data, tmp_path, family):
    """Attributes are scaled by the slider's range, not by the data, and images by the scale that the U-Net learned."""
    start = starts[family]
    given = {"pixel_noise": False} if family == "gan" else {}
    sampler = GalaxySampler.from_state(start.state, start.path, "cpu")
    if given:  # the grain is that of the new sky, so it is left out on both sides
        sampler.network = sampler.network.network
        sampler.config = dataclasses.replace(sampler.config, pixel_noise=False)
    trainer = begin(start, other_data, tmp_path, **given)
    assert torch.equal(drawn(trainer.sampler(), ASKED), drawn(sampler, ASKED))


def test_grain_is_that_of_the_new_sky(starts, data, other_data, tmp_path):
    state = copy.deepcopy(starts["gan"].state)
    old = state["ema"]["grain.strength"]
    old *= 1.5  # as no measurement would find it
    start = dataclasses.replace(starts["gan"], state=state)
    fresh = make_trainer(other_data, tmp_path, precision="fp32").learner.generator.grain.strength
    learner = begin(start, other_data, tmp_path).learner
    assert torch.equal(learner.generator.grain.strength, fresh) and not torch.equal(fresh, old)
    assert torch.equal(learner.average.module.grain.strength, fresh)
    assert torch.equal(begin(start, data, tmp_path).learner.generator.grain.strength, old)


def columns_of(config: Config, before: int) -> dict[str, int]:
    """Say where attributes and classes stand in a weight, from the documented layout of the condition vector."""
    count = len(config.attributes)
    return (
        {name: before + k for k, name in enumerate(MORPHOLOGY_NAMES)}
        | {name: before + 4 + k for k, name in enumerate(config.attributes)}
        | {f"known {name}": before + 4 + count + k for k, name in enumerate(config.attributes)}
    )


def test_each_attribute_keeps_its_columns_and_a_new_one_starts_as_the_recipe_does(starts, data, tmp_path):
    start, attributes = starts["gan"], ("ellipticity", "color", "size")
    settings = {**start.settings({}), "attributes": attributes, "run": "new", "device": "cpu", "batch_size": 16}
    torch.manual_seed(5)
    learner = build_learner(Config(**settings), CPU, Ranks())
    fresh = copy.deepcopy({name: network.state_dict() for name, network in learner.networks.items()})
    said = take_over(learner, start, same_data=False)
    old = {**start.state["networks"], "generator": start.state["ema"]}
    for network, key, before, axis in (
        ("generator", "network.style.0.weight", 8, 1),
        ("generator", "network.project.weight", 8, 1),
        ("discriminator", "project.weight", 0, 1),
    ):
        new, was, first = (
            states[network][key] for states in ({n: m.state_dict() for n, m in learner.networks.items()}, old, fresh)
        )
        here, there = columns_of(learner.config, before), columns_of(start.config, before)
        for name, column in here.items():
            expected = was.select(axis, there[name]) if name in there else first.select(axis, column)
            assert torch.equal(new.select(axis, column), expected), (key, name)
        assert torch.equal(new[:, :before], was[:, :before])  # the noise
    readings = learner.networks["discriminator"].read.weight
    was, first = old["discriminator"]["read.weight"], fresh["discriminator"]["read.weight"]
    expected = torch.stack([was[2], first[1], was[0], *was[4:]])  # three attributes of four, then four classes
    assert torch.equal(readings, expected)
    for key in ("regress.3.weight", "regress.3.bias", "doubt.2.weight", "doubt.2.bias"):
        was, first = old["predictor"][key], fresh["predictor"][key]
        assert torch.equal(learner.predictor.state_dict()[key], torch.stack([was[2], first[1], was[0]])), key
    assert torch.equal(learner.predictor.state_dict()["features.0.weight"], old["predictor"]["features.0.weight"])
    total = sum(
        len([k for k in m.state_dict() if "grain." not in k and k != "prior_variance"])
        for m in learner.networks.values()
    )
    assert said == (
        f"taken over: {total} of {total} tensors (9 of them in part, for the attributes that both know); "
        "new: optimisers and averages"
    )
    assert all(not optimizer.state_dict()["state"] for optimizer in learner.optimizers.values())


def test_the_unet_keeps_its_columns(starts):
    start = starts["diffusion"]
    config = Config(**{**start.settings({}), "attributes": ("redshift", "size")})
    learner = build_learner(config, CPU, Ranks())
    take_over(learner, start, same_data=False)
    new, old = learner.generator.state_dict(), start.state["ema"]
    expected = old["unet.embed_condition.0.weight"][:, [0, 1, 2, 3, 7, 4, 11, 8]]
    assert torch.equal(new["unet.embed_condition.0.weight"], expected)
    for key in ("unet.enter.weight", "mean", "deviation", "unet.leave.2.weight"):
        assert torch.equal(new[key], old[key])


def test_a_release_starts_a_run_and_the_discriminator_is_new(starts, data, tmp_path):
    weights = write_release(starts["gan"].state, tmp_path / "release", torch.float32, {})
    for path in (weights, weights.parent):
        start = Start.read(path)
        trainer = begin(start, data, tmp_path)
        assert torch.equal(drawn(trainer.sampler(), ASKED), drawn(GalaxySampler.from_checkpoint(weights, "cpu"), ASKED))
        assert trainer.started_from["taken_over"].endswith("; new: the discriminator, optimisers and averages")
        assert trainer.started_from["file"] == "generator.safetensors"


@pytest.mark.parametrize(
    ("settings", "old", "new"),
    [
        ({"generator": "frame", "detail_stages": False}, "coarse.0.conv.weight", "coarse.1.conv.weight"),
        ({"generator": "residual"}, "blocks.0.first.weight", "blocks.1.first.weight"),
        ({"generator": "resize"}, "upsample.1.weight", "upsample.5.weight"),
        ({"generator": "transposed"}, "upsample.0.weight", "upsample.3.weight"),
        (UNET, "unet.up.7.conv_1.weight", "unet.up.10.conv_1.weight"),
        (UNET, "unet.down.0.conv_1.weight", "unet.down.0.conv_1.weight"),
    ],
)
def test_larger_images_take_the_layers_of_the_finer_sides(settings, old, new):
    """One layer more stands at the coarse end: there the generators' lists begin, and the U-Net's way down ends."""
    settings = {"width": 8, "attributes": ("size",), **settings}
    small, large = (build_learner(Config(**settings, image_size=size), CPU, Ranks()) for size in (64, 128))
    networks = {name: network.state_dict() for name, network in small.networks.items()}
    start = Start(Path("s"), {"networks": networks, "ema": None}, small.config, "")
    prefix = "" if small.config.diffusion else "network."
    before = large.generator.state_dict()[prefix + new].clone()
    said = take_over(large, start, same_data=False)
    after = large.generator.state_dict()[prefix + new]
    assert torch.equal(after, networks["generator"][prefix + old]) and not torch.equal(after, before)
    assert " of the generator" in said.partition("; new: ")[2]


@pytest.mark.parametrize(
    ("family", "given", "sentence"),
    [
        ("gan", {"diffusion": True}, "--diffusion does not fit .*, which holds a GAN model: leave it out"),
        ("gan", {"generator": "residual"}, "--generator does not fit .*, which was trained with 'frame': leave it out"),
        ("gan", {"batch_norm": False}, "--batch-norm does not fit .*, which was trained with True"),
        ("diffusion", {"noise_shift": 1.0}, "--noise-shift does not fit .*, which was trained with 4.0"),
    ],
)
def test_a_setting_with_which_the_weights_mean_something_else_is_refused(starts, family, given, sentence):
    with pytest.raises(UserError, match=sentence):
        starts[family].settings(given)


@pytest.mark.parametrize("family", ["gan", "diffusion"])
def test_settings_of_the_networks_come_from_the_weights_unless_given(starts, family):
    start = starts[family]
    taken = start.settings({"condition_mask": False, "learning_rate": 0.1})
    assert "condition_mask" not in taken and "learning_rate" not in taken and "epochs" not in taken
    assert taken["width"] == start.config.width and taken["attributes"] == start.config.attributes
    assert taken["diffusion"] is (family == "diffusion")
    assert ("unet_blocks" in taken, "latent_dim" in taken) == (
        (True, False) if family == "diffusion" else (False, True)
    )


def test_a_generator_of_another_width_is_no_start(starts, data, tmp_path):
    with pytest.raises(UserError, match=r"of the generator of .* only \d+ % fit this run: leave out --width"):
        begin(starts["gan"], data, tmp_path, width=8)


def test_what_was_not_trained_is_no_start(trained, data, tmp_path):
    save_checkpoint(tmp_path / "early.pt", make_trainer(data, tmp_path).state_dict())
    with pytest.raises(UserError, match="saved before the generator's training: there is nothing to start from"):
        Start.read(tmp_path / "early.pt")
    with pytest.raises(UserError, match=r"holds neither latest\.pt nor generator\.safetensors"):
        Start.read(tmp_path)


def test_a_run_says_and_records_what_it_started_from_and_goes_on(
    starts, trained, other_data, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    path = trained / "checkpoints/tiny/latest.pt"
    galaxy.main(
        [
            "--data",
            str(other_data.path),
            "--start-from",
            str(path),
            "--dry-run",
            *TINY[4:],
            "--attributes",
            "size,color",
        ]
    )
    said = capsys.readouterr().out
    assert "started from tiny: taken over: " in said and " width=4 " in said and " latent_dim=8 " in said
    assert not (tmp_path / "checkpoints").exists()

    trainer = begin(starts["gan"], other_data, tmp_path)
    origin = trainer.state_dict()["provenance"]["started_from"]
    assert origin["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (origin["run"], origin["file"]) == ("tiny", "latest.pt")
    save_checkpoint(tmp_path / "c.pt", trainer.state_dict())
    resumed = Trainer(
        trainer.config, other_data, trainer.checkpoints, trainer.samples, load_checkpoint(tmp_path / "c.pt")
    )
    assert resumed.state_dict()["provenance"] == trainer.state_dict()["provenance"]
    assert torch.equal(drawn(resumed.sampler(), ASKED), drawn(trainer.sampler(), ASKED))
    write_release(trainer.state_dict(), tmp_path / "r", torch.float32, {})
    assert json.loads((tmp_path / "r/generator.json").read_text())["provenance"]["started_from"] == origin
