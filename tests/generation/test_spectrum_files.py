"""Spectra of generated galaxies: their files, by photometry of other means, and who can have none."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import generate_from_checkpoint
from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.generation.catalogue import generate_pictures
from galaxies.generation.fits_files import ImageFacts
from galaxies.generation.requests import requests_alike
from galaxies.generation.spectrum_files import check_spectra, spectrum_of, warnings_about, write_spectrum
from tests.conftest import tree_of
from tests.generation.painted import ATTRIBUTES, FLUX, GRIZ, painting_sampler, write_flux_checkpoint

fits = pytest.importorskip("astropy.io.fits")
EDGES = [(400.0, 552.0), (552.0, 691.0), (691.0, 818.0)]


def made(out, given, count=3, **settings):
    """Draw painted galaxies in g, r, i, z with their spectra; return the catalogue."""
    requests = requests_alike("disc", given, ATTRIBUTES, 3, count, FLUX["classes"])
    generate_pictures(painting_sampler(**{**GRIZ, **settings}), requests, out, {"png"}, with_spectra=True)
    return pd.read_csv(out / "catalogue.csv")


def photometry(wavelength, flux, low, high) -> float:
    """Return an AB magnitude by counting photons in fine steps."""
    grid = np.linspace(low, high, 20_001)
    grid = (grid[1:] + grid[:-1]) / 2
    return 31.4 - 2.5 * math.log10((np.interp(grid, wavelength, flux) / grid).sum() / (1 / grid).sum())


def test_a_file_has_the_galaxys_magnitudes_and_says_what_it_is(tmp_path, capsys):
    table = made(tmp_path, {"magnitude_r": 19.5, "color_g_r": 0.35, "size_arcsec": 1.0, "redshift": 0.25})
    assert "warning" not in capsys.readouterr().err
    assert sorted(f.name for f in (tmp_path / "spectra").iterdir()) == [f"{name}.fits" for name in table["file"]]
    for _, row in table.iterrows():
        with fits.open(tmp_path / "spectra" / f"{row['file']}.fits", checksum=True) as file:
            header, data = file["SPECTRUM"].header, file["SPECTRUM"].data
            units = [column.unit for column in file["SPECTRUM"].columns]
            wavelength, flux, per_angstrom = (np.array(data[name], float) for name in data.names)
        assert units == ["nm", "nJy", "erg s-1 cm-2 Angstrom-1"]
        for number, band in enumerate("griz", 1):
            assert header[f"BAND{number}"] == band
            assert header[f"MAG{number}"] == pytest.approx(row[f"measured_magnitude_{band}"], abs=1e-4)
            seen = photometry(wavelength, flux, header[f"BLOW{number}"], header[f"BHIGH{number}"])
            assert seen == pytest.approx(row[f"measured_magnitude_{band}"], abs=0.05)
            assert seen - header[f"MAG{number}"] == pytest.approx(header[f"RESID{number}"], abs=2e-3)
        assert header["CONTENT"] == "template, no observation"
        assert header["SYNTHETI"] is True
        assert header["SEED"] == str(row["seed"])
        assert header["RESOLVE"] == 100
        assert header["REDSHIFT"] == pytest.approx(0.25)
        assert "REQ1" in header and header["MORPHOL"] == "disc"
        from astropy import units as u

        expected = (flux * u.nJy).to(units[2], u.spectral_density(wavelength * u.nm)).value
        np.testing.assert_allclose(per_angstrom, expected, rtol=1e-6)


def test_colors_of_no_stars_are_warned_of(tmp_path, capsys):
    made(tmp_path, {"magnitude_r": 18.5, "color_g_r": 1.5, "size_arcsec": 1.0, "redshift": 0.02}, count=2)
    said = capsys.readouterr().err
    assert (
        "2 of 2 spectra are changed by more than 0.5 magnitudes, at most by " in said and "miss a magnitude" not in said
    )
    with fits.open(tmp_path / "spectra/galaxy_00000.fits") as file:
        header, data = file[1].header, file[1].data
        wavelength, flux = (np.array(data[name], float) for name in ("wavelength", "flux"))
    assert header["CORRECT"] > 0.5 and header["WORST"] < 0.05
    assert header["WORST"] == pytest.approx(max(abs(header[f"RESID{k}"]) for k in (1, 2, 3, 4)), abs=1e-3)
    for k in (1, 2, 3, 4):
        assert photometry(wavelength, flux, header[f"BLOW{k}"], header[f"BHIGH{k}"]) == pytest.approx(
            header[f"MAG{k}"], abs=0.05
        )


def test_what_noise_hides_is_said(tmp_path, capsys):
    made(tmp_path, {"magnitude_r": 20.0, "color_g_r": 0.4, "redshift": 0.2}, count=2)
    assert "below twice its noise" not in capsys.readouterr().err
    seen = {"measured_magnitude_r": 20.0, "measured_magnitude_i": 19.7}
    faint = spectrum_of(row_of(measured_magnitude_g=math.nan, requested_color_g_r=0.6, **seen), ("g", "r", "i"), EDGES)
    unknown = spectrum_of(row_of(**seen), ("g", "r", "i"), EDGES)
    whole = spectrum_of(row_of(measured_magnitude_g=20.6, **seen), ("g", "r", "i"), EDGES)
    said = "of 2 of 3 galaxies a band's light is below twice its noise"
    assert [text.startswith(said) for text in warnings_about([faint, whole, unknown])] == [True]
    assert warnings_about([whole]) == []
    headers = []
    for found in (faint, unknown):
        with (tmp_path / "one.fits").open("wb") as file:
            row = row_of(morphology="disc", seed=1, flag=0, supported=True, support="like", nearest_real=math.nan)
            write_spectrum(file, found, row, (), ImageFacts(bands=("g", "r", "i")), EDGES)
        headers.append(fits.getheader(tmp_path / "one.fits", 1))
    assert headers[0]["MAG1"] == pytest.approx(20.6)
    assert headers[0].comments["MAG1"] == "AB, requested: light below twice its noise"
    assert headers[0].comments["MAG2"] == "AB, measured"
    assert "MAG1" not in headers[1] and "RESID1" not in headers[1]
    assert "g: left out, since its light is below twice its noise" in str(headers[1]["COMMENT"])


def test_the_same_galaxies_have_the_same_bytes_and_leave_nothing_behind(tmp_path):
    given = {"magnitude_r": 19.5, "color_g_r": 0.4, "redshift": 0.2}
    made(tmp_path / "one", given)
    made(tmp_path / "two", given)
    assert tree_of(tmp_path / "one") == tree_of(tmp_path / "two")
    requests = requests_alike("disc", given, ATTRIBUTES, 3, 3, FLUX["classes"])
    generate_pictures(painting_sampler(**GRIZ), requests, tmp_path / "one", {"png"})
    assert not any(name.startswith("spectra/") for name in tree_of(tmp_path / "one"))


def row_of(**values) -> pd.Series:
    return pd.Series({"requested_redshift": 0.2, **values})


def test_a_requested_magnitude_or_color_stands_in_for_one_that_is_not_measured():
    row = row_of(
        measured_magnitude_g=math.nan, measured_magnitude_r=20.0, measured_magnitude_i=math.nan,
        requested_color_g_r=0.6, requested_magnitude_i=19.7,
    )  # fmt: skip
    found = spectrum_of(row, ("g", "r", "i"), EDGES)
    assert found.magnitudes == pytest.approx([20.6, 20.0, 19.7])
    assert found.origins == ["requested", "measured", "requested"]
    turned = spectrum_of(row_of(requested_magnitude_g=20.6, requested_color_g_r=0.6), ("g", "r", "i"), EDGES)
    assert turned.magnitudes[:2] == pytest.approx([20.6, 20.0])
    assert math.isnan(turned.magnitudes[2])
    assert turned.fitted is not None and math.isnan(turned.fitted.residuals[2])


def test_galaxies_without_a_redshift_or_magnitudes_have_none_and_that_is_said():
    unknown = spectrum_of(row_of(measured_magnitude_g=20.0, measured_magnitude_r=19.0, requested_redshift=math.nan),
                          ("g", "r", "i"), EDGES)  # fmt: skip
    single = spectrum_of(row_of(measured_magnitude_g=20.0), ("g", "r", "i"), EDGES)
    assert unknown.fitted is None and single.fitted is None
    assert "redshift" in unknown.reason and "fewer than 2" in single.reason
    assert warnings_about([unknown, unknown, single])[0].startswith(
        "3 of 3 galaxies have no spectrum: its redshift is not known"
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "flux does not know where g, r, i, Ks lie"),
        ({**GRIZ, "wavelengths": (486.0, 625.0, 756.0, 0.0)}, "does not know where g, r, i, z lie"),
        (
            {**GRIZ, "attributes": ("magnitude_r",), "attribute_ranges": (18.0, 22.0)},
            "flux was trained with magnitude_r",
        ),
    ],
)
def test_runs_that_can_have_no_spectra_are_told_so(settings, text):
    config = Config(**{**FLUX, "run": "flux", **settings})
    with pytest.raises(UserError, match=rf"--spectrum is for runs of flux that know .*{text}"):
        check_spectra(config)


def test_the_command_refuses_pictures_and_shards(tmp_path, untrained):
    argv = ["--device", "cpu", "--count", "2", "--spectrum", "--morphology"]
    with pytest.raises(UserError, match="draws pictures, whose colors are no fluxes"):
        generate_from_checkpoint.main(
            [*argv, "spiral", "--checkpoint", str(untrained["gan"]), "--out", str(tmp_path / "a")]
        )
    checkpoint = write_flux_checkpoint(tmp_path / "run/latest.pt", **GRIZ)
    with pytest.raises(UserError, match="--spectrum is for images of which each has a file of its own"):
        generate_from_checkpoint.main(
            [*argv, "disc", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "b"), "--shard-size", "2"]
        )
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
