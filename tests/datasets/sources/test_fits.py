"""Cutouts of science images in the forms in which instruments and archives give them, from the command line.

Each file holds galaxies whose flux is known, so that what is prepared can be held against it.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import prepare_data
from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.datasets import flux_preparing
from galaxies.datasets.prepared import PreparedDataset

fits = pytest.importorskip("astropy.io.fits")
slow = pytest.mark.slow
SIDE = 64
AXIS = np.arange(SIDE) - (SIDE - 1) / 2
FLUX = {"g": 3000.0, "r": 6000.0, "z": 9000.0}  # nJy: 22.71, 21.95 and 21.51 mag
NOISE = 1.0  # nJy a pixel
SCALE = 0.25  # arcsec a pixel
NANOMAGGY = 10 ** (0.4 * (31.4 - 22.5))


def sky_header(scale=SCALE, **cards):
    step = scale / 3600
    header = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 32.5, "CRPIX2": 32.5}
    return fits.Header(header | {"CD1_1": -step, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": step} | cards)


def galaxy(seed, bands="grz", side=SIDE, width=3.0, noise=NOISE):
    """Return planes (B, S, S) in nJy of a round Gaussian galaxy and noise."""
    axis = np.arange(side) - (side - 1) / 2
    light = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * width**2))
    planes = np.stack([FLUX[band] * light / light.sum() for band in bands])
    return planes + np.random.default_rng(seed).normal(0, noise, planes.shape)


def write_cubes(folder, count=3, scale=1 / NANOMAGGY, dtype=">f4", **cards):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        unit = fits.PrimaryHDU((scale * galaxy(seed)).astype(dtype), sky_header(**{"BANDS": "grz", **cards}))
        unit.writeto(folder / f"cutout_{seed + 1}.fits")
    return folder


def table(path, **columns):
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


@pytest.fixture(autouse=True)
def without_structure(monkeypatch):
    """Leave out asymmetry, Gini and M20, which take most of the time and which no test here looks at."""
    measure = flux_preparing.measure_flux
    monkeypatch.setattr(flux_preparing, "measure_flux", lambda *a, **k: measure(*a, **k | {"structure": False}))


class Prepared:
    """What a command line prepared."""

    def __init__(self, out: Path) -> None:
        self.images = np.load(out / "images.npy")
        self.rows = pd.read_csv(out / "catalogue.csv", dtype={"object_id": str, "morphology": str})
        self.manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        self.psfs = np.load(out / "psfs.npy") if (out / "psfs.npy").exists() else None


def prepare(tmp_path, *options):
    out = tmp_path / "out"
    prepare_data.main(["fits", "--out", str(out), "--overwrite", *map(str, options)])
    return Prepared(out)


# Layouts


def test_cubes_whose_header_names_the_planes(tmp_path, capsys):
    made = prepare(tmp_path, "--images", write_cubes(tmp_path / "in"), "--zero-point", "22.5")
    said = capsys.readouterr().out
    assert "bands g, r, z, as cutout_1.fits says" in said and "headers" not in said
    assert made.manifest["kind"] == "flux" and made.manifest["classes"] == ["galaxy"]
    assert [band["name"] for band in made.manifest["bands"]] == ["g", "r", "z"]
    assert made.images.dtype == np.float32
    assert made.images == pytest.approx(np.stack([galaxy(seed) for seed in range(3)]), rel=1e-5, abs=1e-4)
    assert made.rows["object_id"].tolist() == ["1", "2", "3"]
    assert made.rows["pixel_scale"].to_numpy() == pytest.approx(SCALE)
    for band, flux in FLUX.items():
        # To 5 standard deviations of an aperture that holds all of the light.
        assert made.rows[f"magnitude_{band}"].to_numpy() == pytest.approx(31.4 - 2.5 * math.log10(flux), abs=0.05)
        assert made.rows[f"noise_{band}"].to_numpy() == pytest.approx(NOISE, rel=0.1)
    # The circle of half the light of a Gaussian has 1.1774 standard deviations.
    assert made.rows["size_arcsec"].to_numpy() == pytest.approx(1.1774 * 3 * SCALE, rel=0.04)
    assert made.rows["masked"].tolist() == [0, 0, 0]


def test_bands_are_found_by_name_and_not_by_place(tmp_path):
    folder = write_cubes(tmp_path / "in", 1)
    made = prepare(tmp_path, "--images", folder, "--zero-point", "22.5", "--bands", "z,g")
    assert made.images[0] == pytest.approx(galaxy(0)[[2, 0]], rel=1e-5, abs=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("{band}/galaxy_{n}.fits", marks=slow),
        pytest.param("{n}_{band}.fits.gz", marks=slow),
        "{n}-{band}.fits.fz",
    ],
)
def test_one_file_a_band(tmp_path, name):
    for n in (7, 8):
        for band, plane in zip("grz", galaxy(n), strict=True):
            file = tmp_path / "in" / name.format(n=n, band=band)
            file.parent.mkdir(parents=True, exist_ok=True)
            header = sky_header(BUNIT="uJy")
            if name.endswith("fz"):
                unit = fits.CompImageHDU(np.float32(plane / 1000), header, quantize_level=-1e-6)
                fits.HDUList([fits.PrimaryHDU(), unit]).writeto(file)
            else:
                fits.PrimaryHDU(plane / 1000, header).writeto(file)
    file = table(tmp_path / "t.csv", id=[8, 7, 9], z_spec=[0.5, "", 1], kind=["E", "Sb", "E"])
    columns = "object_id=id,redshift=z_spec,morphology=kind"
    made = prepare(tmp_path, "--images", tmp_path / "in", "--catalogue", file, "--columns", columns, "--bands", "g,r,z")
    assert made.images == pytest.approx(np.stack([galaxy(8), galaxy(7)]), abs=5e-3)
    assert made.rows["object_id"].tolist() == ["8", "7"]
    assert made.rows["morphology"].tolist() == ["E", "Sb"] and made.manifest["classes"] == ["E", "Sb"]
    assert made.rows["redshift"].fillna(-1).tolist() == [0.5, -1]
    assert made.manifest["rejected"] == {"missing": 1}


@pytest.mark.parametrize("by", ["number", pytest.param("name", marks=slow), pytest.param("order", marks=slow), "id"])
def test_an_extension_a_galaxy(tmp_path, by):
    units = [fits.PrimaryHDU()]
    units += [fits.ImageHDU(galaxy(n, "r")[0], name=f"gal{n}") for n in (4, 5, 6)]
    fits.HDUList(units).writeto(tmp_path / "all.fits")
    columns = {
        "number": {"H": [3, 1, 2]},
        "name": {"H": ["GAL6", "gal4", "gal5"]},
    }.get(by, {})
    names = {"order": ["a", "b", "c"], "id": ["gal6", "GAL4", "gal5"]}.get(by, ["c", "a", "b"])
    file = table(tmp_path / "t.csv", ID=names, **columns)
    options = ["--columns", "object_id=ID" + (",hdu=H" if columns else "")]
    options += ["--images", tmp_path / "all.fits", "--catalogue", file, "--bands", "r", "--zero-point", "31.4"]
    made = prepare(tmp_path, *options, "--pixel-scale", "0.25")
    wanted = {
        name: galaxy(n, "r") for n, *names in ((4, "a", "GAL4"), (5, "b", "gal5"), (6, "c", "gal6")) for name in names
    }
    assert made.rows["object_id"].tolist() == names
    assert made.images == pytest.approx(np.stack([wanted[name] for name in names]), rel=1e-5, abs=1e-4)


def test_extensions_of_bands_with_inverse_variances_and_psfs(tmp_path):
    """As the Legacy Surveys' cutout service gives them."""
    planes = galaxy(1, noise=2.0)
    variance = np.full((SIDE, SIDE), 2.0)
    variance[:, :5] = np.inf  # where nothing was seen
    units, maps = [fits.PrimaryHDU()], []
    for k, (band, plane) in enumerate(zip("grz", planes, strict=True)):
        weight = (NANOMAGGY / (variance + k)) ** 2
        for where, kind, data in ((units, "image", plane / NANOMAGGY), (maps, "invvar", weight)):
            where.append(fits.ImageHDU(data, sky_header(BAND=band, BUNIT="nanomaggy", IMAGETYP=kind)))
    units += maps[::-1]  # which belong to their images by band, whatever their order
    (tmp_path / "in").mkdir()
    fits.HDUList(units).writeto(tmp_path / "in" / "cutout_1.5_-30.fits")
    psf = np.stack([np.exp(-(AXIS[:, None] ** 2 + AXIS**2) / (2 * s**2))[16:49, 16:49] for s in (1.5, 2, 2.5)])
    parts = [fits.ImageHDU(2 * each, fits.Header({"BAND": band})) for each, band in zip(psf, "grz", strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *parts]).writeto(tmp_path / "in" / "copsf_1.5_-30.fits")
    made = prepare(tmp_path, "--images", tmp_path / "in")
    assert made.rows["object_id"].tolist() == ["1.5_-30"]
    assert made.images[0][:, :, 5:] == pytest.approx(planes[:, :, 5:], rel=1e-4, abs=1e-3)
    assert made.rows["masked"][0] == pytest.approx(5 / 64)
    assert made.rows[["noise_g", "noise_r", "noise_z"]].to_numpy()[0] == pytest.approx([2, 3, 4])
    assert made.psfs.shape == (1, 3, 33, 33) and made.psfs.sum((2, 3)) == pytest.approx(1, rel=1e-5)
    wanted = 2.3548 * SCALE * np.array([1.5, 2, 2.5])
    assert made.rows[["psf_fwhm_g", "psf_fwhm_r", "psf_fwhm_z"]].to_numpy()[0] == pytest.approx(wanted, rel=0.02)


