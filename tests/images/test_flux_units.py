"""What headers and options say of a value in nanojansky, against astropy's units and published zero points."""

from __future__ import annotations

import math

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.images.flux_units import calibration, factor_of_zero_point, pixel_scale_of, sky_frame_of

units = pytest.importorskip("astropy.units")


def test_a_zero_point_is_the_ab_magnitude_of_one():
    # 1 nanomaggie is 3.631 uJy, by the definition of the SDSS; 0 mag is 3631 Jy.
    assert factor_of_zero_point(22.5) == pytest.approx(3631, rel=1e-4)
    assert factor_of_zero_point(0) == pytest.approx((0 * units.ABmag).to_value(units.nJy), rel=1e-6)
    assert factor_of_zero_point(25.94) == pytest.approx((25.94 * units.ABmag).to_value(units.nJy), rel=1e-6)


@pytest.mark.parametrize(
    ("text", "njy"),
    [
        *(("nJy", 1), ("uJy", 1e3), ("µJy", 1e3), ("microJy", 1e3), ("mJy", 1e6), ("Jy", 1e9), ("JY", 1e9)),
        *(("UJY", 1e3), ("Jansky", 1e9), ("Jy/pixel", 1e9), ("nanomaggy", 3630.78), ("nanomaggies", 3630.78)),
        *(("nmgy", 3630.78), ("maggy", 3630.78e9), ("erg/s/cm2/Hz", 1e32), ("10**-29 erg/(s cm2 Hz)", 1e3)),
    ],
)
def test_units_of_flux(text, njy):
    assert calibration({"BUNIT": text}, "a.fits").factor == pytest.approx(njy, rel=1e-5)


@pytest.mark.parametrize("text", ["MJy/sr", "MJy sr-1", "MJY/SR", "MJy / sr"])
def test_surface_brightness_takes_the_area_of_a_pixel(text):
    wanted = (1 * units.MJy / units.sr * (0.03 * units.arcsec) ** 2).to_value(units.nJy)  # 21.2
    assert calibration({"BUNIT": text}, "a.fits", pixel_scale=0.03).factor == pytest.approx(wanted, rel=1e-6)
    per_arcsec = calibration({"BUNIT": "uJy/arcsec2"}, "a.fits", pixel_scale=0.5).factor
    assert per_arcsec == pytest.approx(250, rel=1e-6)
    with pytest.raises(UserError, match="--pixel-scale"):
        calibration({"BUNIT": text}, "a.fits")


def test_flux_a_wavelength():
    header = {"BUNIT": "erg/s/cm2/Angstrom", "PHOTPLAM": 8045.0}
    density = 1e-18 * units.erg / units.s / units.cm**2 / units.AA
    wanted = density.to_value(units.nJy, units.spectral_density(8045 * units.AA))
    assert 1e-18 * calibration(header, "a.fits").factor == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(UserError, match="of which no flux"):
        calibration({"BUNIT": "erg/s/cm2/Angstrom"}, "a.fits")


ACS = {"PHOTFLAM": 7.0723e-20, "PHOTPLAM": 8045.0}  # of F814W; its AB zero point is 25.94, for COSMOS


@pytest.mark.parametrize("text", ["ELECTRONS/S", "electron/s", "e-/s", "counts/s", "cps", "ADU / sec", "electron s-1"])
def test_electrons_a_second_of_hubble(text):
    found = calibration({"BUNIT": text, **ACS}, "a.fits")
    assert 31.4 - 2.5 * math.log10(found.factor) == pytest.approx(25.94, abs=0.01)
    assert found.how == "PHOTFLAM and PHOTPLAM"


def test_electrons_are_divided_by_the_exposure():
    rate = calibration({"BUNIT": "ELECTRONS/S", **ACS}, "a.fits").factor
    assert calibration({"BUNIT": "ELECTRONS", "EXPTIME": 500.0, **ACS}, "a.fits").factor == pytest.approx(rate / 500)
    with pytest.raises(UserError, match="no EXPTIME: give --zero-point"):
        calibration({"BUNIT": "ELECTRONS", **ACS}, "a.fits")
    with pytest.raises(UserError, match="'electron/s' or 'electron'"):
        calibration(ACS, "a.fits")
    by_option = calibration(ACS, "a.fits", unit="electron/s").factor
    assert by_option == pytest.approx(rate)
    assert calibration({"BUNIT": "e/s", "PHOTFNU": 9.5e-8}, "a.fits").factor == pytest.approx(95)


@pytest.mark.parametrize(
    ("header", "zero_point"),
    [
        ({"BUNIT": "ADU", "MAGZERO": 30.0}, 30.0),
        ({"MAGZPT": 25.5}, 25.5),
        ({"BUNIT": "counts", "MAGZP": "22.5"}, 22.5),
        ({"BUNIT": "adu", "FLUXMAG0": 63095734448.0194}, 27.0),
        ({"MAGZERO": 0.0}, 0.0),
        ({"MAGZERO": 30.0, "MAGZPT": 30.001}, 30.0),
    ],
)
def test_zero_points_of_headers(header, zero_point):
    assert calibration(header, "a.fits").factor == pytest.approx(factor_of_zero_point(zero_point), rel=1e-3)


