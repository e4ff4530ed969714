"""A field on disk: what is written in pieces is what astropy and the reader find, and what is damaged is said."""

import json
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galaxies.common.errors import UserError
from galaxies.mock_field.field_files import CENTRE_DEG, FieldFiles, bytes_of_field
from galaxies.mock_field.field_folder import FieldBand, FieldFacts, MockField, truth_dtype

BANDS = (FieldBand("g", 480.0, 0.9, 300.0, 12.5, 1.5), FieldBand("r", 620.0, 0.8, 30.0, 20.0, 0.0))
FACTS = FieldFacts("LSST", 0.2, 50, 30, 50 * 30 * 0.04 / 3600, 7, BANDS, "the test", "none", 26.0, "r", "make", "us")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(0)
    psfs = [np.full((5, 5), 0.04, np.float32), np.eye(7, dtype=np.float32) / 7]
    files = FieldFiles.lay_out(folder, FACTS, psfs, 3)
    planes = {}
    for kind in ("image", "noise", "weight", "noiseless"):
        for band in FACTS.band_names:
            planes[kind, band] = rng.normal(size=FACTS.shape).astype(np.float32)
            for row, column in ((0, 0), (0, 20), (11, 0), (11, 20)):  # in pieces, whose order does not matter
                high, wide = slice(row, 30 if row else 11), slice(column, 50 if column else 20)
                getattr(files, kind)[band].write(planes[kind, band][high, wide], row, column)
    planes["segmentation"] = rng.integers(0, 2**31 - 1, FACTS.shape).astype(np.int32)
    files.segmentation.write(planes["segmentation"], 0)
    truth = np.zeros(3, truth_dtype(FACTS.band_names))
    truth["id"], truth["kind"], truth["seed"] = (1, 2, 3), (b"galaxy", b"star", b"galaxy"), (2**62 + 1, 0, 5)
    truth["snr_r"] = (1.5, np.nan, np.inf)
    files.truth.write(truth[2:], 2)
    files.truth.write(truth[:2], 0)
    files.finish()
    return folder, files, planes, truth, psfs


def test_what_is_written_is_read(written):
    folder, files, planes, truth, psfs = written
    field = MockField(folder)
    assert field.facts == FACTS
    for band, psf in zip(FACTS.band_names, psfs, strict=True):
        for kind in ("image", "noise", "weight", "noiseless"):
            assert np.array_equal(getattr(field, kind)(band), planes[kind, band])
        assert np.array_equal(field.psf(band), psf)
    assert np.array_equal(field.segmentation(), planes["segmentation"])
    assert field.truth().tobytes() == truth.tobytes()
    assert np.array_equal(files.noise["r"].read(slice(4, 9), slice(30, 33)), planes["noise", "r"][4:9, 30:33])
    assert sum(path.stat().st_size for path in folder.iterdir()) == pytest.approx(bytes_of_field(FACTS, 3), rel=0.4)


def test_astropy_reads_every_file_without_a_warning(written):
    folder, _, planes, truth, psfs = written
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted(folder.glob("*.fits")):
            with fits.open(path) as units:
                units.verify("exception")
                for unit in units:
                    assert unit.verify_checksum() in (1, 2)
                    assert unit.data is None or unit.data.size
        with fits.open(folder / "g.fits") as units:
            assert [unit.name for unit in units] == ["PRIMARY", "NOISE", "WEIGHT", "PSF"]
            assert np.array_equal(units["WEIGHT"].data, planes["weight", "g"])
            assert np.array_equal(units["PSF"].data, psfs[0])
            header = units[0].header
            assert (header["BUNIT"], header["MAGZERO"], header["SYNTHET"]) == ("nJy", 31.4, True)
            wcs = WCS(header)
            # The middle is where it is said to be; a pixel to the right is west, a row up is north.
            assert np.allclose(wcs.all_pix2world(24.5, 14.5, 0), CENTRE_DEG)
            assert np.allclose(np.subtract(wcs.all_pix2world(25.5, 15.5, 0), CENTRE_DEG) * 3600, (-0.2, 0.2))
            assert np.allclose(WCS(units["NOISE"].header).all_pix2world(3, 4, 0), wcs.all_pix2world(3, 4, 0))
        with fits.open(folder / "truth.fits") as units:
            assert units[1].data["kind"].tolist() == ["galaxy", "star", "galaxy"]
            assert units[1].data["seed"].tolist() == truth["seed"].tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pixel_scale": 0}, "pixel_scale is 0, not"),
        ({"format_version": 2}, "format_version is 2, not 1"),
        ({"bands": []}, "bands is a list of 0"),
        ({"reference_band": "z\x1b"}, r"reference band 'z\\x1b', which the field has not"),
        ({"bands": [{**vars(BANDS[0]), "name": "../g"}]}, "names a band '../g'"),
        ({"bands": [vars(BANDS[0])] * 2}, "is there twice"),
        ({"width_px": 51}, r"g.fits has an image of \(30, 50\), where \(30, 51\)"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(written, tmp_path, change, said):
    said_before = json.loads((written[0] / "field.json").read_text())
    (tmp_path / "field.json").write_text(json.dumps({**said_before, **change}))
    for name in ("g.fits", "truth.fits"):
        (tmp_path / name).write_bytes((written[0] / name).read_bytes())
    with pytest.raises(UserError, match=said):
        MockField(tmp_path).image("g")


def test_what_is_missing_or_cut_short_is_said(written, tmp_path):
    with pytest.raises(UserError, match=r"holds no mock field, for it has no field.json: make the field again"):
        MockField(tmp_path)
    (tmp_path / "field.json").write_text((written[0] / "field.json").read_text())
    field = MockField(tmp_path)
    with pytest.raises(UserError, match="the field has no band 'Y': choose from g, r"):
        field.image("Y")
    with pytest.raises(UserError, match=r"truth.fits"):
        field.truth()
    for size in (100, 10_000):
        (tmp_path / "g.fits").write_bytes((written[0] / "g.fits").read_bytes()[:size])
        with pytest.raises(UserError, match=r"g.fits (is damaged|ends before)"):
            field.weight("g")
    (tmp_path / "truth.fits").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"truth.fits is damaged"):
        field.truth()