def test_one_file_and_a_catalogue_of_many(tmp_path):
    """Of which one has been fetched so far."""
    file = table(tmp_path / "t.csv", object_id=[1, 2, 3])
    made = prepare(tmp_path, "--images", write_cubes(tmp_path / "in", 1, 1.0, BUNIT="nJy"), "--catalogue", file)
    assert made.rows["object_id"].tolist() == ["1"] and made.manifest["rejected"] == {"missing": 2}


def test_rows_of_one_picture_and_a_limit(tmp_path):
    folder = write_cubes(tmp_path / "in", 3, 1.0, BUNIT="nJy")
    file = table(tmp_path / "t.csv", object_id=[1, "cutout_1", 3, 2])
    made = prepare(tmp_path, "--images", folder, "--catalogue", file, "--limit", "2")
    assert made.manifest["rejected"] == {"picture of another row": 1}
    assert made.rows["object_id"].tolist() == ["1", "2"]


# Numbers


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=slow) for kind in (">f8", "<f4", "u2")), "i8", "scaled"])
def test_every_kind_of_number(tmp_path, kind):
    (tmp_path / "in").mkdir()
    hundredths = np.round(100 * galaxy(0, "r")[0]).clip(0)
    good = np.ones(hundredths.shape, bool)
    if kind == "scaled":
        unit = fits.PrimaryHDU(hundredths.copy())  # which is scaled in place
        unit.scale("int16", bscale=0.5, bzero=5000)
        unit.header["BLANK"] = -32768
        good[3, 7] = good[20:22, 40] = False
        unit.data[~good] = -32768
        unit.writeto(tmp_path / "in" / "a.fits")
    else:
        fits.PrimaryHDU(hundredths.astype(kind)).writeto(tmp_path / "in" / "a.fits")
    options = ["--bands", "r", "--zero-point", "36.4", "--pixel-scale", "0.25"]
    made = prepare(tmp_path, "--images", tmp_path / "in", *options)
    assert made.images[0, 0][good] == pytest.approx(hundredths[good] / 100, rel=1e-5, abs=1e-4)
    assert made.rows["masked"].fillna(0)[0] == pytest.approx((~good).mean())
    assert np.abs(made.images[0, 0][~good]).max(initial=0) < 80


