"""Galaxies of flux: drawn in nanojansky, asked for by any attribute, measured, and written in every format."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import generate_from_checkpoint
import prepare_data
from galaxies.common.errors import UserError
from galaxies.datasets.conditions import condition_vector
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.catalogue import generate_blocks, write_pictures
from galaxies.generation.request_tables import read_requests
from galaxies.generation.requests import requests_alike, uniform_requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.composites import LuptonComposite
from galaxies.measure.flux import measure_flux
from galaxies.measure.flux_model import psf_width
from tests.conftest import flux_galaxies
from tests.generation.painted import ATTRIBUTES, BANDS, FLUX, NOISE, painting_sampler, write_flux_checkpoint

ASKED = torch.tensor([[19.0, 0.6, 1.0, 0.2], [20.5, 1.1, 0.6, 0.5], [18.5, 0.2, 1.6, 0.1]])


@pytest.fixture(scope="module")
def sampler() -> GalaxySampler:
    return painting_sampler()


@pytest.fixture(scope="module")
def drawn(sampler) -> torch.Tensor:
    return sampler.generate(torch.tensor([0, 1, 0]), ASKED, [4, 5, 6])


# Drawing


def test_what_networks_draw_becomes_nanojansky(sampler, drawn):
    assert drawn.dtype == torch.float32 and drawn.shape == (3, 4, 64, 64)
    condition = condition_vector(torch.tensor([0, 1, 0]), ASKED, sampler.config)[0]
    noise = sampler.family.noise(sampler.config, sampler.network, np.array([4, 5, 6]))
    stretched = sampler.network(noise, condition).double()
    softening = torch.tensor(sampler.config.softening).double()[:, None, None]
    wanted = softening * torch.sinh((stretched + 1) / 2 * math.asinh(1000))
    torch.testing.assert_close(drawn.double(), wanted, rtol=1e-5, atol=1e-3)
    total = 10 ** (-0.4 * (ASKED[:, 0] - 31.4))  # nJy: Oke & Gunn (1983)
    assert torch.allclose(drawn[:, 1].sum((1, 2)), total, rtol=0.03)


def test_nothing_is_clipped_in_flux(sampler, drawn):
    assert (drawn < 0).any() and drawn[2].max() > 50 * NOISE[0]
    bright = sampler.generate(torch.tensor([0]), torch.tensor([[12.0, 0.0, 0.4, 0.1]]), [1])
    assert bright.max() > 1000 * sampler.config.softening[1]  # above +1 of the stretch


def test_light_is_what_the_telescope_shows_whatever_the_blocks(tmp_path):
    sampler = GalaxySampler.from_checkpoint(write_flux_checkpoint(tmp_path / "a/latest.pt", oversampling=2), "cpu")
    classes, values, seeds = torch.arange(20) % 2, ASKED[:1].expand(20, -1), list(range(20))
    light = sampler.light(classes, values, seeds)
    assert light.shape == (20, 4, 128, 128) and light.min() >= 0
    assert sampler.light_pixel_scale == pytest.approx(sampler.config.pixel_scale / 2)
    sampler.blocks_ahead, sampler.block = 1, 8  # as on an accelerator
    assert torch.equal(sampler.light(classes, values, seeds), light)
    noise = sampler.family.noise(sampler.config, sampler.network, np.array(seeds[:1]))
    _, white, chosen = noise.split(sampler.network._parts, 1)
    seen = sampler.network.observed(light[:1], sampler.network.kept_exposure(chosen[:, 0]), white.view(1, 4, 64, 64))
    shown = sampler.generate(classes[:1], values[:1], seeds[:1])
    torch.testing.assert_close(shown, seen, rtol=1e-3, atol=1e-2)
    off = GalaxySampler.from_checkpoint(write_flux_checkpoint(tmp_path / "b/latest.pt", telescope="off"), "cpu")
    with pytest.raises(UserError, match="it takes one that was trained on flux with --telescope on"):
        off.light(classes, values, seeds)


def test_flux_does_not_depend_on_the_batch(sampler):
    count = 21
    classes, values, seeds = torch.arange(count) % 2, ASKED.repeat(7, 1), list(range(count))
    together = sampler.generate(classes, values, seeds)
    parts = [sampler.generate(classes[k : k + 4], values[k : k + 4], seeds[k : k + 4]) for k in range(0, count, 4)]
    assert torch.equal(together, torch.cat(parts))


@pytest.mark.parametrize("value", [30.0, math.nan])
def test_a_network_that_leaves_all_bounds_is_noticed(value):
    wild = painting_sampler()
    wild.network.forward = lambda noise, condition: torch.full((len(noise), 4, 64, 64), value)
    with pytest.raises(UserError, match="what the generator draws is not finite"):
        wild.generate(torch.tensor([0]), ASKED[:1], [0])


# Requests


def test_attributes_that_no_table_lists_are_asked_for(sampler):
    requests = requests_alike(
        "Early type", {"magnitude_r": 20.5, "color_g_r": "0.7"}, ATTRIBUTES, 3, 2, FLUX["classes"]
    )
    assert requests.classes.tolist() == [1, 1]
    assert requests.values[0, :2].tolist() == pytest.approx([20.5, 0.7]) and requests.values[0, 2:].isnan().all()
    completed = sampler.complete_all(requests.classes, requests.values, requests.seeds)
    assert completed.isfinite().all()
    low, high = np.array(FLUX["attribute_ranges"]).reshape(-1, 2).T
    assert ((completed >= torch.tensor(low)) & (completed <= torch.tensor(high))).all()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"size": 0.1}, "size is unknown to this checkpoint: it knows magnitude_r, color_g_r, size_arcsec, redshift"),
        ({"magnitude_z": 20}, "magnitude_z is unknown to this checkpoint"),
        ({"magnitude_r": 99}, "magnitude_r is '99': it takes a number from -5 to 45 mag"),
        ({"size_arcsec": "wide"}, "size_arcsec is 'wide': it takes a number from 0 to 3600 arcsec"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked, words):
    with pytest.raises(UserError, match=words):
        requests_alike("disc", asked, ATTRIBUTES, 0, 1, FLUX["classes"])


def test_classes_are_those_of_the_run(sampler):
    with pytest.raises(UserError, match="unknown morphology 'spiral': choose one of disc, early-type"):
        requests_alike("spiral", {}, ATTRIBUTES, 0, 1, FLUX["classes"])
    with pytest.raises(UserError, match=r"say which galaxies: --morphology disc\|early-type"):
        requests_alike(None, {}, ATTRIBUTES, 0, 1, FLUX["classes"])
    assert requests_alike(None, {}, ATTRIBUTES, 0, 1, ("galaxy",)).classes.tolist() == [0]
    with pytest.raises(UserError, match="unknown morphology '2'"):
        sampler.generate(torch.tensor([2]), ASKED[:1], [0])
    (sentence,) = sampler.unsupported(1, torch.tensor([30.0, math.nan, math.nan, math.nan]))
    assert sentence.startswith("magnitude_r 30 is outside the range 18") and "early-type galaxies" in sentence
    uniform = uniform_requests(sampler, 40, 0)
    assert uniform.classes.bincount().tolist() == [20, 20]


def test_tables_of_requests_have_any_attribute(tmp_path):
    file = tmp_path / "wanted.csv"
    file.write_text("Magnitude_r;seed;magnitude_Ks\n20.5;7;\n19;;18.25\n")
    names = ("magnitude_r", "magnitude_Ks")
    requests = read_requests(file, names, 100, ("galaxy",))
    assert requests.seeds == [7, 101] and requests.classes.tolist() == [0, 0]
    assert requests.values.nan_to_num(-1).tolist() == [[20.5, -1], [19, 18.25]]
    with pytest.raises(UserError, match="no column morphology"):
        read_requests(file, names, 0, ("disc", "early-type"))
    with pytest.raises(UserError, match="row 1: magnitude_ks is unknown to this checkpoint"):
        read_requests(file, names[:1], 0, ("galaxy",))
    file.write_text("magnitude_r\n20\n")
    with pytest.raises(UserError, match="may be magnitude_r or magnitude_R, which differ by capital letters alone"):
        read_requests(file, ("magnitude_r", "magnitude_R"), 0, ("galaxy",))


# Measured


def test_the_catalogue_measures_what_was_painted(sampler):
    count = 8
    requests = requests_alike("disc", {"magnitude_r": 19.0, "color_g_r": 0.5, "size_arcsec": 1.0}, ATTRIBUTES, 0, count,
                              FLUX["classes"])  # fmt: skip
    ((images, table),) = generate_blocks(sampler, requests)
    assert len(images) == len(table) == count and (table["morphology"] == "disc").all()
    assert (table["flag"] == 0).all() and (table["set_by_user"] == "magnitude_r color_g_r size_arcsec").all()
    truth = {"g": 19.5, "r": 19.0, "i": 18.5, "Ks": 18.0}
    for band, magnitude in truth.items():
        assert table[f"measured_magnitude_{band}"].median() == pytest.approx(magnitude, abs=0.05)
    assert table["measured_color_g_r"].median() == pytest.approx(0.5, abs=0.03)
    assert table["measured_size_arcsec"].median() == pytest.approx(1.0, rel=0.12)
    assert "measured_redshift" not in table and "measured_ellipticity" in table
    # One's own attributes come first, in their order.
    assert list(table.columns[:4]) == ["seed", "morphology", "requested_magnitude_r", "measured_magnitude_r"]


def test_the_magnitude_of_what_is_not_there_is_unknown(sampler):
    faint = sampler.measure(torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(0)) * 10)
    assert np.isnan(faint.values["magnitude_r"]).all()


# Files


@pytest.fixture(scope="module")
def written(sampler, tmp_path_factory):
    """A folder with all formats of four galaxies, their images and their catalogue."""
    out = tmp_path_factory.mktemp("written")
    requests = requests_alike("disc", {"magnitude_r": 19.0}, ATTRIBUTES, 10, 4, FLUX["classes"])
    ((images, table),) = generate_blocks(sampler, requests)
    sampler.origin = {
        "run": "painted",
        "step": "1",
        "source": "mock survey",
        "credit": "Ångström & ~Co., " + 30 * "long ",
    }
    sampler.psfs = torch.full((4, 5, 5), 1 / 25)
    write_pictures(out, {"png", "npz", "fits"}, images, table, sampler.attributes, (), sampler.pictures, sampler.facts)
    return out, images, pd.read_csv(out / "catalogue.csv")


@pytest.fixture
def units(written):
    fits = pytest.importorskip("astropy.io.fits")
    with fits.open(written[0] / "images/galaxy_00002.fits", checksum=True) as units:
        yield units


@pytest.mark.filterwarnings("error")
def test_fits_holds_the_array_and_stands_up_to_astropy(units, written):
    units.verify("exception")
    image = units[0].data
    assert image.dtype == np.dtype(">f4") and np.array_equal(image, written[1][2].numpy())
    np.testing.assert_array_equal(units["PSF"].data, np.full((4, 5, 5), 1 / 25, np.float32))
    for unit in units:
        assert unit.verify_checksum() == 1 and unit.verify_datasum() == 1


@pytest.mark.filterwarnings("error")
def test_fits_says_what_it_holds(units, written):
    header, row = units[0].header, written[2].iloc[2]
    assert (header["BUNIT"], header["MAGZERO"], header["MAGSYS"], header["BANDS"]) == ("nJy", 31.4, "AB", "g,r,i,Ks")
    assert [header[f"BAND{k}"] for k in (1, 2, 3, 4)] == list(BANDS)
    assert [header[f"NOISE{k}"] for k in (1, 2, 3, 4)] == list(NOISE)
    assert header["SYNTHETI"] is True and "synthetic" in header["OBJECT"]
    assert header["SEED"] == "12" and header["MORPHOL"] == "disc" and header["FLAG"] == row["flag"]
    numbers = {header[f"ATTR{k}"]: k for k in range(1, 20) if f"ATTR{k}" in header}
    assert list(numbers)[:4] == list(ATTRIBUTES)
    for name, number in numbers.items():
        for card, column in (("REQ", "requested"), ("MEAS", "measured")):
            value = row.get(f"{column}_{name}", math.nan)
            assert header.get(f"{card}{number}", math.nan) == pytest.approx(value, rel=1e-6, nan_ok=True)
    assert header[f"MEAS{numbers['magnitude_Ks']}"] > 0 and header.comments[f"ATTR{numbers['magnitude_r']}"] == "mag"
    assert (header["RUN"], header["TRAINED"]) == ("painted", "mock survey")
    assert header["CREDIT"] == "?ngstr?m & ~Co., " + (30 * "long ").strip()  # ASCII, as the standard demands


@pytest.mark.filterwarnings("error")
def test_world_coordinates_are_offsets_in_arcsec_and_no_place_on_the_sky(units):
    wcs = pytest.importorskip("astropy.wcs")
    world = wcs.WCS(units[0].header)
    assert not world.has_celestial
    scales = wcs.utils.proj_plane_pixel_scales(world.sub(2))
    assert scales * 3600 == pytest.approx([0.2, 0.2]) or scales == pytest.approx([0.2, 0.2])
    assert [str(unit) for unit in world.wcs.cunit][:2] == ["arcsec", "arcsec"]
    centre = world.wcs_pix2world([[31.5, 31.5, 1.0]], 0)[0]
    assert centre == pytest.approx([0.0, 0.0, 2.0])  # of the second band
    assert world.wcs_pix2world([[41.5, 31.5, 0.0]], 0)[0][0] == pytest.approx(2.0)


def test_magnitudes_of_a_file_by_photutils(units, written):
    aperture = pytest.importorskip("photutils.aperture")
    header = units[0].header
    names = {header[f"ATTR{k}"]: header.get(f"MEAS{k}") for k in range(1, 20) if f"ATTR{k}" in header}
    circle = aperture.CircularAperture((31.5, 31.5), 30.0)
    for plane, band in enumerate(BANDS[:3]):
        flux = aperture.aperture_photometry(units[0].data[plane].astype(float), circle)["aperture_sum"][0]
        assert header["MAGZERO"] - 2.5 * math.log10(flux) == pytest.approx(names[f"magnitude_{band}"], abs=0.06)


def test_the_program_reads_its_own_fits(units):
    from galaxies.images.flux_units import calibration, pixel_scale_of

    header = dict(units[0].header)
    assert calibration(header, "file").factor == 1.0
    assert pixel_scale_of(header) == pytest.approx(0.2)


def test_npz_holds_flux_and_says_its_bands(written):
    with np.load(written[0] / "images.npz") as archive:
        assert archive["images"].dtype == np.float32 and np.array_equal(archive["images"], written[1].numpy())
        assert archive["bands"].tolist() == list(BANDS) and archive["unit"] == "nJy" and archive["pixel_scale"] == 0.2
        assert archive["measured_magnitude_Ks"].shape == (4,)


def test_png_is_a_lupton_composite_with_the_first_row_below(written):
    picture = np.asarray(Image.open(written[0] / "images/galaxy_00001.png"))
    wanted = LuptonComposite(BANDS, NOISE)(written[1][1:2])[0].permute(1, 2, 0).numpy()
    assert np.array_equal(picture[::-1], wanted)


# The command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    psfs = torch.full((4, 3, 3), 1 / 9)
    return write_flux_checkpoint(tmp_path_factory.mktemp("run") / "flux/latest.pt", psfs)


def test_a_galaxy_is_measured_with_the_psf_whose_image_the_run_has(checkpoint):
    sampler = GalaxySampler.from_checkpoint(checkpoint, device="cpu")
    images = torch.from_numpy(flux_galaxies(3, BANDS)[0])
    # A square of three pixels is as sharp, 1/9, as the PSF of this width.
    width = psf_width(torch.full((1, 1, 3, 3), 1 / 9)).item() * sampler.config.pixel_scale
    expected = measure_flux(images, sampler.config.pixel_scale, psf_fwhm=torch.full((3, len(BANDS)), width))
    found = sampler.measure(images).values["size_arcsec"]
    np.testing.assert_allclose(found, expected.size_arcsec.numpy(), rtol=1e-4)


def command(checkpoint, out, *options):
    generate_from_checkpoint.main(["--checkpoint", str(checkpoint), "--device", "cpu", "--out", str(out), *options])


def test_command_writes_flux(checkpoint, tmp_path, capsys):
    fits = pytest.importorskip("astropy.io.fits")
    out = tmp_path / "out"
    options = ["--morphology", "disc", "--set", "magnitude_r=20.5", "--set", "color_g_r = -1e-1", "--redshift", "0.3"]
    command(checkpoint, out, *options, "--count", "2", "--format", "fits,png,npz", "--rgb", "Ks,i,g")
    table = pd.read_csv(out / "catalogue.csv")
    assert table["requested_magnitude_r"].tolist() == [20.5, 20.5] and set(table["requested_color_g_r"]) == {-0.1}
    assert (table["set_by_user"] == "magnitude_r color_g_r redshift").all()
    with fits.open(out / "images/galaxy_00001.fits") as units, np.load(out / "images.npz") as archive:
        assert np.array_equal(units[0].data, archive["images"][1]) and len(units) == 2
        header = units[0].header
        assert (header["RUN"], header["STEP"], header["FWHM1"], header["FWHM2"]) == ("flux", "7", 0.8, 0.7)
        assert "FWHM3" not in header  # unknown
        pixels = LuptonComposite(BANDS, NOISE, ("Ks", "i", "g"))(torch.from_numpy(archive["images"][1:]))
    picture = np.asarray(Image.open(out / "images/galaxy_00001.png"))
    assert np.array_equal(picture[::-1], pixels[0].permute(1, 2, 0).numpy())
    assert "2 galaxies in" in capsys.readouterr().out


def test_what_is_generated_is_read_back_as_data(tmp_path):
    pytest.importorskip("astropy")
    checkpoint = write_flux_checkpoint(tmp_path / "run/flux/latest.pt")  # which knows widths, and no images, of its PSF
    out = tmp_path / "out"
    command(checkpoint, out, "--morphology", "disc", "--set", "magnitude_r=20", "--count", "2", "--format", "fits,npz")
    options = ["--images", str(out / "images"), "--bands", ",".join(BANDS), "--out", str(tmp_path / "again")]
    prepare_data.main(["fits", *options])
    data = PreparedDataset.open(tmp_path / "again")
    assert [band.name for band in data.layout.bands] == list(BANDS)
    assert data.catalogue["pixel_scale"].to_list() == pytest.approx([0.2, 0.2])
    assert data.catalogue["psf_fwhm_g"].to_list() == [0.8, 0.8] and data.catalogue["psf_fwhm_r"].to_list() == [0.7, 0.7]
    with np.load(out / "images.npz") as archive:
        assert np.asarray(data.images) == pytest.approx(archive["images"], rel=1e-5, abs=1e-4)


def test_shards_of_flux_are_float32(checkpoint, tmp_path):
    out = tmp_path / "mock"
    options = ["--morphology", "disc", "--count", "5", "--shard-size", "3"]
    command(checkpoint, out, *options)
    parts = [np.load(out / f"images_0000{k}.npy", mmap_mode="r") for k in (0, 1)]
    assert [part.shape for part in parts] == [(3, 4, 64, 64), (2, 4, 64, 64)] and parts[0].dtype == np.dtype("<f4")
    command(checkpoint, tmp_path / "single", *options[:4], "--format", "npz")
    with np.load(tmp_path / "single/images.npz") as archive:
        assert np.array_equal(archive["images"], np.concatenate(parts))
    said = json.loads((out / "request.json").read_text())
    assert (said["unit"], said["bands"], said["pixel_scale"]) == ("nJy", list(BANDS), 0.2)
    before = (out / "images_00000.npy").stat().st_mtime_ns
    (out / "catalogue_00001.csv").unlink()
    command(checkpoint, out, *options)  # goes on, and leaves what is whole
    assert (out / "images_00000.npy").stat().st_mtime_ns == before and (out / "catalogue_00001.csv").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "0.1"], "size is unknown to this checkpoint: it knows magnitude_r"),
        (["--set", "size_arcsec"], "it takes an attribute and its value, such as magnitude_r=20.5"),
        (["--set", "magnitude=3"], "there is no attribute 'magnitude'"),
        (["--set", "magnitude_r=20", "--set", "magnitude_r=21"], "magnitude_r is there more than once"),
        (["--redshift", "0.1", "--set", "redshift=0.1"], "redshift is there more than once"),
        (["--rgb", "i,r,z"], "there is no band 'z': choose from g, r, i, Ks"),
        (["--rgb", "i,r"], "a picture takes three bands, as red, green and blue, or one"),
        (["--morphology", "spiral"], "unknown morphology 'spiral': choose one of disc, early-type"),
    ],
)
def test_command_refuses_in_one_sentence(checkpoint, tmp_path, options, words):
    named = [] if "--morphology" in options else ["--morphology", "disc"]
    with pytest.raises(UserError, match=words):
        command(checkpoint, tmp_path / "out", *named, *options)
    assert not (tmp_path / "out").exists()


def test_pictures_of_a_display_have_no_bands_to_choose(untrained, tmp_path):
    with pytest.raises(UserError, match="leave out --rgb"):
        command(untrained["gan"], tmp_path / "out", "--morphology", "spiral", "--rgb", "r,g,b")


def test_a_run_of_one_class_needs_no_morphology(tmp_path, checkpoint):
    one = write_flux_checkpoint(tmp_path / "one/latest.pt", classes=("galaxy",), bands=BANDS[:2],
                                softening=(20.0, 24.0), psf_fwhm=(0.0, 0.0))  # fmt: skip
    command(one, tmp_path / "out", "--count", "1")
    assert pd.read_csv(tmp_path / "out/catalogue.csv")["morphology"].tolist() == ["galaxy"]
    with pytest.raises(UserError, match=r"say which galaxies: --morphology disc\|early-type"):
        command(checkpoint, tmp_path / "other", "--count", "1")
