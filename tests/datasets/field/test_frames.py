from __future__ import annotations

import bz2
import gzip
from contextlib import ExitStack

import numpy as np
import pytest
from astropy.io import fits

from galaxies.common.errors import UserError
from galaxies.datasets.field.frames import Area, Plane, open_frame
from tests.datasets.field.made_fields import write_frame

ALL = Area(0, 96, 0, 128)
SKY = np.random.default_rng(0).normal(0, 2, (96, 128))


@pytest.fixture
def opened(tmp_path):
    """Return a function that opens a file and calibrates it as nJy."""
    with ExitStack() as stack:

        def open_it(path, extension=None, zero_point=31.4, **options):
            (tmp_path / "scratch").mkdir(exist_ok=True)
            frame = open_frame(path, "r", extension, tmp_path / "scratch", stack, **options)
            frame.calibrate(zero_point, None, None)
            return frame

        yield open_it


def test_values_are_brought_to_nanojansky(opened, tmp_path):
    frame = opened(write_frame(tmp_path / "a.fits", SKY), zero_point=26.4)
    assert np.allclose(frame.read(ALL), 100 * SKY, rtol=1e-5)
    part = Area(10, 20, 30, 70)
    assert np.array_equal(frame.read(part), frame.read(ALL)[10:20, 30:70])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_packed_files_are_read_as_plain_ones(opened, tmp_path, pack):
    plain = write_frame(tmp_path / "a.fits", SKY)
    packed = tmp_path / "a.fits.packed"
    packed.write_bytes(pack(plain.read_bytes()))
    assert np.array_equal(opened(packed).read(ALL), opened(plain).read(ALL))


def test_compressed_tiles_whole_numbers_and_old_byte_orders(opened, tmp_path):
    tiles = tmp_path / "tiles.fits"
    fits.HDUList(
        [fits.PrimaryHDU(), fits.CompImageHDU(SKY.astype(np.float32), compression_type="GZIP_1", quantize_level=0)]
    ).writeto(tiles)
    assert np.allclose(opened(tiles).read(ALL), SKY, atol=1e-5)
    # Whole numbers with a scale, an offset and a value for none.
    counts = np.round(SKY * 100).astype(np.int16)
    counts[5, 7] = -32768
    unit = fits.PrimaryHDU(counts)
    unit.header.update({"BLANK": -32768, "BSCALE": 0.01, "BZERO": 500.0})
    unit.writeto(tmp_path / "scaled.fits")
    with fits.open(tmp_path / "scaled.fits", mode="update", do_not_scale_image_data=True) as units:
        units[0].header.update({"BSCALE": 0.01, "BZERO": 500.0})
    found = opened(tmp_path / "scaled.fits").read(ALL)
    assert np.isnan(found[5, 7])
    assert np.isnan(found).sum() == 1
    good = np.isfinite(found)
    assert np.allclose(found[good], 500 + SKY[good], atol=0.006)
    assert np.allclose(opened(write_frame(tmp_path / "double.fits", SKY.astype(">f8"))).read(ALL), SKY, atol=1e-5)


def test_what_was_not_observed_has_no_value(opened, tmp_path):
    image = SKY.copy()
    image[:, :30] = 0
    image[40:50, 60:70] = -9999
    image[60, 60] = np.inf
    image[70, 70] = 1.6e38
    image[80, 80] = 0  # by chance, and yet as the areas
    found = opened(write_frame(tmp_path / "a.fits", image)).read(ALL)
    assert np.isnan(found).sum() == 96 * 30 + 100 + 3
    whole = np.random.default_rng(1).poisson(0.3, SKY.shape).astype(np.float32)  # faint counts: 0 is one of them
    assert np.isfinite(opened(write_frame(tmp_path / "counts.fits", whole)).read(ALL)).all()
    sky = np.random.default_rng(1).poisson(80, SKY.shape).astype(np.int16)
    sky[:20] = 0
    assert np.isnan(opened(write_frame(tmp_path / "sky.fits", sky)).read(ALL)).sum() == 20 * 128