@pytest.mark.parametrize(
    "kind",
    [
        "mask",
        "ivar",
        "hot",
        *(pytest.param(k, marks=slow) for k in ("goodmask", "bits", "weight", "variance", "error", "nan")),
    ],
)
def test_bad_pixels_and_noise_of_maps(tmp_path, kind):
    folder = tmp_path / "in"
    folder.mkdir()
    plane = galaxy(0, "r")[0]
    bad = np.zeros(plane.shape, bool)
    bad[30:33, 10:14] = bad[50] = True
    damaged = np.where(bad, 1e5, plane)
    header = sky_header(BUNIT="nJy")
    error = np.where(bad, 0, 3.0)
    with np.errstate(divide="ignore"):
        maps = {
            "mask": np.where(bad, 7, 0).astype("i4"),
            "goodmask": (~bad).astype("u1"),
            "bits": np.where(bad, 4, 2).astype("i2"),
            "weight": 500.0 * ~bad,
            "ivar": np.where(bad, 0, 1 / error**2),
            "variance": np.where(bad, np.nan, error**2),
            "error": error,
        }
    options = {"goodmask": ["--good-masks"], "bits": ["--bad-bits", "5"]}.get(kind, [])
    if kind in maps:
        name = {"goodmask": "mask", "bits": "DQ", "variance": "var", "error": "ERR", "weight": "WHT"}.get(kind, kind)
        units = [fits.PrimaryHDU(damaged, header), fits.ImageHDU(maps[kind], name=name)]
        fits.HDUList(units).writeto(folder / "a.fits")
    elif kind == "nan":
        fits.PrimaryHDU(np.where(bad, np.nan, plane), header).writeto(folder / "a.fits")
    else:
        bad = np.zeros_like(bad)
        bad[40, 40] = bad[9, 55] = True
        fits.PrimaryHDU(np.where(bad, 1e5, plane), header).writeto(folder / "a.fits")
    made = prepare(tmp_path, "--images", folder, "--bands", "r", *options)
    assert made.images[0, 0][~bad] == pytest.approx(plane[~bad], rel=1e-5, abs=1e-4)
    assert np.abs(made.images[0, 0][bad]).max() < 60
    assert made.rows["masked"][0] == pytest.approx(bad.mean())
    # Three times the noise there is, so that it is seen whose word counts.
    assert made.rows["noise_r"][0] == pytest.approx(3 if kind in ("ivar", "variance", "error") else NOISE, rel=0.1)


def test_maps_in_folders_of_their_own(tmp_path):
    plane = galaxy(0, "r")[0]
    for name, data in (("in", plane), ("masks", np.eye(SIDE, dtype="i2")), ("weights", np.full(plane.shape, 0.25))):
        (tmp_path / name).mkdir()
        fits.PrimaryHDU(data, sky_header(BUNIT="nJy")).writeto(tmp_path / name / "a_r.fits")
    beside = ["--masks", tmp_path / "masks", "--weights", tmp_path / "weights"]
    made = prepare(tmp_path, "--images", tmp_path / "in", "--bands", "r", *beside)
    assert made.rows["masked"][0] == pytest.approx(1 / SIDE)
    assert made.rows["noise_r"][0] == pytest.approx(2)


# Frames


def test_maps_that_are_missing_are_said(tmp_path, capsys):
    write_cubes(tmp_path / "in", 3)
    (tmp_path / "masks").mkdir()
    options = "--images", tmp_path / "in", "--masks", tmp_path / "masks", "--unit", "nJy"
    with pytest.raises(UserError, match=r"masks holds no map that is called as an image of .*in"):
        prepare(tmp_path, *options)
    name = sorted((tmp_path / "in").iterdir())[1].name
    fits.PrimaryHDU(np.zeros((SIDE, SIDE), "i2")).writeto(tmp_path / "elsewhere.fits")
    try:
        (tmp_path / "masks" / name).symlink_to(tmp_path / "elsewhere.fits")
    except OSError:  # Windows asks for a right to make links
        (tmp_path / "elsewhere.fits").rename(tmp_path / "masks" / name)
    prepare(tmp_path, *options)
    assert "2 images have no map in" in capsys.readouterr().out


def test_a_large_cutout_is_resampled_or_cropped(tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(3)
    axis = np.arange(150) - 74.5
    light = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 6.0**2))
    plane = 20_000 * light / light.sum() + rng.normal(0, 1, light.shape)
    # A map that says three times the noise there is: of the pixels as they are, it is believed.
    units = [fits.PrimaryHDU(plane, sky_header(0.1, BUNIT="nJy")), fits.ImageHDU(np.full(plane.shape, 3.0), name="ERR")]
    fits.HDUList(units).writeto(tmp_path / "in" / "a.fits")
    whole = ["--images", tmp_path / "in", "--bands", "r"]
    made = prepare(tmp_path, *whole)
    assert made.rows["pixel_scale"][0] == pytest.approx(0.1 * 150 / 64)
    assert made.images.sum() == pytest.approx(plane.sum(), rel=1e-6)
    assert made.rows["magnitude_r"][0] == pytest.approx(31.4 - 2.5 * math.log10(20_000), abs=0.02)
    # 150 / 64 pixels a side each way share out their noise: 2.34 less what neighbours share of it.
    drawn = made.images[0, 0][:12].std()
    assert made.rows["noise_r"][0] == pytest.approx(drawn, rel=0.1) and 1.6 < drawn < 2.34
    made = prepare(tmp_path, *whole, "--framing", "crop")
    assert made.images[0, 0] == pytest.approx(plane[43:107, 43:107], rel=1e-5, abs=1e-5)
    assert made.rows["noise_r"][0] == pytest.approx(3)
    assert made.rows["pixel_scale"][0] == pytest.approx(0.1)
    made = prepare(tmp_path, *whole, "--scale", "0.2")
    assert made.rows["pixel_scale"][0] == pytest.approx(0.2)
    inner = plane[11:139, 11:139].reshape(64, 2, 64, 2).sum((1, 3))
    assert made.images[0, 0] == pytest.approx(inner, rel=1e-5, abs=1e-4)


