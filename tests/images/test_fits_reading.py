"""FITS files as people have them: packed, scaled, with masks and weights, in cubes and extensions, with holes.

Each file holds the same galaxy, whose pixels are known, so that what is read can be held against them.
"""

from __future__ import annotations

import bz2
import gzip
import lzma

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.images import reading
from galaxies.images.fits_reading import unpacked
from galaxies.images.reading import read_picture
from galaxies.measure.photometry import MISSING_PIXELS
from galaxies.measure.picture_files import measure_files

fits = pytest.importorskip("astropy.io.fits")
SIDE = 72
AXIS = np.arange(SIDE) - (SIDE - 1) / 2
RADIUS = np.hypot(AXIS[:, None] - 3, AXIS)  # three pixels above the centre, since FITS has its rows from below
GALAXY = 300 * np.exp(-RADIUS / 4) + np.random.default_rng(0).normal(0, 2, (SIDE, SIDE))
MASK = (RADIUS < 10).astype(np.uint8)
FLAGS = np.where(np.random.default_rng(1).random((SIDE, SIDE)) < 0.9, 0, 2 ** np.arange(SIDE)[:, None] % 7).astype("i4")
WEIGHT = 1 / (4 + 300 * np.exp(-RADIUS / 4)) + np.random.default_rng(2).normal(0, 1e-3, (SIDE, SIDE))
ERROR = np.sqrt(4 + 300 * np.exp(-RADIUS / 4))
PSF = np.exp(-(RADIUS**2) / 4)


def write(path, *units, name="a.fits", primary=None):
    """Write images, each with its header; the first is the primary one unless that is given or none of them can be."""
    parts = [unit if isinstance(unit, tuple) else (unit, {}) for unit in units]
    if primary is None:
        (first, header), *parts = parts
        units = [fits.PrimaryHDU(first, fits.Header(header))]
    else:
        units = [fits.PrimaryHDU(header=fits.Header(primary))]
    units += [fits.ImageHDU(data, fits.Header(header)) for data, header in parts]
    fits.HDUList(units).writeto(path / name)
    return path / name


def is_galaxy(picture, scale=1.0, atol=1e-9):
    """Say whether a picture is the galaxy, its rows from the top."""
    return np.allclose(picture.image[1].numpy(), scale * GALAXY[::-1], rtol=1e-6, atol=scale * atol)


# How it is stored


@pytest.mark.parametrize("kind", [">f4", "<f4", ">f8", "i2", "i4", "i8", "u2", "u1", "bscale"])
def test_every_kind_of_number(tmp_path, kind):
    tenths = np.round(10 * GALAXY)
    if kind == "bscale":
        unit = fits.PrimaryHDU(GALAXY.copy())
        unit.scale("int16", bscale=0.1, bzero=500)
        unit.writeto(tmp_path / "a.fits")
        assert is_galaxy(read_picture(tmp_path / "a.fits"), atol=0.051)
    elif kind == "u1":
        path = write(tmp_path, np.clip(np.round(GALAXY / 2 + 50), 0, 255).astype("u1"))
        picture = read_picture(path).image[0].numpy()
        assert np.allclose(picture, np.clip(GALAXY / 2 + 50, 0, 255)[::-1], atol=0.51)
    else:
        path = write(tmp_path, (GALAXY if "f" in kind else tenths + 100 * (kind == "u2")).astype(kind))
        picture = read_picture(path).image[0].numpy()
        truth = GALAXY[::-1] if "f" in kind else tenths[::-1] + 100 * (kind == "u2")
        assert np.allclose(picture, truth, rtol=1e-6)
    picture = read_picture(tmp_path / "a.fits")
    assert picture.colorless and not picture.display and picture.missing is None and "counts" in picture.note


@pytest.mark.parametrize("pack, name", [(gzip.compress, "gz"), (bz2.compress, "bz2"), (lzma.compress, "xz")])
def test_packed_files(tmp_path, pack, name):
    content = pack(write(tmp_path, GALAXY).read_bytes())
    (path := tmp_path / f"a.fits.{name}").write_bytes(content)
    assert is_galaxy(read_picture(path))
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is packed and damaged, or cut short"):
        read_picture(path)
    path.write_bytes(pack(b"no FITS" * 100))
    with pytest.raises(UserError, match=f"a.fits.{name} is no PNG, JPEG or FITS"):
        read_picture(path)


