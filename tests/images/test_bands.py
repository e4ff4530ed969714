"""What headers call bands: names in the wild, cubes named in every way, and which planes become a colour image."""

from __future__ import annotations

import pytest

from galaxies.images.bands import band_in, bands_of_planes, composite


# Pivot or central wavelengths, nm, by the observatories' documents, to a tenth.
@pytest.mark.parametrize(
    "text, nm",
    [
        ("r", 620),
        ("SDSS_g", 475),
        ("HSC-I2", 770),
        ("z DECam SDSS c0001 9260.0 1520.0", 926),
        ("r.MP9602", 640),
        ("VIS", 710),
        ("Ks", 2150),
        ("F814W", 803),
        ("F606W", 592),
        ("F160W", 1537),
        ("F090W", 903),
        ("F200W", 1989),
        ("F444W", 4408),
        ("F770W", 7700),
        ("F1500W", 15_000),
        ("F435W", 433),
        ("CLEAR1L F775W", 769),
    ],
)
def test_names_in_the_wild(text, nm):
    assert band_in(text).wavelength == pytest.approx(nm, rel=0.1)


@pytest.mark.parametrize("text", ["", "clear", "SCI", "COMPRESSED_IMAGE", "Q  )x9", "F12", "image"])
def test_what_is_no_band(text):
    assert band_in(text) is None


@pytest.mark.parametrize(
    "header",
    [
        {"BANDS": "grz"},
        {"BANDS": "g,r,z"},
        {"BANDS": "['g', 'r', 'z']"},
        {"FILTER": "g r z"},
        {"BAND": "DES-g DES-r DES-z"},
        {"BAND0": "g", "BAND1": "r", "BAND2": "z"},
        {"FILTER1": "g", "FILTER2": "r", "FILTER3": "z"},
        {"CTYPE3": "WAVE", "CUNIT3": "nm", "CRVAL3": 480, "CDELT3": 200, "CRPIX3": 1},
        {"CTYPE3": "AWAV", "CUNIT3": "Angstrom", "CRVAL3": 6800, "CD3_3": 2000.0, "CRPIX3": 2},
        {"CTYPE3": "FREQ", "CUNIT3": "Hz", "CRVAL3": 6e14, "CDELT3": -1e14},
    ],
)
def test_cubes_say_their_bands_in_many_ways(header):
    bands = bands_of_planes(header, 3, 3)
    assert composite(bands).planes == ((2,), (1,), (0,))


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"BANDS": "gr"},  # of three planes
        {"BANDS": "grr"},
        {"BANDS": "abc"},
        {"BAND0": "g", "BAND1": "r"},
        {"CTYPE3": "VELO", "CRVAL3": 1.0, "CDELT3": 1.0},
        {"CTYPE3": "WAVE", "CUNIT3": "furlong", "CRVAL3": 480, "CDELT3": 200},
        {"CTYPE3": "WAVE", "CRVAL3": "480", "CDELT3": 200},
        {"CTYPE3": "FREQ", "CRVAL3": 1e14, "CDELT3": -1e14},  # ends below 0
    ],
)
def test_what_names_no_bands(header):
    assert bands_of_planes(header, 3, 3) is None


@pytest.mark.parametrize(
    "names, chosen",
    [
        ("rgb".upper(), "RGB"),
        ("BGR", "RGB"),
        ("gri", "irg"),
        ("zgr", "zrg"),
        ("griz", "irg"),
        ("grizy", "irg"),
        ("ugrz", "zrg"),
        ("JHKu", "KJu"),
        ("YJHK", "KJY"),
    ],
)
def test_red_is_the_longest_and_blue_the_shortest(names, chosen):
    bands = [band_in(name) for name in names]
    found = composite(bands)
    assert "".join(names[k] for part in found.planes for k in part) == chosen
    assert found.note.startswith(f"bands {', '.join(chosen)} as red, green, blue")
    assert all(name in found.note for name in names)


def test_the_green_of_two_is_their_mean():
    found = composite([band_in("F606W"), band_in("F814W")])
    assert found.planes == ((1,), (1, 0), (0,)) and found.note == "bands F814W and F606W as red and blue"