def test_a_small_cutout_is_put_amid_sky(tmp_path):
    (tmp_path / "in").mkdir()
    plane = galaxy(0, "r", side=40)[0]
    fits.PrimaryHDU(plane, sky_header(BUNIT="nJy")).writeto(tmp_path / "in" / "a.fits")
    made = prepare(tmp_path, "--images", tmp_path / "in", "--bands", "r")
    assert made.images[0, 0, 12:52, 12:52] == pytest.approx(plane, rel=1e-5, abs=1e-4)
    assert made.rows["pixel_scale"][0] == pytest.approx(SCALE)
    assert made.rows["masked"][0] == pytest.approx(1 - 40**2 / 64**2)
    assert made.images[0, 0, :8].std() == pytest.approx(NOISE, rel=0.15)
    assert made.rows["magnitude_r"][0] == pytest.approx(31.4 - 2.5 * math.log10(FLUX["r"]), abs=0.05)
    assert made.rows["flag"][0] == 0


def test_bands_of_other_pixels_come_to_one_frame(tmp_path, capsys):
    """As those of NIRCam's two channels, or of Euclid's two instruments."""
    for band, side, scale, width in (("g", 120, 0.1, 6.0), ("r", 60, 0.2, 3.0)):
        file = tmp_path / "in" / band / "1.fits"
        file.parent.mkdir(parents=True)
        header = sky_header(scale, BUNIT="nJy", CRPIX1=(side + 1) / 2, CRPIX2=(side + 1) / 2)
        fits.PrimaryHDU(galaxy(0, band, side, width)[0], header).writeto(file)
    made = prepare(tmp_path, "--images", tmp_path / "in", "--bands", "g,r")
    assert "bands have pixels of different sizes, brought to 0.2 arcsec" in capsys.readouterr().out
    assert made.rows["pixel_scale"][0] == pytest.approx(0.2)
    for band in "gr":
        assert made.rows[f"magnitude_{band}"][0] == pytest.approx(31.4 - 2.5 * math.log10(FLUX[band]), abs=0.05)