def test_a_unit_comes_before_a_zero_point_and_options_before_both():
    header = {"BUNIT": "uJy", "MAGZERO": 20.0}
    assert calibration(header, "a.fits").factor == 1e3
    assert calibration(header, "a.fits", unit="nJy").factor == 1
    chosen = calibration(header, "a.fits", zero_point=22.5)
    assert chosen.factor == pytest.approx(3630.78, rel=1e-5)
    assert chosen.how == "--zero-point 22.5"


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ({}, "has no unit .BUNIT. and no zero point: give .* --zero-point, or the unit with --unit"),
        ({"BUNIT": "ADU"}, "is in 'ADU' and no zero point"),
        ({"MAGZERO": float("nan")}, "no zero point"),
        ({"BUNIT": "Jy/beam"}, "is in 'Jy/beam', of which no flux"),
        ({"BUNIT": "MJY"}, "is in 'MJY'"),
        ({"BUNIT": "MJy/beam"}, "is in 'MJy/beam'"),
        ({"BUNIT": "bananas"}, "'bananas'.*--unit"),
        ({"BUNIT": "K"}, "'K'.*--unit"),
        ({"BUNIT": "mag/arcsec^2"}, "magnitudes .*do not add up"),
        ({"BUNIT": "display"}, "stretched for a display"),
        ({"BSOFTEN": 100.0, "BUNIT": "DN"}, "compressed by asinh"),
        ({"MAGZERO": 25.0, "MAGSYS": "Vega"}, "MAGSYS 'Vega'.*--zero-point"),
        ({"MAGZP": 20.5, "ORIGIN": "2MASS"}, "Vega .ORIGIN '2MASS'"),
        ({"MAGZERO": 25.0, "MAGZPT": 30.0}, "two zero points, MAGZERO 25 and MAGZPT 30"),
    ],
)
def test_an_open_question_names_the_option(header, what):
    with pytest.raises(UserError, match=what) as raised:
        calibration(header, "a.fits")
    assert str(raised.value).startswith("a.fits ")


def test_pixel_scale_by_world_coordinates():
    sky = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
    turned = np.deg2rad(33)
    cd = 0.262 / 3600 * np.array([[-np.cos(turned), np.sin(turned)], [np.sin(turned), np.cos(turned)]])
    matrix = {f"CD{i + 1}_{j + 1}": cd[i, j] for i in (0, 1) for j in (0, 1)}
    assert pixel_scale_of(sky | matrix) == pytest.approx(0.262)
    assert pixel_scale_of(sky | matrix | {"CDELT1": 1.0, "CDELT2": 1.0}) == pytest.approx(0.262)
    assert pixel_scale_of(sky | {"CDELT1": -0.2 / 3600, "CDELT2": 0.2 / 3600}) == pytest.approx(0.2)
    # As a stage 3 product of JWST has it.
    jwst = {"PC1_1": -0.6468, "PC1_2": -0.76267, "PC2_1": -0.76267, "PC2_2": 0.6468}
    jwst |= {"CDELT1": 0.03 / 3600, "CDELT2": 0.03 / 3600, "CUNIT1": "deg", "CUNIT2": "deg"}
    assert pixel_scale_of(sky | jwst) == pytest.approx(0.03, rel=1e-4)
    arcsec = {"CDELT1": 0.5, "CDELT2": 0.5, "CUNIT1": "arcsec", "CUNIT2": "arcsec"}
    assert pixel_scale_of(sky | arcsec) == pytest.approx(0.5)
    oblong = {"CDELT1": 0.2 / 3600, "CDELT2": 0.8 / 3600}
    assert pixel_scale_of(sky | oblong) == pytest.approx(0.4)


def test_pixel_scale_by_a_card_or_not_at_all():
    assert pixel_scale_of({"PIXSCALE": 0.396}) == 0.396
    # The defaults of world coordinates are a degree a pixel, and no axis is on the sky.
    assert pixel_scale_of({"CDELT1": 1.0, "CDELT2": 1.0}) is None
    assert pixel_scale_of({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": 1.0, "CDELT2": 1.0}) is None
    assert pixel_scale_of({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}) is None
    assert pixel_scale_of({"CTYPE1": "WAVE", "CTYPE2": "DEC--TAN", "CDELT1": 1e-5, "CDELT2": 1e-5}) is None
    assert pixel_scale_of({"PIXSCALE": True, "SECPIX": float("inf")}) is None


def test_distances_across_the_sky_against_astropy():
    """Between places in two images at a declination of 60 degrees, on either side of the first hour."""
    wcs = pytest.importorskip("astropy.wcs")
    sky = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 20.5, "CRPIX2": 30.0, "CDELT1": -1e-4, "CDELT2": 1e-4}
    one = sky | {"CRVAL1": 359.999, "CRVAL2": 60.0, "PC1_1": 0.8, "PC1_2": 0.6, "PC2_1": -0.6, "PC2_2": 0.8}
    other = sky | {"CRVAL1": 0.002, "CRVAL2": 60.001, "CRPIX1": 3.0}
    places = [wcs.WCS(header).pixel_to_world(x - 1, y - 1) for header, x, y in ((one, 12, 50), (other, 40, 8))]
    frames = [sky_frame_of(header) for header in (one, other)]
    found = frames[0].distance(12, 50, frames[1], 40, 8)
    assert found == pytest.approx(places[0].separation(places[1]).arcsec, rel=1e-3)
    assert frames[0].is_turned(frames[1]) and not frames[0].is_turned(frames[0])
    mirrored = sky_frame_of(other | {"CDELT1": 1e-4})
    assert frames[1].is_turned(mirrored)
    assert not frames[1].is_turned(sky_frame_of(other | {"CDELT1": -3e-4, "CDELT2": 3e-4}))  # of other pixels alone