def test_beyond_the_frame_there_is_no_value(opened, tmp_path):
    frame = opened(write_frame(tmp_path / "a.fits", SKY))
    plane = Plane("r", frame.shape, frame.read)
    values = plane.read_beyond(Area(-5, 10, 120, 140))
    assert np.array_equal(values[5:, :8], frame.read(Area(0, 10, 120, 128)))
    assert np.isnan(values[:5]).all() and np.isnan(values[:, 8:]).all()
    assert np.isnan(plane.read_beyond(Area(200, 210, 0, 10))).all()


def several(path):
    units = [
        fits.PrimaryHDU(),
        fits.ImageHDU(SKY.astype("f4"), name="SCI"),
        fits.ImageHDU(SKY.astype("f4"), name="WHT"),
    ]
    units.append(fits.ImageHDU(2 * SKY.astype("f4"), name="OTHER"))
    fits.HDUList(units).writeto(path)
    return path


def test_the_image_is_chosen_by_its_name_or_by_the_option(opened, tmp_path):
    path = several(tmp_path / "a.fits")
    assert np.allclose(opened(path).read(ALL), SKY, atol=1e-5)
    assert np.allclose(opened(path, "OTHER").read(ALL), 2 * SKY, atol=1e-5)
    assert np.allclose(opened(path, "3").read(ALL), 2 * SKY, atol=1e-5)
    with pytest.raises(UserError, match=r"no image of one plane by --ext '7': it has HDU 1"):
        opened(path, "7")
    with fits.open(path, mode="update") as units:
        units[1].name = "FIRST"
    with pytest.raises(UserError, match=r"has 2 images, .*: say which with --ext"):
        opened(path)


def test_what_an_extension_does_not_say_the_first_unit_may(opened, tmp_path):
    path = several(tmp_path / "a.fits")
    with fits.open(path, mode="update") as units:
        units[0].header.update({"MAGZERO": 26.4, "FILTER": "r", "PIXSCALE": 0.2})
        units["SCI"].header["FILTER"] = "g"
    frame = opened(path, zero_point=None)
    assert np.allclose(frame.read(ALL), 100 * SKY, rtol=1e-4)
    assert frame.header["FILTER"] == "g"
    assert frame.pixel_scale == 0.2


def test_files_that_are_no_frame_are_refused(opened, tmp_path):
    with pytest.raises(UserError, match=r"does not exist"):
        opened(tmp_path / "none.fits")
    (tmp_path / "text.fits").write_text("hello")
    with pytest.raises(UserError, match=r"is no FITS file"):
        opened(tmp_path / "text.fits")
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(UserError, match=r"holds no image"):
        opened(tmp_path / "empty.fits")
    write_frame(tmp_path / "cube.fits", np.stack([SKY] * 3))
    with pytest.raises(UserError, match=r"3 planes in HDU 0: give one file a band"):
        opened(tmp_path / "cube.fits")
    with pytest.raises(UserError, match=r"20 x 20 pixels"):
        opened(write_frame(tmp_path / "tiny.fits", SKY[:20, :20]))


@pytest.mark.parametrize("kept", [0.5, 0.97])
def test_files_that_are_cut_short_are_refused(opened, tmp_path, kept):
    whole = write_frame(tmp_path / "a.fits", SKY).read_bytes()
    short = tmp_path / "short.fits"
    short.write_bytes(whole[: int(len(whole) * kept) - 2880])
    with pytest.raises(UserError, match=r"is cut short: it has \d+ bytes, and its image needs \d+"):
        opened(short)
    packed = tmp_path / "short.fits.gz"
    packed.write_bytes(gzip.compress(whole)[:-500])
    with pytest.raises(UserError, match=r"short.fits.gz cannot be unpacked"):
        opened(packed)
    tiles = tmp_path / "tiles.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(SKY.astype(np.float32))]).writeto(tiles)
    tiles.write_bytes(tiles.read_bytes()[:-8640])
    with pytest.raises(UserError, match=r"is (cut short|damaged)"):
        opened(tiles).read(ALL)