def test_a_psf_of_another_pixel_scale(tmp_path, capsys):
    folder = write_cubes(tmp_path / "in", 1, 1.0, BUNIT="nJy")
    psf = np.exp(-(AXIS[:, None] ** 2 + AXIS**2) / (2 * 5.0**2))
    fits.PrimaryHDU(psf[9:56, 9:56], sky_header(SCALE / 2)).writeto(tmp_path / "psf.fits")
    cube = np.stack([psf] * 3)
    fits.PrimaryHDU(cube, sky_header(SCALE / 2, BANDS="grz")).writeto(tmp_path / "psfs.fits")
    made = prepare(tmp_path, "--images", folder, "--psf", tmp_path / "psfs.fits")
    assert "whose PSF has pixels of another size" in capsys.readouterr().out
    assert made.rows["psf_fwhm_r"][0] == pytest.approx(2.3548 * 5 * SCALE / 2, rel=0.02)
    spread = np.sqrt((made.psfs[0, 0].sum(0) * (np.arange(made.psfs.shape[-1]) - made.psfs.shape[-1] // 2) ** 2).sum())
    assert spread == pytest.approx(2.5, rel=0.04)
    made = prepare(tmp_path, "--images", folder, "--psf", tmp_path / "psfs.fits", "--psf-scale", SCALE)
    assert made.rows["psf_fwhm_r"][0] == pytest.approx(2.3548 * 5 * SCALE, rel=0.02)
    made = prepare(tmp_path, "--images", folder, "--psf-fwhm", "0.8,0.7,0.6")
    assert made.rows[["psf_fwhm_g", "psf_fwhm_r", "psf_fwhm_z"]].to_numpy()[0].tolist() == [0.8, 0.7, 0.6]
    with pytest.raises(UserError, match=r"psf.fits .*\bg, r, z\b"):
        prepare(tmp_path, "--images", folder, "--psf", tmp_path / "psf.fits")


# Sky


@pytest.mark.parametrize("level", [400.0, pytest.param(-30.0, marks=slow), pytest.param(0.3, marks=slow)])
def test_a_sky_that_was_left_in(tmp_path, capsys, level):
    (tmp_path / "in").mkdir()
    for n in range(3):
        planes = galaxy(n, "gr") + np.array([level, 0])[:, None, None]
        fits.PrimaryHDU(planes, sky_header(BANDS="gr", BUNIT="nJy")).writeto(tmp_path / "in" / f"{n}.fits")
    made = prepare(tmp_path, "--images", tmp_path / "in")
    said = capsys.readouterr().out
    truth = np.stack([galaxy(n, "gr") for n in range(3)])
    assert made.images[:, 1] == pytest.approx(truth[:, 1], rel=1e-5, abs=1e-4)
    if level == 0.3:  # a third of the noise is nothing that could be told from a galaxy's wings
        assert "sky was left in" not in said
        assert made.images[:, 0] == pytest.approx(truth[:, 0] + level, rel=1e-5, abs=1e-4)
    else:
        assert "the sky was left in, or too much taken off, in band g:" in said
        assert np.median(made.images[:, 0] - truth[:, 0], (1, 2)) == pytest.approx(0, abs=0.1)
        kept = prepare(tmp_path, "--images", tmp_path / "in", "--sky", "keep")
        assert kept.images[:, 0] == pytest.approx(truth[:, 0] + level, rel=1e-5, abs=1e-3)


def test_a_galaxy_that_fills_its_frame_is_no_sky(tmp_path, capsys):
    axis = np.arange(SIDE) - 31.5
    light = 1400 * np.exp(-np.hypot(axis[:, None], axis) / 11)  # 58 in the border's median, 37 in its corners
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).normal(0, 10, light.shape)
    fits.PrimaryHDU(light + noise, sky_header(BUNIT="nJy")).writeto(tmp_path / "in" / "a.fits")
    made = prepare(tmp_path, "--images", tmp_path / "in", "--bands", "r")
    assert "sky" not in capsys.readouterr().out
    assert made.images[0, 0] == pytest.approx(light + noise, rel=1e-5, abs=1e-3)


# Units


def test_headers_say_the_unit(tmp_path, capsys):
    """A Hubble image in electrons a second, and one of JWST in MJy/sr."""
    folder = tmp_path / "in"
    folder.mkdir()
    planes = galaxy(0, "gr")
    flam, pivot = 7.0723e-20, 8045.0
    electron = flam * pivot**2 / 2.99792458e18 * 1e32
    cards = {"BUNIT": "ELECTRONS/S", "PHOTFLAM": flam, "PHOTPLAM": pivot, "FILTER1": "CLEAR1L", "FILTER2": "F814W"}
    fits.PrimaryHDU(planes[0] / electron, sky_header(**cards)).writeto(folder / "1_F814W.fits")
    area = (SCALE / 206264.806) ** 2
    unit = fits.ImageHDU(planes[1] / (area * 1e15), sky_header(BUNIT="MJy/sr", FILTER="F200W"), name="SCI")
    more = [fits.ImageHDU(np.full((SIDE, SIDE), n), name=name) for n, name in ((9.0, "CON"), (1e9, "WHT"))]
    fits.HDUList([fits.PrimaryHDU(), unit, *more]).writeto(folder / "1_F200W.fits")
    made = prepare(tmp_path, "--images", folder, "--bands", "F814W,F200W")
    assert made.images[0] == pytest.approx(planes, rel=1e-4, abs=1e-3)
    said = capsys.readouterr().out
    assert "band F814W by PHOTFLAM and PHOTPLAM" in said and "band F200W by BUNIT 'MJy/sr'" in said
    assert [band["wavelength_nm"] for band in made.manifest["bands"]] == [814, 2000]


def test_what_options_say_against_the_header_is_said(tmp_path, capsys):
    folder = write_cubes(tmp_path / "in", 2, 1.0, BUNIT="uJy")
    made = prepare(tmp_path, "--images", folder, "--unit", "nJy", "--pixel-scale", "0.5")
    said = capsys.readouterr().out
    assert "2 galaxies whose headers say another pixel scale, such as 0.25, than 0.5" in said
    assert "2 galaxies whose headers say another flux, by BUNIT 'uJy', than --unit nJy as given" in said
    assert made.rows["pixel_scale"].tolist() == [0.5, 0.5]
    assert made.images[0] == pytest.approx(galaxy(0), rel=1e-5, abs=1e-4)


def test_cutouts_that_were_interpolated_without_dividing_the_flux(tmp_path, capsys):
    """The Legacy Surveys' service gives any pixel scale, and values as of pixels of 0.262 arcsec."""
    folder = write_cubes(tmp_path / "in", 1, 1.0, BUNIT="nJy", SURVEY="DECaLS", IMAGEW=64.0)
    assert prepare(tmp_path, "--images", folder).images[0] == pytest.approx(galaxy(0), rel=1e-5, abs=1e-4)
    assert "--flux-pixel 0.262 corrects" in capsys.readouterr().out
    made = prepare(tmp_path, "--images", folder, "--flux-pixel", "0.262")
    assert made.images[0] == pytest.approx(galaxy(0) * (0.25 / 0.262) ** 2, rel=1e-5, abs=1e-4)


# Catalogues


@pytest.mark.parametrize("form", [pytest.param("csv", marks=slow), "fits", pytest.param("vot", marks=slow), "parquet"])
def test_catalogues_of_any_kind(tmp_path, form):
    astropy_table = pytest.importorskip("astropy.table")
    folder = write_cubes(tmp_path / "in", 2, 1.0, BUNIT="nJy")
    columns = {"ID": np.array([2, 1]), "Z_Best": [0.25, 0.75], "Type": ["disk", "bulge"], "n_sersic": [1.0, 4.0]}
    columns |= {"Inclination": [90.0, -99.0]}
    file = tmp_path / f"t.{form}"
    if form == "parquet":
        pytest.importorskip("pyarrow")
        pd.DataFrame(columns).to_parquet(file)
    elif form == "csv":
        pd.DataFrame(columns).to_csv(file, index=False)
    else:
        astropy_table.Table(columns).write(file, format={"fits": "fits", "vot": "votable"}[form])
    names = "object_id=id,redshift=z_best,morphology=TYPE,sersic=n_sersic"
    made = prepare(tmp_path, "--images", folder, "--catalogue", file, "--columns", names)
    assert made.rows["object_id"].tolist() == ["2", "1"]
    assert made.rows["redshift"].tolist() == [0.25, 0.75]
    assert made.rows["morphology"].tolist() == ["disk", "bulge"]
    assert made.rows["sersic"].tolist() == [1, 4]
    assert made.rows["inclination"].fillna(-1).tolist() == [90, -1]
    assert made.manifest["units"]["inclination"] == "deg"
    # 3.910 and 7.338 kpc an arcsecond at these redshifts, for H0 = 70 km/s/Mpc and a matter density of 0.3 (astropy).
    scale = made.rows["size_kpc"] / made.rows["size_arcsec"]
    assert scale.to_numpy() == pytest.approx([3.910, 7.338], rel=1e-3)
    assert made.manifest["classes"] == ["bulge", "disk"]
    assert made.images[0] == pytest.approx(galaxy(1), rel=1e-5, abs=1e-4)


def test_a_second_catalogue_adds_columns(tmp_path, capsys):
    folder = write_cubes(tmp_path / "in", 3, 1.0, BUNIT="nJy")
    first = table(tmp_path / "a.csv", ID=[1, 2, 3], noise=[5, 6, 7])
    second = table(tmp_path / "b.csv", id=[3, 1], zphot=[0.3, 0.1], kind=["spiral", "Elliptical"])
    names = "object_id=ID,redshift=zphot,morphology=kind"
    made = prepare(tmp_path, "--images", folder, "--catalogue", first, second, "--columns", names)
    assert "1 of 3 galaxies are not in" in capsys.readouterr().out
    assert made.rows["object_id"].tolist() == ["1", "3"]
    assert made.rows["redshift"].tolist() == [0.1, 0.3]
    assert made.rows["noise_g"].tolist() == [5, 7]
    # The program's own classes are called as it calls them.
    assert made.rows["morphology"].tolist() == ["elliptical", "spiral"]
    assert made.manifest["classes"] == ["spiral", "elliptical"] and made.manifest["unused"] == 1


def test_rules_make_classes_of_the_columns_of_all_tables(tmp_path, capsys):
    folder = write_cubes(tmp_path / "in", 4, 1.0, BUNIT="nJy")
    first = table(tmp_path / "a.csv", ID=[1, 2, 3, 4], T=["E", "Sa", "Sb", "x"], noise=[5, 6, 7, 8])
    second = table(tmp_path / "b.csv", id=[3, 1, 4], zphot=[0.3, 0.1, 0.2])
    (tmp_path / "c.toml").write_text(
        '[[class]]\nname = "far"\nlabel = "Far away"\nwhere = "redshift > 0.25"\n'
        "[[class]]\nname = \"late\"\nwhere = \"t in ('Sa', 'Sb')\"\n"
        '[[class]]\nname = "near"\nwhere = "t == \\"E\\" and zphot < 0.15"\n'
    )
    options = ("--catalogue", first, second, "--columns", "object_id=ID,redshift=zphot")
    made = prepare(tmp_path, "--images", folder, *options, "--classes", str(tmp_path / "c.toml"))
    assert made.rows["object_id"].tolist() == ["1", "2", "3"]
    assert made.rows["morphology"].tolist() == ["near", "late", "far"]  # of 2 the redshift is unknown
    assert made.manifest["classes"] == ["far", "late", "near"] and made.manifest["unused"] == 1
    assert made.manifest["class_labels"] == {"far": "Far away"}
    assert made.manifest["rule"] == str(tmp_path / "c.toml")
    assert f"1 of the 4 galaxies of {first} are of no class" in capsys.readouterr().out
    with pytest.raises(UserError, match="--classes makes classes of a table's columns: give it with --catalogue"):
        prepare(tmp_path, "--images", folder, "--classes", str(tmp_path / "c.toml"), "--overwrite")
    (tmp_path / "c.toml").write_text('[[class]]\nname = "a"\nwhere = "redshfit > 0"\n')
    with pytest.raises(UserError, match=r"c\.toml, line 3, column 10: there is no column 'redshfit' in .*; near"):
        prepare(tmp_path, "--images", folder, *options, "--classes", str(tmp_path / "c.toml"), "--overwrite")


# Bad input


def test_what_cannot_be_used_is_counted_and_named(tmp_path, capsys):
    folder = write_cubes(tmp_path / "in", 3, 1.0, BUNIT="nJy")
    whole = (folder / "cutout_1.fits").read_bytes()
    (folder / "cut.fits").write_bytes(whole[: len(whole) // 2])
    (folder / "packed.fits.gz").write_bytes(gzip.compress(whole)[:-2000])
    (folder / "card.fits").write_bytes(whole.replace(b"CRPIX1  = ", b"CRPIX1  =!"))  # which no one needs
    (folder / "page.fits").write_text("<html>busy</html>", encoding="utf-8")
    (folder / "empty.fits").touch()
    header = sky_header(BANDS="grz", BUNIT="nJy")
    empty = galaxy(9)
    empty[1] = np.nan
    fits.PrimaryHDU(empty, header).writeto(folder / "holes.fits")
    fits.PrimaryHDU(galaxy(9)[:2], sky_header(BANDS="gr", BUNIT="nJy")).writeto(folder / "two.fits")
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([])]).writeto(folder / "table.fits")
    fits.PrimaryHDU(np.zeros((3, SIDE, SIDE)), header).writeto(folder / "zeros.fits")
    masked = [fits.PrimaryHDU(galaxy(9), header), fits.ImageHDU(np.ones((SIDE, SIDE), "i2"), name="MASK")]
    fits.HDUList(masked).writeto(folder / "masked.fits")
    other = [fits.PrimaryHDU(galaxy(9), header), fits.ImageHDU(np.ones((9, 9)), name="IVAR")]
    fits.HDUList(other).writeto(folder / "other.fits")
    made = prepare(tmp_path, "--images", folder)
    assert sorted(made.rows["object_id"]) == ["1", "2", "3", "card"]
    assert made.manifest["rejected"] == {
        "corrupt or truncated": 2,
        "no FITS file": 2,
        "too few pixels with a value": 2,
        "bands missing": 1,
        "no image of the sky": 1,
        "map of another size": 1,
        "blank": 1,
    }
    details = {entry["name"]: entry["detail"] for entry in made.manifest["rejected_files"]}
    assert "cut.fits is damaged or cut short" in details["cut"]
    assert "it is a web page" in details["page"]
    assert "100 % of a band's pixels" in details["holes"] and "100 %" in details["masked"]
    assert "z cannot be told" in details["two"]
    assert "9 x 9 pixels, and its image has 64 x 64" in details["other"]
    assert "2 corrupt or truncated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cards", "options", "said"),
    [
        ({}, [], "--zero-point, or the unit with --unit"),
        ({"BUNIT": "nJy", "BANDS": ""}, [], "name them with --bands"),
        ({"BUNIT": "nJy"}, ["--bands", "u,g,r,i"], "u, i cannot be told"),
        ({"BUNIT": "nJy"}, ["--zero-point", "1,2"], "--zero-point has 2 values"),
        ({"BUNIT": "nJy", "CTYPE1": "LINEAR"}, [], "--pixel-scale"),
        ({"BUNIT": "nJy"}, ["--columns", "redshift=z"], "give it with --catalogue"),
    ],
)
def test_an_open_question_is_one_sentence(tmp_path, cards, options, said):
    with pytest.raises(UserError, match=said):
        prepare(tmp_path, "--images", write_cubes(tmp_path / "in", 1, 1.0, **cards), *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"id": ["x", "y"]}, ["--columns", "object_id=id"], "no galaxy of .* has a file .*'x', 'y'.*object_id=NAME"),
        ({"id": [1, 2]}, [], r"has no column object_id: it has id; say .*--columns object_id=NAME"),
        ({"object_id": [1, 1]}, [], "object id '1' in row 3 .* occurs before"),
        (
            {"object_id": [1, 2]},
            ["--columns", "redshift=zz"],
            r"no column zz is there.*--columns redshift=zz.*object_id",
        ),
        ({"object_id": [1, 2], "a": [1, 2]}, ["--columns", "ellipticity=a"], "ellipticity is measured on the images"),
        ({"object_id": [1, 2], "redshift": ["a", "b"]}, [], "redshift .*'a'.*no number"),
    ],
)
def test_a_catalogue_that_leaves_a_question(tmp_path, columns, options, said):
    folder = write_cubes(tmp_path / "in", 2, 1.0, BUNIT="nJy")
    with pytest.raises(UserError, match=said):
        prepare(tmp_path, "--images", folder, "--catalogue", table(tmp_path / "t.csv", **columns), *options)