def test_what_is_packed_has_a_limit(tmp_path):
    bomb = gzip.compress(b"SIMPLE  =" + bytes(10**6))
    assert len(unpacked(tmp_path, bomb, 10**6 + 9)) == 10**6 + 9
    with pytest.raises(UserError, match="more than 1000000 bytes packed in it"):
        unpacked(tmp_path, bomb, 10**6)


def test_tiles_packed_by_fpack(tmp_path):
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(GALAXY.astype("f4"), quantize_level=64)]).writeto(
        tmp_path / "a.fits.fz"
    )
    assert is_galaxy(read_picture(tmp_path / "a.fits.fz"), atol=0.1)


def test_a_file_cut_short(tmp_path):
    path = write(tmp_path, GALAXY)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UserError, match="is damaged or cut short"):
        read_picture(path)


# Which image


@pytest.mark.parametrize(
    "name",
    [
        "WHT",
        "ERR",
        "DQ",
        "MASK",
        "VAR_POISSON",
        "PSF",
        "ivar",
        "SCI_ERR",
        "WHTMAP",
        "BADPIXELMASK",
        "SEGMENTATION",
    ],
)
def test_extensions_that_are_named_as_something_else(tmp_path, name):
    path = write(tmp_path, (3 * GALAXY, {"EXTNAME": name}), (GALAXY, {}), primary={})
    picture = read_picture(path)
    assert is_galaxy(picture) and "HDU 2 of 2 images" in picture.note
    with pytest.raises(UserError, match=r"holds no picture of the sky, only HDU 1 \("):
        read_picture(write(tmp_path, (GALAXY, {"EXTNAME": name}), primary={}, name="alone.fits"))


@pytest.mark.parametrize(
    "header",
    [
        {"BUNIT": "nanomaggy^-2"},
        {"BUNIT": "(MJy/sr)**2"},
        {"BUNIT": "1/(e/s)^2"},
        {"IMAGETYP": "invvar"},
        {"HDUCLAS2": "ERROR"},
        {"HDUCLAS2": "QUALITY"},
    ],
)
def test_units_and_kinds_that_say_otherwise(tmp_path, header):
    path = write(tmp_path, (3 * GALAXY, header), (GALAXY, {}))
    assert is_galaxy(read_picture(path))


@pytest.mark.parametrize(
    "header",
    [
        {"BUNIT": "erg/s/cm^2/Angstrom"},
        {"BUNIT": "MJy/sr"},
        {"BUNIT": "nanomaggy"},
        {"BUNIT": "e-/s"},
        {"EXTNAME": "SCI"},
        {"EXTNAME": "IMAGE"},
        {"IMAGETYP": "EXT"},
        {"EXTNAME": "NGC1300"},
    ],
)
def test_units_and_names_of_the_sky(tmp_path, header):
    path = write(tmp_path, (GALAXY, header), (3 * GALAXY, {}))
    assert is_galaxy(read_picture(path))


@pytest.mark.parametrize(
    "other",
    [MASK, FLAGS, MASK.astype("f4"), np.ones((SIDE, SIDE)), WEIGHT, ERROR, PSF],
    ids=["mask", "flags", "float", "one", "weight", "error", "psf"],
)
def test_without_names_the_values_tell(tmp_path, other):
    picture = read_picture(write(tmp_path, other, GALAXY))
    assert is_galaxy(picture) and "HDU 1 of 2 images" in picture.note
    assert is_galaxy(read_picture(write(tmp_path, GALAXY, other, name="b.fits")))


@pytest.mark.parametrize("other", [MASK, FLAGS, WEIGHT], ids=["mask", "flags", "weight"])
def test_the_sky_may_be_left_in(tmp_path, other):
    picture = read_picture(write(tmp_path, other, GALAXY + 1000))
    assert np.allclose(picture.image[0].numpy(), GALAXY[::-1] + 1000)


def test_science_is_taken_by_its_name_wherever_it_is(tmp_path):
    others = [(3 * GALAXY, {"EXTNAME": name}) for name in ("MODEL2", "NOTES", "X")]
    picture = read_picture(write(tmp_path, *others, (GALAXY, {"EXTNAME": "SCI"}), primary={}))
    assert is_galaxy(picture) and "HDU 4 ('SCI') of 4 images" in picture.note


