"""Photometry of flux against galaxies that GalSim draws, a few of those of `studies/flux_instruments.py`."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("galsim")
pytest.importorskip("scipy")

from studies.flux_instruments import bias_and_scatter, draw, observe

# Signal-to-noise ratio of the whole galaxy, and how far the mean absolute errors of magnitude, radius (relative) and
# ellipticity may go: a few faint galaxies have errors that no estimate could avoid.
CASES = [(20, 0.4, 0.5, 0.16), (100, 0.1, 0.15, 0.05), (1000, 0.04, 0.1, 0.03)]


@pytest.fixture(scope="module")
def truth():
    return draw(24, seed=3)


@pytest.mark.parametrize("significance, most", [(s, most) for s, *most in CASES], ids=[str(s) for s, *_ in CASES])
def test_magnitudes_radii_and_shapes_are_true(truth, significance, most):
    _, errors = observe(truth, significance)
    assert errors.found.all()
    for values, bound, bias in zip(errors[:3], most, (0.05, 0.1, 0.05), strict=True):
        assert np.abs(values).mean() < bound
        # Of 24 galaxies the median has an error of its own.
        assert abs(np.median(values)) < bias + 1.25 * bias_and_scatter(values)[1] / np.sqrt(len(values))
    assert 0.6 < bias_and_scatter(errors.pull)[1] < 2.2  # the noise tells how wrong a flux is


def test_the_wings_of_a_psf_do_not_count_as_the_galaxys():
    _, errors = observe(draw(24, seed=4, moffat=True), 300)
    assert abs(np.median(errors.radius)) < 0.08 and abs(np.median(errors.ellipticity)) < 0.03
    assert np.abs(errors.magnitude).mean() < 0.06


def test_bands_together_tell_more_than_one(truth):
    one, several = (observe(truth, 30 * scale, bands=bands)[1] for bands, scale in ((1, 1), (4, 2)))
    # The noise of each band is the same in both, so four of them know centre, shape and profile twice as well.
    assert np.abs(several.ellipticity).mean() < 0.75 * np.abs(one.ellipticity).mean()
