"""What is read with statmorph: of the galaxy in the middle alone, with known shapes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from galaxies.measure import with_statmorph
from galaxies.measure.with_statmorph import read_with_statmorph
from tests.measure.test_photometry import fine_grid, picture, profile, star, true_size


def test_the_galaxy_in_the_middle_is_read_and_nothing_else():
    pytest.importorskip("statmorph")
    light = profile("gaussian", 0.09, 0.4, 30)
    beside = (picture(light, noise=0.004) + 0.9 * star(-0.3, 0.3, 1.5)).clamp(max=1)
    far = picture(profile("gaussian", 0.05, x0=0.3), noise=0.004)
    blank = torch.full((3, 64, 64), 0.1)
    images = (torch.stack([beside, far, blank]) * 255).round().to(torch.uint8)
    values, flags = read_with_statmorph(images, "")
    assert flags[0] < 2 and flags[1:].tolist() == [4, 4]
    assert all(np.isnan(column[1:]).all() for column in values.values())
    assert values["size"][0] == pytest.approx(true_size(light), rel=0.02)
    assert values["ellipticity"][0] == pytest.approx(0.4, abs=0.02)
    r = np.sort(np.hypot(*fine_grid(64)).ravel())
    growth = light.ravel()[np.hypot(*fine_grid(64)).ravel().argsort()].cumsum()
    r20, r80 = (r[np.searchsorted(growth, part * growth[-1])] for part in (0.2, 0.8))
    assert values["concentration"][0] == pytest.approx(5 * np.log10(r80 / r20), abs=0.05)


def test_what_statmorph_could_not_compute_is_unknown(monkeypatch):
    found = dict.fromkeys(with_statmorph._QUANTITIES, 0.3) | {"rhalf_circ": 8.0, "concentration": 2.5}
    marked = [{"flag": 1, **found, name: -99.0} for name in ("rhalf_circ", "ellipticity_asymmetry", "concentration")]
    answers = iter(SimpleNamespace(**case) for case in [{"flag": 0, **found}, *marked, {"flag": 2, **found}])
    monkeypatch.setattr(with_statmorph, "_read", lambda light: next(answers))
    values, flags = read_with_statmorph(torch.zeros(5, 3, 32, 32, dtype=torch.uint8), "")
    assert flags.tolist() == [0, 1, 1, 1, 2]
    unknown = np.nan
    np.testing.assert_array_equal(values["size"], [0.25, unknown, 0.25, 0.25, unknown])
    np.testing.assert_array_equal(values["ellipticity"], [0.3, 0.3, unknown, 0.3, unknown])
    np.testing.assert_array_equal(values["concentration"], [2.5, 2.5, 2.5, unknown, unknown])