def test_a_lone_mask_is_refused_and_dummies_are_passed_over(tmp_path):
    with pytest.raises(UserError, match="only a mask"):
        read_picture(write(tmp_path, MASK))
    picture = read_picture(write(tmp_path, np.zeros((1, 1)), np.ones((20, 20)), GALAXY, name="b.fits"))
    assert is_galaxy(picture) and "HDU 2 of 3 images" in picture.note
    for name, shape in (("c.fits", (1, 1)), ("d.fits", (63, 80)), ("e.fits", (1, 90))):
        with pytest.raises(UserError, match=f"has {shape[1]} x {shape[0]} pixels: at least 64"):
            read_picture(write(tmp_path, np.ones(shape), name=name))
    with pytest.raises(UserError, match=r"has the shape \(900,\)"):
        read_picture(write(tmp_path, np.ones(900), name="f.fits"))


def test_magnitudes_are_refused(tmp_path):
    with pytest.raises(UserError, match="magnitudes"):
        read_picture(write(tmp_path, (GALAXY, {"BUNIT": "mag/arcsec2"})))
    assert is_galaxy(read_picture(write(tmp_path, (GALAXY, {"BUNIT": "maggy"}), name="b.fits")))


# Which planes


def planes_of(picture, *factors):
    """Say whether red, green and blue are the galaxy times these factors."""
    return all(
        np.allclose(plane, factor * GALAXY[::-1]) for plane, factor in zip(picture.image.numpy(), factors, strict=True)
    )


@pytest.mark.parametrize(
    "cube, header, factors, said",
    [
        ([1, 2, 3], {}, (1, 2, 3), "no bands are named"),
        ([1, 2, 3], {"BANDS": "grz"}, (3, 2, 1), "bands z, r, g as red, green, blue"),
        ([1, 2, 3], {"BANDS": "zrg"}, (1, 2, 3), "bands z, r, g"),
        ([1, 2, 3, 4], {"BANDS": "griz"}, (3, 2, 1), "bands i, r, g as red, green, blue, without z"),
        ([5, 4, 3, 2, 1], {"FILTER": "y,z,i,r,g"}, (3, 2, 1), "without y, z"),
        ([1, 2], {"BAND0": "g", "BAND1": "i"}, (2, 1.5, 1), "bands i and g as red and blue"),
    ],
)
def test_cubes(tmp_path, cube, header, factors, said):
    picture = read_picture(write(tmp_path, (np.stack([k * GALAXY for k in cube]), header)))
    assert planes_of(picture, *factors) and said in picture.note and picture.colorless == (not header)


@pytest.mark.parametrize("count", [2, 4, 7])
def test_planes_without_names_are_asked_for_their_names(tmp_path, count):
    with pytest.raises(UserError, match=f"has {count} planes and does not say of which bands: .* BANDS = "):
        read_picture(write(tmp_path, np.stack([GALAXY] * count)))
    with pytest.raises(UserError, match="spectral cube"):
        read_picture(write(tmp_path, np.ones((20, 64, 64)), name="b.fits"))


def test_axes_of_one_pixel_and_of_polarisation_are_no_planes(tmp_path):
    for k, shape in enumerate([(1, SIDE, SIDE), (1, 1, SIDE, SIDE)]):
        picture = read_picture(write(tmp_path, GALAXY.reshape(shape), name=f"{k}.fits"))
        assert is_galaxy(picture) and picture.colorless
    stokes = np.stack([k * GALAXY for k in (1, 0.1, 0.2, 0.05)])[:, None]
    header = {"CTYPE3": "FREQ", "CTYPE4": "STOKES"}
    assert is_galaxy(read_picture(write(tmp_path, (stokes, header), name="s.fits")))
    screen = np.stack([GALAXY, 2 * GALAXY, 3 * GALAXY], -1)
    assert planes_of(read_picture(write(tmp_path, screen, name="last.fits")), 1, 2, 3)


