"""`evaluate.py measure` in physical units: a galaxy of known flux comes out right in whatever form its file is."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

import evaluate
from galaxies.common.errors import UserError
from galaxies.validation import flux_files
from tests.measure.spirals import spiral

fits = pytest.importorskip("astropy.io.fits")
pytest.importorskip("scipy")

SIDE = 64
SCALE = 0.3  # arcsec a pixel
FLUX = np.array([4.0, 9.0, 16.0])  # of the bands g, r, z in nanomaggies
MAGNITUDES = 22.5 - 2.5 * np.log10(FLUX)
NOISE = 0.001  # by which alone a magnitude in g has an error of 0.007
PSF_SIGMA = 1.6  # pixels


def gaussian(major, minor, side=SIDE):
    axis = np.arange(side) - (side - 1) / 2
    return np.exp(-0.5 * ((axis / major) ** 2 + (axis[:, None] / minor) ** 2)) / (2 * math.pi * major * minor)


def cube(seed=0):
    shape = gaussian(math.hypot(5, PSF_SIGMA), math.hypot(3, PSF_SIGMA))
    noise = np.random.default_rng(seed).normal(0, NOISE, (3, SIDE, SIDE))
    return (FLUX[:, None, None] * shape + noise).astype(np.float32)


HEADER = {
    **{"BANDS": "grz", "BUNIT": "nanomaggy", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"},
    **{"CD1_1": -SCALE / 3600, "CD2_2": SCALE / 3600, "CD1_2": 0.0, "CD2_1": 0.0},
}
PSF = gaussian(PSF_SIGMA, PSF_SIGMA, 25)


def write(path, *images, header=HEADER):
    units = [fits.PrimaryHDU(images[0], fits.Header(header))]
    units += [fits.ImageHDU(image, fits.Header(header), name=f"SCI{k}") for k, image in enumerate(images[1:])]
    fits.HDUList(units).writeto(path, overwrite=True)
    return str(path)


def measured(tmp_path, *arguments):
    out = tmp_path / "measured.csv"
    try:
        evaluate.main(["measure", *arguments, "--out", str(out)])
    except SystemExit as end:
        assert end.code == 1
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_right(row, tolerance=0.02):
    for band, magnitude in zip("grz", MAGNITUDES, strict=True):
        assert float(row[f"magnitude_{band}"]) == pytest.approx(magnitude, abs=tolerance)
        assert float(row[f"noise_njy_{band}"]) == pytest.approx(NOISE * 3631, rel=0.1)
    assert float(row["color_g_r"]) == pytest.approx(2.5 * math.log10(9 / 4), abs=tolerance)
    assert float(row["pixel_scale"]) == pytest.approx(SCALE)


def test_a_header_that_says_all_needs_no_option(tmp_path):
    (row,) = measured(tmp_path, write(tmp_path / "a.fits", cube()), "--flux")
    assert_right(row)
    assert row["flag"] == "0" and "BUNIT 'nanomaggy'" in row["remark"]
    assert float(row["ellipticity"]) == pytest.approx(1 - math.hypot(3, 1.6) / math.hypot(5, 1.6), abs=0.03)
    assert float(row["position_angle"]) == pytest.approx(0, abs=2) or float(row["position_angle"]) > 178
    brightness = float(row["magnitude_r"]) + 2.5 * math.log10(2 * math.pi * float(row["size_arcsec"]) ** 2)
    assert float(row["surface_brightness_r"]) == pytest.approx(brightness, abs=1e-3)
    assert float(row["magnitude_error_r"]) < 0.02 and "size_kpc" not in row
    for name in ("size_arcsec", "petrosian_radius_arcsec", "concentration"):
        assert 1e-4 < float(row[f"{name}_error"]) / float(row[name]) < 0.03, name
    assert 1e-4 < float(row["ellipticity_error"]) < 0.02 and 0.01 < float(row["position_angle_error"]) < 2


def test_options_say_what_a_header_does_not(tmp_path):
    name = write(tmp_path / "a.fits", cube(), header={})
    options = ["--bands", "g,r,z", "--zero-point", "22.5", "--pixel-scale", str(SCALE)]
    (row,) = measured(tmp_path, name, *options, "--redshift", "0.1")
    assert_right(row)
    # 1.844 kpc an arcsec at redshift 0.1 with H0 = 70 and Omega_m = 0.3.
    for end in ("", "_error"):
        assert float(row[f"size_kpc{end}"]) == pytest.approx(1.844 * float(row[f"size_arcsec{end}"]), rel=1e-3)
    assert options.pop() and options.pop()
    for left, said in ((2, "--pixel-scale"), (0, "--bands")):
        with pytest.raises(UserError, match=said):
            measured(tmp_path, name, "--flux", *options[: left + 2 if left else 0])
    with pytest.raises(UserError, match="--zero-point"):
        measured(tmp_path, name, "--bands", "g,r,z", "--pixel-scale", "0.3")
    with pytest.raises(UserError, match="--zero-point has 2 values"):
        measured(tmp_path, name, "--bands", "g,r,z", "--pixel-scale", "0.3", "--zero-point", "22,23")


def test_a_psf_is_taken_off_and_an_extension_is_found(tmp_path):
    psf = write(tmp_path / "psf.fits", np.stack([PSF] * 3).astype(np.float32), header={"BANDS": "grz"})
    name = write(tmp_path / "a.fits", np.zeros((3, SIDE, SIDE), np.float32), cube())
    for ext in ("1", "sci0"):
        (row,) = measured(tmp_path, name, "--ext", ext, "--psf", psf)
        assert_right(row)
        assert float(row["ellipticity"]) == pytest.approx(1 - 3 / 5, abs=0.04)
        assert float(row["psf_fwhm_r"]) == pytest.approx(2.355 * PSF_SIGMA * SCALE, rel=0.1)
    (wide,) = measured(tmp_path, name, "--ext", "1")
    assert float(row["size_arcsec"]) < 0.97 * float(wide["size_arcsec"])
    # Of a PSF whose image is there more is known than of one of this width.
    (by_width,) = measured(tmp_path, name, "--ext", "1", "--psf-fwhm", row["psf_fwhm_r"])
    assert float(row["size_arcsec_error"]) < 0.8 * float(by_width["size_arcsec_error"])
    with pytest.raises(UserError, match="has no extension WHAT"):
        measured(tmp_path, name, "--ext", "WHAT")


def test_masks_and_weights_of_the_user_hide_bad_pixels(tmp_path):
    broken = cube()
    broken[:, 30:34, 8:26] = 5.0
    bad = np.zeros((SIDE, SIDE), np.uint8)
    bad[30:34, 8:26] = 1
    name = write(tmp_path / "a.fits", broken)
    mask = write(tmp_path / "m.fits", bad, header={})
    weight = write(tmp_path / "w.fits", np.where(bad, 0, NOISE**-2).astype(np.float32), header={})
    for options in (["--mask", mask], ["--weight", weight]):
        (row,) = measured(tmp_path, name, *options)
        assert_right(row, 0.04)
        assert row["flag"] == "16" and "without a value" in row["remark"]
    (row,) = measured(tmp_path, name, "--flux")
    assert abs(float(row["magnitude_g"] or 0) - MAGNITUDES[0]) > 0.5
    small = write(tmp_path / "s.fits", bad[:40, :40], header={})
    with pytest.raises(UserError, match="map of 40 x 40 pixels"):
        measured(tmp_path, name, "--mask", small)


def test_arms_are_read_off_flux(tmp_path):
    picture = spiral(3, 24)[0].numpy() - 0.05
    flux = (np.array([1.0, 2.0, 4.0])[:, None, None] * picture).astype(np.float32)
    flux += np.random.default_rng(0).normal(0, 0.004, flux.shape).astype(np.float32)
    (row,) = measured(tmp_path, write(tmp_path / "spiral.fits", flux), "--flux")
    assert float(row["arm_strength"]) > 0.093 and float(row["arm_count"]) == 3
    assert float(row["pitch"]) == pytest.approx(24, abs=4) and float(row["second_nucleus"]) < 0.2
    (row,) = measured(tmp_path, write(tmp_path / "smooth.fits", cube()), "--flux")
    assert float(row["arm_strength"]) < 0.093 and row["arm_count"] == row["pitch"] == ""
    (row,) = measured(tmp_path, write(tmp_path / "small.fits", cube()[:, 8:56, 8:56]), "--flux")
    assert float(row["magnitude_r"]) > 0 and row["arm_strength"] == row["second_nucleus"] == ""


def test_what_cannot_be_measured_has_a_row_that_says_why(tmp_path):
    blank, lost = cube(), cube()
    blank[:] = np.random.default_rng(1).normal(0, NOISE, blank.shape)
    lost[0] = np.nan
    names = [write(tmp_path / f"{k}.fits", image) for k, image in enumerate((cube(), blank, lost))]
    (tmp_path / "cut.fits").write_bytes((tmp_path / "0.fits").read_bytes()[:9000])
    right, nothing, without, cut = measured(tmp_path, *names, str(tmp_path / "cut.fits"), "--flux")
    assert_right(right)
    assert int(nothing["flag"]) & 1 and nothing["magnitude_r"] == "" and nothing["size_arcsec"] == ""
    assert nothing["size_arcsec_error"] == nothing["position_angle_error"] == ""
    assert without["magnitude_g"] == without["color_g_r"] == without["magnitude_error_g"] == ""
    assert float(without["magnitude_r"]) == pytest.approx(MAGNITUDES[1], abs=0.02)
    assert "cut short" in cut["remark"] and cut["side_px"] == ""


def test_large_cutouts_keep_their_flux_on_larger_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(flux_files, "_LARGEST_PX", 64)  # instead of 512, which would take its time
    shape = gaussian(10, 6, 128) * 900
    image = (shape + np.random.default_rng(2).normal(0, 0.02, shape.shape)).astype(np.float32)
    (row,) = measured(tmp_path, write(tmp_path / "a.fits", image, header={**HEADER, "FILTER": "r"}), "--bands", "r")
    assert float(row["magnitude_r"]) == pytest.approx(22.5 - 2.5 * math.log10(900), abs=0.02)
    assert float(row["pixel_scale"]) == pytest.approx(2 * SCALE) and "reduced from 128 to 64" in row["remark"]


@pytest.mark.parametrize("options", [["--redshift", "-1"], ["--pixel-scale", "0"], ["--flux-pixel", "x"]])
def test_numbers_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(UserError, match=options[0]):
        evaluate.main(["measure", "a.fits", *options, "--out", str(tmp_path / "m.csv")])
