"""Position angle and inclination as requests: the same galaxy turned, in tables, catalogues and files."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

import generate_from_checkpoint
from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.datasets.conditions import condition_vector
from galaxies.datasets.population import Population
from galaxies.generation.catalogue import generate_blocks, write_pictures
from galaxies.generation.request_tables import read_requests
from galaxies.generation.request_values import angle_value
from galaxies.generation.requests import Requests, requests_alike
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.stretch import AsinhStretch
from galaxies.measure.inclination import axis_ratio_of
from galaxies.networks.galaxy_frame import Pose
from galaxies.networks.layers import ImageGenerator
from galaxies.networks.turning import turned_light, upright
from gan_model import build_gan_generator
from tests.generation.painted import told, write_flux_checkpoint

CONFIG = Config(
    kind="flux",
    bands=("g", "r"),
    classes=("disc", "other"),
    softening=(1.0, 1.0),
    pixel_scale=0.2,
    psf_fwhm=(0.0, 0.0),
    attributes=("inclination",),
    attribute_ranges=(0.0, 90.0),
    latent_dim=8,
)


class Turner(ImageGenerator):
    """Paint a lopsided disc, as flat as it is asked to be, and turn it onto the sky last."""

    noise_dim, turns = 8, True

    def forward(self, noise, condition):
        axis = torch.arange(64) - 31.5
        degrees = torch.where(condition[:, 3] > 0, 90 * condition[:, 2], 50.0)
        minor = 7 * axis_ratio_of(degrees)[:, None, None]
        light = 300 * torch.exp(-((axis / 7) ** 2 + (axis[:, None] / minor) ** 2).sqrt()) * (1 + 0.3 * (axis > 6))
        light = light * (1 + 0.1 * upright(noise)[:, 4].tanh())[:, None, None]
        turned = turned_light(light[:, None].expand(-1, 2, -1, -1), Pose.from_noise(noise))
        return AsinhStretch(torch.tensor([1.0, 1.0]))(turned)


@pytest.fixture(scope="module")
def sampler():
    values = torch.cat([torch.linspace(5, 85, 50), torch.full((50,), math.nan)])[:, None]
    population = Population((torch.arange(100) >= 50).long(), values)
    return GalaxySampler(Turner(), CONFIG, population, Engine.choose("cpu", "fp32"))


def asked(count, angles, degrees=60.0):
    values = torch.full((count, 1), degrees)
    return Requests(torch.zeros(count, dtype=torch.int64), values, [3] * count, torch.tensor(angles))


def test_a_position_angle_turns_the_galaxy_and_changes_nothing_else(sampler):
    first, quarter, half, other, free = sampler.generate(*told(asked(5, [20.0, 110.0, 200.0, -340.0, math.nan])))
    torch.testing.assert_close(quarter, first.rot90(-1, (1, 2)), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(half, first.rot90(2, (1, 2)), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(other, first, rtol=1e-4, atol=1e-3)
    assert (half - first).abs().max() > 1
    left_out = sampler.generate(torch.tensor([0]), torch.tensor([[60.0]]), [3])[0]
    assert torch.equal(free, left_out)
    assert (free - first).abs().max() > 1


def test_a_position_angle_does_not_depend_on_the_batch(sampler):
    angles = [float(10 * k) for k in range(20)]
    together = sampler.generate(*told(asked(20, angles)))
    parts = [sampler.generate(*told(asked(20, angles).part(k, k + 3))) for k in range(0, 20, 3)]
    assert torch.equal(together, torch.cat(parts))
    sampler.blocks_ahead, sampler.block = 1, 8  # as on an accelerator
    try:
        assert torch.equal(sampler.generate(*told(asked(20, angles))), together)
    finally:
        sampler.blocks_ahead, sampler.block = 0, 1024


def test_an_accelerator_is_asked_for_the_same_angles(sampler):
    angles = torch.tensor([float(20 * k) for k in range(20)])
    condition = condition_vector(torch.zeros(20, dtype=torch.int64), torch.full((20, 1), 60.0), CONFIG)
    found = sampler._on_accelerator(np.full(20, 3), condition, angles, False)
    assert torch.equal(found, sampler.generate(*told(asked(20, angles.tolist()))))


def test_catalogue_and_files_say_both(sampler, tmp_path):
    requests = asked(3, [30.0, 120.0, math.nan])
    ((images, table),) = generate_blocks(sampler, requests)
    assert table["requested_position_angle"].tolist()[:2] == [30, 120]
    assert table["requested_position_angle"].isna().tolist() == [False, False, True]
    assert table["requested_inclination"].tolist() == [60] * 3
    assert table["measured_inclination"].tolist() == pytest.approx([60] * 3, abs=4)
    fits = pytest.importorskip("astropy.io.fits")
    write_pictures(tmp_path / "out", {"fits"}, images, table, sampler.attributes, (), sampler.pictures, sampler.facts)
    first, last = (fits.getheader(tmp_path / f"out/images/galaxy_0000{k}.fits") for k in (0, 2))
    assert first["POSANG"] == 30
    assert (first["ATTR1"], first["REQ1"]) == ("inclination", 60)
    assert "POSANG" not in last


def test_a_sweep_over_inclination_follows(sampler):
    degrees = torch.linspace(25, 85, 9)
    requests = Requests(torch.zeros(9, dtype=torch.int64), degrees[:, None], [3] * 9, torch.full((9,), 77.0))
    ((_, table),) = generate_blocks(sampler, requests)
    assert np.abs(table["measured_inclination"] - degrees.numpy()).max() < 5


def test_what_is_no_disc_has_no_inclination(sampler):
    unset = torch.full((2, 1), math.nan)
    ((_, table),) = generate_blocks(sampler, Requests(torch.tensor([0, 1]), unset, [1, 2]))
    assert table["requested_inclination"].isna().tolist() == [False, True]
    assert table["measured_inclination"].isna().tolist() == [False, True]
    assert "requested_position_angle" not in table


def test_tables_of_requests_have_position_angles(tmp_path):
    file = tmp_path / "wanted.csv"
    file.write_text("inclination,Position_Angle\n30,12.5\n,-90\n45,\n")
    found = read_requests(file, ("inclination",), 0, ("disc",))
    assert found.position_angles.nan_to_num(-1).tolist() == [12.5, -90, -1]
    other = Requests(found.classes, found.values, found.seeds)
    assert other.fingerprint() != found.fingerprint()
    assert found.part(1, 3).position_angles.nan_to_num(-1).tolist() == [-90, -1]
    file.write_text("inclination,position_angle\n30,400\n")
    with pytest.raises(UserError, match="row 2: position_angle is '400': it takes a number from -360 to 360 deg"):
        read_requests(file, ("inclination",), 0, ("disc",))
    one = requests_alike(None, {"inclination": 40}, ("inclination",), 0, 3, ("disc",), -45.0)
    assert one.position_angles.tolist() == [-45] * 3


@pytest.mark.parametrize("text", ["", "north", "361", "nan", "1,5"])
def test_what_is_no_angle_is_refused(text):
    with pytest.raises(UserError, match="position_angle "):
        angle_value(text)


def test_angles_at_the_ends_may_be_asked_for():
    assert [angle_value(text) for text in ("-360", "360", "-0.0", "1e1")] == [-360, 360, 0, 10]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    settings = {"attributes": ("magnitude_r", "inclination", "size_arcsec", "redshift"), "telescope": "off"}
    ranges = {"attribute_ranges": (18.0, 22.0, 0.0, 90.0, 0.4, 2.0, 0.0, 1.0)}
    return write_flux_checkpoint(tmp_path_factory.mktemp("run") / "flux/latest.pt", **settings, **ranges)


def test_the_command_takes_an_inclination(checkpoint, tmp_path):
    options = ["--checkpoint", str(checkpoint), "--morphology", "disc", "--device", "cpu", "--count", "2"]
    generate_from_checkpoint.main([*options, "--inclination", "35", "--out", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out/catalogue.csv")
    assert table["requested_inclination"].tolist() == [35, 35]
    with pytest.raises(UserError, match="inclination is there more than once"):
        generate_from_checkpoint.main([*options, "--inclination", "35", "--set", "inclination=40"])
    with pytest.raises(UserError, match="inclination is '95': it takes a number from 0 to 90 deg"):
        generate_from_checkpoint.main([*options, "--set", "inclination=95"])


def test_the_command_turns_galaxies_of_a_run_with_the_telescope_on(tmp_path):
    path = write_flux_checkpoint(tmp_path / "flux/latest.pt")
    options = ["--checkpoint", str(path), "--morphology", "disc", "--device", "cpu", "--count", "2"]
    generate_from_checkpoint.main([*options, "--position-angle", "-30.5", "--out", str(tmp_path / "out")])
    assert pd.read_csv(tmp_path / "out/catalogue.csv")["requested_position_angle"].tolist() == [-30.5] * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--position-angle", "-30"], "position_angle is no request of this checkpoint, whose generator does not turn"),
        (["--requests", "wanted.csv", "--position-angle", "3"], "--requests lists every image"),
        (["--requests", "wanted.csv"], "position_angle is no request of this checkpoint"),
    ],
)
def test_runs_that_do_not_turn_say_so(checkpoint, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wanted.csv").write_text("morphology,position_angle\ndisc,5\n")
    named = [] if "--requests" in options else ["--morphology", "disc"]
    with pytest.raises(UserError, match=words):
        generate_from_checkpoint.main(["--checkpoint", str(checkpoint), "--device", "cpu", *named, *options])
    assert not (tmp_path / "generated").exists()


def observed(**settings):
    """Return a sampler of an untrained generator that paints light and observes it."""
    values = {name: getattr(CONFIG, name) for name in ("kind", "bands", "classes", "softening", "pixel_scale")}
    values |= {"psf_fwhm": (0.8, 0.7), "attributes": ("inclination",), "attribute_ranges": (0.0, 90.0)}
    values |= {"wavelengths": (480.0, 620.0), "photons": (0.01, 0.01), "psf_profile": "kolmogorov"}
    config = Config(**values, latent_dim=8, width=4, **settings)
    torch.manual_seed(0)
    network = build_gan_generator(config).eval()
    with torch.no_grad():
        for weights in network.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.1)
    population = Population(torch.zeros(2, dtype=torch.int64), torch.tensor([[20.0], [70.0]]))
    return GalaxySampler(network, config, population, Engine.choose("cpu", "fp32"))


def test_light_before_the_telescope_is_turned_exactly():
    sampler = observed()
    first, quarter, free = sampler.light(*told(asked(3, [25.0, 115.0, math.nan])))
    assert (first - free).abs().max() > 0.01 * first.max()
    torch.testing.assert_close(quarter, first.rot90(-1, (1, 2)), rtol=1e-4, atol=1e-5 * float(first.max()))
    assert (quarter - first).abs().max() > 0.01 * first.max()


def test_generators_that_paint_in_no_frame_take_no_position_angle():
    sampler = observed(generator="residual")
    assert sampler.light(torch.tensor([0]), torch.tensor([[60.0]]), [1]).shape == (1, 2, 128, 128)
    with pytest.raises(UserError, match="does not turn galaxies"):
        sampler.light(*told(asked(1, [25.0])))