def test_bands_of_other_sizes(tmp_path):
    for band, side in (("g", 64), ("r", 50)):
        (tmp_path / "in").mkdir(exist_ok=True)
        fits.PrimaryHDU(galaxy(0, band, side)[0], sky_header(BUNIT="nJy")).writeto(tmp_path / "in" / f"1_{band}.fits")
    with pytest.raises(UserError, match=r"bands of different sizes.*g 16, r 12.5 arcsec a side"):
        prepare(tmp_path, "--images", tmp_path / "in", "--bands", "g,r")


def test_cubes_that_are_called_as_bands(tmp_path):
    for band in "grz":
        (tmp_path / "in").mkdir(exist_ok=True)
        fits.PrimaryHDU(galaxy(0), sky_header(BANDS="grz", BUNIT="nJy")).writeto(
            tmp_path / "in" / f"example_{band}.fits"
        )
    with pytest.raises(UserError, match=r"example_g.fits is of band g by its name, and holds several"):
        prepare(tmp_path, "--images", tmp_path / "in", "--bands", "g,r,z")


# Against GalSim


def test_flux_size_and_psf_of_a_drawn_galaxy(tmp_path):
    """A Sérsic galaxy of known flux, seen through a known PSF, at a signal-to-noise ratio of a few hundred."""
    galsim = pytest.importorskip("galsim")
    psf = galsim.Moffat(beta=4.765, fwhm=0.8)  # of turbulent air (Trujillo et al. 2001)
    disc = galsim.Sersic(1, half_light_radius=1.2, flux=20_000)
    seen = galsim.Convolve(disc, psf).drawImage(nx=SIDE, ny=SIDE, scale=0.2).array
    seen = seen + np.random.default_rng(1).normal(0, 2, seen.shape)
    (tmp_path / "in").mkdir()
    unit = fits.PrimaryHDU(seen.astype(">f4") / 1000, sky_header(0.2, BUNIT="uJy", FILTER="r"))
    kernel = fits.ImageHDU(psf.drawImage(nx=41, ny=41, scale=0.2, method="no_pixel").array, name="PSF")
    fits.HDUList([unit, kernel]).writeto(tmp_path / "in" / "a.fits")
    made = prepare(tmp_path, "--images", tmp_path / "in")
    row = made.rows.iloc[0]
    assert row["magnitude_r"] == pytest.approx(31.4 - 2.5 * math.log10(20_000), abs=0.05)
    assert row["size_arcsec"] == pytest.approx(1.2, rel=0.1)
    assert row["psf_fwhm_r"] == pytest.approx(0.8, rel=0.03)
    assert row["noise_r"] == pytest.approx(2, rel=0.08)


