"""Sizes on flux against statmorph and photutils, by the tools of `studies/flux_sizes.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.conftest import ROOT

pytest.importorskip("statmorph")
pytest.importorskip("photutils")
from studies.flux_sizes import Cutout, compare, cutouts

SIDE = 96
IMAGES = ROOT.parent / "shared" / "science_images"


def disc(scale_length: float) -> np.ndarray:
    """An exponential disc, seen at 45 degrees, with noise of 1 and a signal-to-noise ratio a pixel far above it."""
    axis = (np.arange(5 * SIDE) - (5 * SIDE - 1) / 2) / 5
    radius = np.hypot(axis, axis[:, None] * math.sqrt(2))
    light = 400 * np.exp(-radius / scale_length).reshape(SIDE, 5, SIDE, 5).mean((1, 3))
    return light + np.random.default_rng(3).normal(size=light.shape)


def test_a_disc_is_as_large_as_statmorph_and_photutils_find_it_whatever_is_added():
    row = compare(Cutout("none", "disc", disc(5.0)))
    assert row.reference.doubt == ""
    ratios = row.ratios()
    assert math.isnan(ratios.pop("half, catalogue"))
    assert all(ratio == pytest.approx(1, abs=0.05) for ratio in ratios.values())
    # Twice the size, which only what is measured can tell: the ratio is no constant.
    larger = compare(Cutout("none", "disc", disc(7.0)))
    assert larger.ours["ours"][1] / row.ours["ours"][1] == pytest.approx(1.4, abs=0.03)


def test_what_is_no_reference_is_said():
    faint = np.random.default_rng(4).normal(size=(SIDE, SIDE)) + 0.01 * disc(5.0)
    assert compare(Cutout("none", "faint", faint)).reference.doubt in ("noise", "no galaxy found")
    assert compare(Cutout("none", "large", disc(10.0))).reference.doubt == "fills its frame"
    beside = disc(5.0) + 30 * np.roll(disc(2.0), (0, 24), (0, 1))
    assert compare(Cutout("none", "pair", beside)).reference.doubt == "neighbours or bad pixels on it"


@pytest.mark.slow
@pytest.mark.skipif(not IMAGES.is_dir(), reason="the telescopes' images are not here")
def test_sizes_on_images_of_telescopes_are_those_of_statmorph_photutils_and_the_catalogue():
    rows = [row for row in map(compare, cutouts(IMAGES)) if row.compared()]
    assert len(rows) >= 25
    for name in rows[0].ratios():
        values = np.array([row.ratios()[name] for row in rows])
        values = values[np.isfinite(values)]
        assert np.median(values) == pytest.approx(1, abs=0.03), name
        assert (np.abs(values - 1) <= 0.05).mean() > 0.6, name
