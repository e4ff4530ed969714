"""How nearly spectra have their magnitudes: flat ones, whose magnitudes a formula knows, and mock galaxies."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import prepare_data
from galaxies.common.errors import UserError
from galaxies.generation.spectrum_files import SpectrumOf
from galaxies.spectra.fitting import FittedSpectrum
from studies import spectra

EDGES = [(400.0, 550.0), (550.0, 700.0), (700.0, 1200.0)]


def flat(slope: float, *magnitudes: float) -> SpectrumOf:
    wavelength = np.geomspace(300, 1000, 4000)
    fitted = FittedSpectrum(wavelength, 1000 * (wavelength / 500) ** slope, 0.1, 0.5, 0.0, 0.0, np.zeros(3))
    return SpectrumOf(np.array(magnitudes), ["measured"] * 3, fitted)


def test_what_is_missed_is_told_by_a_formula():
    # 1000 nJy are 31.4 - 7.5 AB; the spectrum ends within the third band.
    found = spectra.missed(flat(0, 23.9, 24.0, 24.0), EDGES)
    assert found[:2] == pytest.approx([0.0, -0.1], abs=1e-5) and math.isnan(found[2])
    # The mean of a power law over the logarithm of wavelength.
    mean = 1000 * ((550 / 500) ** 2 - (400 / 500) ** 2) / 2 / math.log(550 / 400)
    assert spectra.missed(flat(2, 20.0, 20.0, 20.0), EDGES)[0] == pytest.approx(
        31.4 - 2.5 * math.log10(mean) - 20, abs=1e-4
    )
    assert math.isnan(spectra.missed(flat(0, math.nan, 24, 24), EDGES)[0])


def test_galaxies_of_the_mock_survey_and_of_pictures(tmp_path, capsys, data):
    out = tmp_path / "lsst"
    options = ["--survey", "LSST", "--bands", "g,r,i", "--count", "12", "--device", "cpu", "--out", str(out)]
    prepare_data.main(["simulated", "--kind", "flux", *options, "--allow-empty-class"])
    capsys.readouterr()
    spectra.main(["--data", str(out), "--count", "10"])
    said = json.loads(capsys.readouterr().out)["catalogue"]
    assert said["galaxies"] == 10 and said["without"] == {} and said["origins"] == {"measured": 30}
    assert 0 <= said["median"] <= said["percentile_90"] <= said["largest"] < 0.05
    with pytest.raises(UserError, match="is no dataset of flux that knows where its bands lie"):
        spectra.main(["--data", str(data.path)])