# As instruments give them


def test_a_mask_of_the_lsst_pipelines_marks_sources_too(tmp_path):
    """MASK has a bit for detected pixels, which are not bad; FLUXMAG0 is the value of magnitude 0."""
    plane = galaxy(0, "r")[0]
    mask = np.zeros(plane.shape, "i4")
    mask[20:44, 20:44] |= 1 << 5
    mask[5, 5] |= 1
    planes = {"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_DETECTED": 5, "HIERARCH MP_DETECTED_NEGATIVE": 6}
    value = 10 ** (0.4 * (31.4 - 27))
    units = [
        fits.PrimaryHDU(header=fits.Header({"FLUXMAG0": 63095734448.0194, "FILTER": "HSC-I2"})),
        fits.ImageHDU(plane / value, sky_header(), name="IMAGE"),
        fits.ImageHDU(mask, fits.Header(planes), name="MASK"),
        fits.ImageHDU(np.full(plane.shape, 4 / value**2), name="VARIANCE"),
    ]
    (tmp_path / "in").mkdir()
    fits.HDUList(units).writeto(tmp_path / "in" / "a.fits")
    made = prepare(tmp_path, "--images", tmp_path / "in")
    assert [band["name"] for band in made.manifest["bands"]] == ["I2"]
    assert made.rows["masked"][0] == pytest.approx(1 / SIDE**2)
    assert made.images[0, 0, 20:44, 20:44] == pytest.approx(plane[20:44, 20:44], rel=1e-5, abs=1e-4)
    assert made.rows["noise_I2"][0] == pytest.approx(2)