def test_one_band_in_each_extension(tmp_path):
    units = [(factor * GALAXY, {"FILTER": band}) for band, factor in (("g", 1), ("z", 3), ("r", 2))]
    picture = read_picture(write(tmp_path, *units, primary={}))
    assert planes_of(picture, 3, 2, 1) and "HDUs 1, 2, 3; bands z, r, g" in picture.note
    named = [(factor * GALAXY, {"EXTNAME": f"SCI_{band}"}) for band, factor in (("F606W", 1), ("F814W", 3))]
    weights = [(WEIGHT, {"EXTNAME": f"WHT_{band}"}) for band in ("F606W", "F814W")]
    picture = read_picture(write(tmp_path, *weights, *named, primary={}, name="b.fits"))
    assert planes_of(picture, 3, 2, 1) and "bands F814W and F606W" in picture.note


def test_what_programs_and_observatories_write(tmp_path):
    residual = np.random.default_rng(3).normal(0, 2, (SIDE, SIDE))
    galfit = write(tmp_path, GALAXY, 300 * np.exp(-RADIUS / 4), residual, primary={})
    assert is_galaxy(read_picture(galfit))
    rubin = [fits.CompImageHDU(data.astype("f4"), name=name) for data, name in ((GALAXY, "IMAGE"), (ERROR, "VARIANCE"))]
    fits.HDUList([fits.PrimaryHDU(), rubin[1], rubin[0]]).writeto(tmp_path / "rubin.fits")
    assert is_galaxy(read_picture(tmp_path / "rubin.fits"), atol=0.3)
    wheels = {"FILTER1": "CLEAR1L", "FILTER2": "F814W"}
    hubble = write(tmp_path, (GALAXY, {"EXTNAME": "SCI"}), (ERROR, {"EXTNAME": "WHT"}), primary=wheels, name="h.fits")
    assert is_galaxy(read_picture(hubble)) and read_picture(hubble).colorless
    bands = [(k * GALAXY, {"EXTNAME": name}) for k, name in enumerate(("VIS", "NIR_Y", "NIR_J", "NIR_H"), 1)]
    euclid = read_picture(write(tmp_path, *bands, primary={}, name="e.fits"))
    assert planes_of(euclid, 4, 2, 1) and "bands H, Y, vis as red, green, blue, without J" in euclid.note


# What has no value


def flag_of(path):
    (found,) = measure_files([path])
    return int(found.measured.flags[0]), found


def test_one_band_has_no_color_and_three_have(tmp_path):
    alone = flag_of(write(tmp_path, GALAXY))[1].measured.values
    planes = np.stack([GALAXY, GALAXY, GALAXY / 2])
    three = flag_of(write(tmp_path, (planes, {"BANDS": "zrg"}), name="b.fits"))[1].measured.values
    unnamed = flag_of(write(tmp_path, planes, name="c.fits"))[1].measured.values
    assert np.isnan(unnamed["color"]).all()  # either sign could be right
    assert np.isnan(alone["color"]).all() and three["color"] == pytest.approx(-2.5 * np.log10(0.5), abs=0.01)
    assert alone["size"] == pytest.approx(three["size"], rel=1e-3)


