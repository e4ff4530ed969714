"""Requested galaxies before another survey: flux, noise, files and what they say, and what no survey can show."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import observe
from galaxies.common.errors import UserError
from galaxies.generation.catalogue import generate_blocks
from galaxies.generation.observed import ObservedSampler
from galaxies.generation.requests import Requests
from galaxies.mock_field.painting import shapes_of
from galaxies.telescope.surveys import find_survey
from tests.conftest import tree_of
from tests.generation.painted import GRIZ, light_painting_sampler, told, write_flux_checkpoint

ASKED = torch.tensor([[19.0, 0.6, 1.0, 0.2], [20.5, 1.1, 0.6, 0.5], [18.5, 0.2, 1.2, 0.1]])
CLASSES = torch.tensor([0, 1, 0])


def before(survey, pixels=None, with_noise=True):
    sampler = light_painting_sampler(ObservedSampler)
    sampler._observe_with(survey, pixels, with_noise)
    return sampler


def images_of(survey, seeds=(4, 5, 6), **settings):
    return before(survey, **settings).generate(CLASSES, ASKED, list(seeds))


def test_a_survey_shows_the_flux_that_was_painted_on_its_own_pixels():
    for name, bands, side in (("LSST", ["r", "i"], 64), ("Euclid_VIS", ["IE"], 128), ("HSC", ["r"], 77)):
        survey = find_survey(name, bands)
        seen = images_of(survey, with_noise=False)
        # The frame of 12.8 arcseconds, and some pixels' rest.
        assert seen.shape == (3, len(bands), side, side) and seen.dtype == torch.float32
        if name == "LSST":
            wanted = 10 ** (-0.4 * (ASKED[:, 0] - 31.4))
            assert torch.allclose(seen[:, 0].sum((1, 2)), wanted, rtol=0.02)
            colors = 2.5 * torch.log10(seen[:, 1].sum((1, 2)) / seen[:, 0].sum((1, 2)))
            assert torch.allclose(colors, ASKED[:, 1], atol=0.03)  # each band is redder than the last by g - r
    assert images_of(find_survey("LSST", ["r"]), pixels=31).shape == (3, 1, 31, 31)


def test_photometry_measures_on_the_survey_s_image_what_was_asked_for():
    requests = Requests(CLASSES, ASKED, [4, 5, 6])
    sampler = before(find_survey("LSST", ["r"]))
    ((_, table),) = generate_blocks(sampler, requests)
    assert table["measured_magnitude_r"].to_numpy() == pytest.approx(ASKED[:, 0].numpy(), abs=0.05)
    light = sampler.light(*told(requests))[:, 1].double()
    sizes = shapes_of(light, torch.full((3,), 0.1).double())["size_arcsec"]
    assert table["measured_size_arcsec"].to_numpy() == pytest.approx(sizes.numpy(), rel=0.1)
    assert table["requested_color_g_r"].to_numpy() == pytest.approx(ASKED[:, 1].numpy())
    assert "measured_color_g_r" not in table and "measured_magnitude_i" not in table


def test_noise_is_the_survey_s_and_that_of_the_seed():
    survey = find_survey("LSST", ["r", "i"])
    seen, light = images_of(survey), images_of(survey, with_noise=False)
    normals = []
    for exposure in (survey, survey.with_exposure(100.0)):
        sky = torch.tensor([band.sky_noise(0.2) for band in exposure.bands])[:, None, None]
        photons = torch.tensor([band.photon_variance for band in exposure.bands])[:, None, None]
        normals.append((images_of(exposure) - light) / (sky**2 + photons * light.clamp_min(0)).sqrt())
    torch.testing.assert_close(normals[0], normals[1], rtol=0, atol=0.02)  # of the same numbers, whatever the exposure
    pulls = normals[0].double()
    count = pulls.numel()
    assert abs(pulls.mean()) < 4 / math.sqrt(count) and abs(pulls.std() - 1) < 4 / math.sqrt(2 * count)
    rows = pulls.flatten(2).flatten(0, 1)
    assert (torch.corrcoef(rows) - torch.eye(6)).abs().max() < 5 / math.sqrt(rows.shape[1])
    assert not torch.equal(images_of(survey, seeds=(7, 5, 6))[0], seen[0])
    assert torch.equal(images_of(survey, seeds=(7, 5, 6))[1:], seen[1:])


def test_binned_pixels_are_the_sums_of_the_survey_s():
    survey = find_survey("HSC", ["g", "r"])
    fine, binned = (
        images_of(survey, pixels=60, with_noise=False),
        images_of(survey.binned(3), with_noise=False, pixels=20),
    )
    sums = fine.double().unflatten(3, (20, 3)).sum(4).unflatten(2, (20, 3)).sum(3)
    torch.testing.assert_close(binned.double(), sums, rtol=1e-3, atol=1e-4 * float(sums.max()))
    assert torch.allclose(binned.sum((2, 3)), fine.sum((2, 3)), rtol=1e-4)
    # Noise of nine pixels: three times the sky's, and what nine shares of the light add.
    noise = (images_of(survey.binned(3), pixels=20) - binned).double()
    own = torch.tensor([[band.sky_noise(0.168), band.photon_variance] for band in survey.bands]).double()
    pulls = noise / (9 * own[:, 0, None, None] ** 2 + own[:, 1, None, None] * sums.clamp_min(0)).sqrt()
    assert abs(pulls.mean()) < 4 / math.sqrt(pulls.numel()) and abs(pulls.std() - 1) < 4 / math.sqrt(2 * pulls.numel())


def test_an_image_does_not_depend_on_the_batch():
    sampler = before(find_survey("HSC", ["g", "r"]), pixels=40)
    count = 21
    classes, values, seeds = torch.arange(count) % 2, ASKED.repeat(7, 1), list(range(count))
    together = sampler.generate(classes, values, seeds)
    parts = [sampler.generate(classes[k : k + 4], values[k : k + 4], seeds[k : k + 4]) for k in range(0, count, 4)]
    assert torch.equal(together, torch.cat(parts))
    sampler.blocks_ahead, sampler.block = 1, 8  # as on an accelerator
    assert torch.equal(sampler.generate(classes, values, seeds), together)
    assert sampler.light(classes[:2], values[:2], seeds[:2]).shape == (2, 4, 128, 128)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_flux_checkpoint(tmp_path_factory.mktemp("flux") / "latest.pt", **GRIZ, generator="frame")


def observed(checkpoint, out, words):
    line = f"galaxies --checkpoint {checkpoint} --device cpu --survey LSST --bands r,i --out {out} {words}"
    observe.main(line.split())
    return out


def test_files_say_what_observed_what(tmp_path, checkpoint, capsys):
    fits = pytest.importorskip("astropy.io.fits")
    words = "--exposure r=300,i=600 --morphology disc --set magnitude_r=20 --position-angle 30 --count 2 --pixels 24"
    out = observed(checkpoint, tmp_path / "out", f"{words} --format png,fits,npz --seed 3")
    assert "2 galaxies in" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        *("grid.png", "catalogue.csv", "images.npz", "images", "observation.json")
    }
    table = pd.read_csv(out / "catalogue.csv")
    assert table["seed"].tolist() == [3, 4] and table["requested_position_angle"].tolist() == [30, 30]
    assert {"measured_magnitude_r", "measured_magnitude_i"} <= set(table) and "measured_magnitude_g" not in table
    survey = find_survey("LSST", ["r", "i"]).with_exposure({"r": 300.0, "i": 600.0})
    said = json.loads((out / "observation.json").read_text())
    assert (said["survey"], said["pixel_scale"], said["with_noise"], said["psf"]) == ("LSST", 0.2, True, "kolmogorov")
    assert [band["name"] for band in said["bands"]] == ["r", "i"]
    assert [band["exposure_s"] for band in said["bands"]] == [300, 600]
    assert said["bands"][0]["sky_noise"] == survey.bands[0].sky_noise(0.2)
    with fits.open(out / "images/galaxy_00001.fits", checksum=True) as units:
        units.verify("exception")
        assert all(unit.verify_checksum() == unit.verify_datasum() == 1 for unit in units)
        assert not [card.comment for unit in units for card in unit.header.cards if "202" in card.comment]  # no time
        header = units[0].header
        assert (header["SURVEY"], header["CONTENT"], header["BANDS"]) == ("LSST", "as observed", "r,i")
        assert (header["EXPTIM1"], header["EXPTIM2"], header["PIXSCALE"], header["FWHM1"]) == (300, 600, 0.2, 0.81)
        assert header["NOISE2"] == pytest.approx(survey.bands[1].sky_noise(0.2), rel=1e-3)
        assert header["PHOTV1"] == pytest.approx(survey.bands[0].photon_variance, rel=1e-6)
        assert units["PSF"].data.sum((1, 2)) == pytest.approx([1, 1], abs=1e-5)
        image = np.array(units[0].data)
    with np.load(out / "images.npz") as archive:
        assert archive["images"].shape == (2, 2, 24, 24) and archive["bands"].tolist() == ["r", "i"]
        assert np.array_equal(archive["images"][1], image) and float(archive["pixel_scale"]) == 0.2
    again = observed(checkpoint, tmp_path / "again", f"{words} --format png,fits,npz --seed 3")
    assert tree_of(again) == tree_of(out)
    # A new output of other formats takes the place of all of the old one.
    observed(checkpoint, out, f"{words} --noiseless --format npz")
    assert json.loads((out / "observation.json").read_text())["with_noise"] is False
    assert not (out / "images").exists()


def test_hst_is_observed_with_binned_pixels_and_everything_says_so(tmp_path, checkpoint, capsys):
    fits = pytest.importorskip("astropy.io.fits")
    out, words = tmp_path / "out", "--morphology disc --count 1 --format fits,npz --bin auto"
    observe.main(f"galaxies --checkpoint {checkpoint} --device cpu --survey COSMOS --out {out} {words}".split())
    sentence = "COSMOS pixels of 0.03 arcsec binned 4 x 4 to 0.12 arcsec: the galaxies' light has 0.1 arcsec pixels"
    assert sentence in capsys.readouterr().out
    said = json.loads((out / "observation.json").read_text())
    assert [said[name] for name in ("pixel_scale", "binning", "own_pixel_scale", "pixels", "binned")] == [
        *(0.12, 4, 0.03, 107),
        sentence,
    ]
    own = find_survey("COSMOS").bands[0]
    assert said["bands"][0]["sky_noise"] == pytest.approx(4 * own.sky_noise(0.03))
    assert (said["bands"][0]["psf_fwhm"], said["bands"][0]["photons"]) == (own.psf_fwhm, own.photon_variance)
    with fits.open(out / "images/galaxy_00000.fits") as units:
        header = units[0].header
        assert (header["BINAXIS1"], header["BINAXIS2"], header["PIXSCALE"], header["CDELT1"]) == (4, 4, 0.12, 0.12)
        assert sentence in " ".join(header["COMMENT"]) and units["PSF"].header["PIXSCALE"] == 0.12
        assert units[0].data.shape == (1, 107, 107)
    with np.load(out / "images.npz") as archive:
        assert float(archive["pixel_scale"]) == 0.12
    # What need not be binned is not, and says nothing of it.
    out = observed(checkpoint, tmp_path / "lsst", "--morphology disc --count 1 --format fits --bin auto")
    said = json.loads((out / "observation.json").read_text())
    assert said["pixel_scale"] == 0.2 and not {"binning", "binned", "own_pixel_scale"} & set(said)
    assert "BINAXIS1" not in fits.getheader(out / "images/galaxy_00000.fits")
    # Binned for another reason than the light.
    out = observed(checkpoint, tmp_path / "coarse", "--morphology disc --count 1 --format npz --bin 2")
    assert json.loads((out / "observation.json").read_text())["binned"] == (
        "LSST pixels of 0.2 arcsec binned 2 x 2 to 0.4 arcsec"
    )


def test_shards_of_observed_galaxies(tmp_path, checkpoint):
    words = "--morphology disc --count 5 --pixels 16"
    out = observed(checkpoint, tmp_path / "out", f"{words} --shard-size 3")
    shards = np.concatenate([np.load(out / f"images_0000{k}.npy") for k in range(2)])
    observed(checkpoint, tmp_path / "alone", f"{words} --format npz")
    with np.load(tmp_path / "alone/images.npz") as archive:
        assert np.array_equal(archive["images"], shards) and shards.shape == (5, 2, 16, 16)
    request = json.loads((out / "request.json").read_text())
    assert request["bands"] == ["r", "i"] and request["observation"]["survey"] == "LSST"
    with pytest.raises(UserError, match=r"another sampler, observation"):
        observed(checkpoint, out, f"{words} --shard-size 3 --exposure 30")


@pytest.mark.parametrize(
    ("settings", "words", "said"),
    [
        (
            {},
            "--survey COSMOS --bands f814w",
            r"pixels of 0.03 arcseconds, finer than the 0.1 of the light .*--bin auto",
        ),
        ({}, "--survey COSMOS --bands f814w --bin 3", r"pixels of 0.09 arcseconds, .*: add up 2 x 2 of them"),
        ({}, "--survey LSST --bands r --bin 100", "images of 1 pixels a side"),
        ({}, "--survey LSST --bands r --bin 0", "--bin: 0 must lie between 1 and 1000"),
        ({}, "--survey LSST --bands r --bin few", "--bin: "),
        ({}, "--survey LSST --bands u", "filter u sees"),
        ({}, "--survey LSST --bands r --exposure 0", "an exposure of 0 seconds in band r of LSST"),
        ({}, "--survey LSST --bands r --pixels 4", "4 must lie between 8 and 4096"),
        ({}, "--survey LSST --bands r --set size_arcsec=1 --requests x.csv", "--requests lists every image"),
        ({}, "--survey LSST --bands r --rgb g", "there is no band 'g': choose from r"),
        ({"telescope": "off"}, "--survey LSST --bands r", "it takes one that was trained on flux with --telescope on"),
        (
            {"generator": "residual"},
            "--survey LSST --bands r --position-angle 3",
            "position_angle is no request of this",
        ),
    ],
)
def test_what_cannot_be_observed_is_one_sentence(tmp_path, settings, words, said):
    path = write_flux_checkpoint(tmp_path / "latest.pt", **{**GRIZ, "generator": "frame", **settings})
    more = "" if "--requests" in words else "--morphology disc"
    with pytest.raises(UserError, match=said) as caught:
        observe.main(f"galaxies --checkpoint {path} {words} {more} --out {tmp_path / 'out'}".split())
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_frame_of_too_few_pixels_is_refused():
    survey = find_survey("LSST", ["r"])
    with pytest.raises(
        UserError, match=r"images of 4 pixels a side, for a frame of 12\.8 arcseconds and pixels of 3\.6"
    ):
        before(replace(survey, pixel_scale=3.6))