def test_errors_belong_to_the_image_of_their_version_and_the_psf_to_its_comment(tmp_path):
    """As drizzled images of Hubble have SCI and ERR with EXTVER 1, 2; widths in pixels, by the card's comment."""
    planes = galaxy(1, "gr")
    units = [fits.PrimaryHDU()]
    for version, (plane, band) in enumerate(zip(planes, ("F606W", "F814W"), strict=True), 1):
        header = sky_header(BUNIT="nJy", FILTER=band, EXTVER=version)
        header["FWHM"] = (3.0 + version, "[pixel] of stars" if version == 1 else "of stars")
        units.append(fits.ImageHDU(plane, header, name="SCI"))
    for version in (2, 1):
        header = fits.Header({"EXTVER": version})
        units.append(fits.ImageHDU(np.full((SIDE, SIDE), 3.0 * version), header, name="ERR"))
    (tmp_path / "in").mkdir()
    fits.HDUList(units).writeto(tmp_path / "in" / "a.fits")
    made = prepare(tmp_path, "--images", tmp_path / "in", "--bands", "F814W,F606W")
    assert made.images[0] == pytest.approx(planes[::-1], rel=1e-5, abs=1e-4)
    assert made.rows["noise_F814W"][0] == pytest.approx(6) and made.rows["noise_F606W"][0] == pytest.approx(3)
    assert made.rows["psf_fwhm_F606W"][0] == pytest.approx(4 * SCALE)
    assert "psf_fwhm_F814W" not in made.rows or np.isnan(made.rows["psf_fwhm_F814W"][0])


def test_each_plane_of_a_cube_may_have_a_width_of_its_own(tmp_path):
    cubes = write_cubes(tmp_path / "in", 1, 1.0, BUNIT="nJy")
    for number, (width, comment) in enumerate([(0.9, "arcsec"), (3.0, "pixel"), (7.0, "of stars")], 1):
        fits.setval(cubes / "cutout_1.fits", f"FWHM{number}", value=width, comment=comment)
    made = prepare(tmp_path, "--images", tmp_path / "in", "--bands", "z,r,g")
    assert made.rows["psf_fwhm_g"][0] == pytest.approx(0.9)
    assert made.rows["psf_fwhm_r"][0] == pytest.approx(3 * SCALE)
    assert "psf_fwhm_z" not in made.rows or np.isnan(made.rows["psf_fwhm_z"][0])
    # What a primary header numbers are no planes of an image in an extension.
    units = [fits.PrimaryHDU(header=fits.Header([("FWHM1", 5.0, "arcsec")]))]
    units += [fits.ImageHDU(galaxy(1, band)[0], sky_header(BUNIT="nJy"), name=band) for band in "gr"]
    (tmp_path / "other").mkdir()
    fits.HDUList(units).writeto(tmp_path / "other" / "a.fits")
    made = prepare(tmp_path, "--images", tmp_path / "other", "--bands", "g,r")
    assert "psf_fwhm_g" not in made.rows or np.isnan(made.rows["psf_fwhm_g"][0])


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ({"CD1_1": 0.0, "CD1_2": 0.25 / 3600, "CD2_1": 0.25 / 3600, "CD2_2": 0.0}, "bands g and r are turned"),
        ({"CRPIX1": 40.0}, r"middles of its bands g and r lie 1\.8[78] arcsec apart"),
        ({"CRVAL1": 0.0, "CRVAL2": 0.002}, r"lie 7\.2 arcsec apart"),
    ],
)
def test_bands_that_lie_otherwise_on_the_sky(tmp_path, cards, said):
    (tmp_path / "in").mkdir()
    for band, more in (("g", {"CRVAL1": 359.9999999, "CRVAL2": 0.0}), ("r", {"CRVAL1": 0.0, "CRVAL2": 0.0} | cards)):
        header = sky_header(BUNIT="nJy", **more)
        fits.PrimaryHDU(galaxy(0, band)[0], header).writeto(tmp_path / "in" / f"1_{band}.fits")
    with pytest.raises(UserError, match=said):
        prepare(tmp_path, "--images", tmp_path / "in", "--bands", "g,r")


def test_columns_of_the_user_become_attributes(tmp_path):
    folder = write_cubes(tmp_path / "in", 4)
    file = table(tmp_path / "t.csv", object_id=range(1, 5), H_ALPHA_EQW=[-1.5, 3, 40, ""], other=range(4))
    other = table(tmp_path / "u.csv", object_id=[3, 2, 1], sfr=[1, 10, 0.5])
    tables = ["--images", folder, "--zero-point", 22.5, "--catalogue", file, other]
    named = ["--attribute", "halpha_ew:column=H_ALPHA_EQW,unit=Angstrom,scale=asinh", "--attribute", "sfr:scale=log"]
    files = [f"cutout_{k}" for k in range(1, 5)]
    file.write_text(file.read_text().replace("object_id", "number"))
    pd.read_csv(file).assign(image=files, object_id=range(1, 5)).to_csv(file, index=False)
    made = prepare(tmp_path, *tables, *named)
    assert made.rows["halpha_ew"].tolist()[:3] == [-1.5, 3, 40] and np.isnan(made.rows["halpha_ew"][3])
    assert made.rows["sfr"].tolist()[:3] == [0.5, 10, 1] and "other" not in made.rows
    ew, sfr = made.manifest["own_attributes"]
    assert (ew["unit"], ew["scale"], sfr["scale"]) == ("Angstrom", "asinh", "log")
    assert made.manifest["units"]["halpha_ew"] == "Angstrom"
    data = PreparedDataset.open(tmp_path / "out")
    settings = data.settings(("halpha_ew", "sfr"))
    assert settings["attribute_ranges"] == (ew["low"], ew["high"], sfr["low"], sfr["high"])
    assert [row.scale for row in Config(attributes=("halpha_ew", "sfr"), **settings).attribute_rows] == ["asinh", "log"]
    with pytest.raises(UserError, match=r"no column d4000 is there, which --attribute d4000 names: .*t\.csv has"):
        prepare(tmp_path, *tables, "--attribute", "d4000")
    with pytest.raises(UserError, match="--attribute tells of a table's column: give it with --catalogue"):
        prepare(tmp_path, "--images", folder, "--attribute", "d4000")