@pytest.mark.parametrize("lost", [np.nan, np.inf, -9999.0, -1e30, 1.6e38])
def test_what_has_no_value_raises_the_flag_in_the_galaxy_alone(tmp_path, lost):
    inside, outside = GALAXY.copy(), GALAXY.copy()
    inside[SIDE // 2 + 5, SIDE // 2] = lost
    outside[:, :6] = lost
    flag, found = flag_of(write(tmp_path, inside))
    assert flag == MISSING_PIXELS and "1 pixels without a value" in found.note
    flag, found = flag_of(write(tmp_path, outside, name="b.fits"))
    assert flag == 0 and f"{6 * SIDE} pixels without a value, taken as sky" in found.note
    plain = flag_of(write(tmp_path, GALAXY, name="c.fits"))[1].measured.values["size"]
    assert found.measured.values["size"] == pytest.approx(plain, rel=0.02)


def test_blank_whole_numbers_have_no_value(tmp_path):
    counts = np.round(10 * GALAXY).astype("i2")
    counts[:6] = -32768
    picture = read_picture(write(tmp_path, (counts, {"BLANK": -32768})))
    assert picture.image[:, -6:].isnan().all() and not picture.image[:, :-6].isnan().any()


@pytest.mark.parametrize("sky", [0.0, 1000.0])
def test_areas_of_zeros_were_not_observed(tmp_path, sky):
    counts = GALAXY + sky
    counts[:, 60:] = 0
    picture = read_picture(write(tmp_path, counts))
    assert picture.missing[:, 60:].all() and not picture.missing[:, :60].any()


def test_what_one_plane_lacks_is_missing_where_it_is_seen(tmp_path):
    cube = np.stack([GALAXY] * 3)
    cube[0, :6] = np.nan
    missing = read_picture(write(tmp_path, cube)).missing
    assert missing[-6:].all() and not missing[:-6].any()


def test_zeros_of_models_and_of_whole_numbers_are_values(tmp_path):
    model = np.where(RADIUS < 20, 300 * np.exp(-RADIUS / 4), 0)
    whole = np.round(GALAXY / 4).astype("i4")
    photons = np.random.default_rng(0).poisson(np.exp(-RADIUS / 4))
    for k, counts in enumerate((model, photons, whole, np.maximum(GALAXY, 0))):
        assert read_picture(write(tmp_path, counts, name=f"{k}.fits")).missing is None, k


def test_a_file_without_values_is_refused(tmp_path):
    with pytest.raises(UserError, match="without any value"):
        read_picture(write(tmp_path, np.full((SIDE, SIDE), np.nan)))


@pytest.mark.parametrize("side", [SIDE, 600])
def test_cosmic_rays_are_taken_out_and_stars_stay(tmp_path, side):
    axis = np.arange(side) - (side - 1) / 2
    noise = np.random.default_rng(0).normal(0, 2, (side, side))
    sky = 300 * np.exp(-np.hypot(axis[:, None], axis) * 20 / side) + noise
    for k, width in enumerate((0.7, 1.0, 2.0)):  # standard deviations of stars, pixels
        star = np.hypot(axis[:, None] + side / 4, axis - (k - 1) * side / 4)
        sky += 1e5 * np.exp(-0.5 * (star / width) ** 2)
    assert "cosmic" not in read_picture(write(tmp_path, sky)).note
    hit = sky.copy()
    hit[5, 5] = hit[40, 3] = 1e5
    hit[8, side - 9 : side - 7] = 1e6
    picture = read_picture(write(tmp_path, hit, name="b.fits"))
    assert "4 pixels hit by cosmic rays" in picture.note
    assert float(np.nanmax(picture.image.numpy())) <= sky.max()


# How large, and displays


def test_large_files_are_reduced_by_means(tmp_path):
    side = 1000
    counts = np.random.default_rng(0).normal(1e6, 1, (side, side + 40))
    counts[500, 520] = np.nan
    picture = read_picture(write(tmp_path, counts))
    assert picture.image.shape == (3, 256, 256) and picture.side_px == side and picture.missing.sum() in (1, 2, 4)
    square = counts[::-1, 20 : 20 + side]
    edges = [(k * side // 256, -(-(k + 1) * side // 256)) for k in range(256)]
    for row, column in ((0, 0), (100, 37), (255, 255)):
        part = square[slice(*edges[row]), slice(*edges[column])]
        assert float(picture.image[0, row, column]) == pytest.approx(part.mean(), abs=1e-6)
    assert "central square of 1040 x 1000; reduced from 1000 to 256 pixels" in picture.note


def test_a_display_stays_as_it_is(tmp_path):
    levels = np.clip(np.stack([GALAXY, 0.5 * GALAXY, 0 * GALAXY]), 0, 255)
    levels[0, 5, 5] = 255
    picture = read_picture(write(tmp_path, (levels.astype("f4"), {"BUNIT": "display"})))
    assert picture.display and picture.missing is None and "counts" not in picture.note
    assert np.allclose(picture.image.numpy(), levels[:, ::-1] / 255, atol=1e-6)


def test_fits_needs_astropy_and_says_so(tmp_path, monkeypatch):
    path = write(tmp_path, GALAXY)
    monkeypatch.setitem(__import__("sys").modules, "astropy.io", None)
    with pytest.raises(UserError, match="needs astropy: python -m pip install astropy"):
        reading.read_picture(path)
