"""The proof of intrinsic light: what it makes of the true light is what the mock survey sees, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import prepare_data
from galaxies.common.errors import UserError
from galaxies.datasets import writing
from galaxies.datasets.prepared import PreparedDataset
from galaxies.mock_survey import band_observation, band_writing
from galaxies.telescope.psf import Psf
from galaxies.validation.intrinsic_light import Light
from studies.intrinsic import _check_same, as_seen_by, band_limits, concentrations_compared, true_light

pytest.importorskip("surveycodex")
COMMAND = ["simulated", "--kind", "flux", "--bands", "g,r,i", "--count", "12", "--seed", "3", "--allow-empty-class"]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """A mock survey that keeps all of its light, and another one of the same galaxies."""
    folder, found = tmp_path_factory.mktemp("surveys"), []
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(band_observation, "BLOCK", 4)
        for module in (band_writing, writing):
            patches.setattr(module, "split_of", lambda object_id: band_writing.INTRINSIC_SPLIT)
        for name, more in (("LSST", []), ("HSC", ["--chosen-by", "LSST"])):
            prepare_data.main([*COMMAND, "--survey", name, *more, "--out", str(folder / name)])
            found.append(PreparedDataset.open(folder / name))
    return found


def sampler_of(data: PreparedDataset, scale: float = 0.1) -> SimpleNamespace:
    return SimpleNamespace(light_pixel_scale=scale, config=SimpleNamespace(**data.settings(())))


def test_the_true_light_through_another_telescope_is_what_it_saw(datasets):
    lsst, hsc = datasets
    sampler = sampler_of(lsst)
    light = torch.from_numpy(np.array(true_light(lsst, sampler)))
    assert len(light) == 12
    rows = np.arange(12)
    seen = as_seen_by(sampler, light, hsc, rows, seed=1).numpy()
    own = hsc.images[rows]
    assert seen.shape == own.shape
    noise = hsc.noise(rows)[..., None, None]
    # Two pictures with the noise of the sky each, where there is no galaxy; the light of all of the frame.
    corners = ((seen - own) / noise)[..., :8, :8]
    assert corners.std() == pytest.approx(2**0.5, rel=0.05)
    fluxes = [each.sum((2, 3)) for each in (seen, own)]
    np.testing.assert_allclose(fluxes[0][:, 1], fluxes[1][:, 1], rtol=0.03)
    np.testing.assert_allclose(fluxes[0], fluxes[1], rtol=0.1)  # lines between bands are no spectra
    # Bands are told apart by their wavelengths, not by their order.
    other = SimpleNamespace(light_pixel_scale=0.1, config=SimpleNamespace(wavelengths=sampler.config.wavelengths[::-1]))
    turned = as_seen_by(other, light.flip(1), hsc, rows, seed=1).numpy()
    np.testing.assert_allclose(turned, seen, rtol=1e-4, atol=1e-3 * noise.max())
    middle = slice(24, 40)  # where the PSF decides; in one band of another width it would be off by a tenth
    peaks = [each[..., middle, middle].max((2, 3)) for each in (seen, own)]
    assert np.median(peaks[0] / peaks[1]) == pytest.approx(1, abs=0.03)


def test_light_on_other_pixels_is_refused(datasets):
    with pytest.raises(UserError, match=r"has pixels of 0\.1 arcsec, that of the generator of 0\.05: train with"):
        true_light(datasets[0], sampler_of(datasets[0], 0.05))


def test_another_surveys_other_galaxies_are_refused(datasets):
    other = replace(datasets[1], catalogue=datasets[1].catalogue[::-1])
    with pytest.raises(UserError, match=r"hsc does not hold the galaxies of .*: make it with the same --count"):
        _check_same(datasets[0], other, Path("hsc"))


def test_the_band_limit_is_where_the_transfer_function_ends():
    # A Gaussian of full width w passes exp(-(pi f w)^2 / (4 ln 2)): a hundredth at f = sqrt(4 ln 2 ln 100) / (pi w).
    psf = Psf.named(torch.tensor([[0.8, 0.4]]), "gaussian")
    exact = [(4 * np.log(2) * np.log(100)) ** 0.5 / (np.pi * width) for width in (0.8, 0.4)]
    np.testing.assert_allclose(band_limits(psf, 256, 0.05), exact, atol=1 / (256 * 0.05))


def test_concentrations_of_parts_are_told_over_the_spread_of_all():
    classes = np.repeat([0, 1], 400)
    rng = np.random.default_rng(0)
    true = np.where(classes == 0, 2.5, 4.0) + 0.1 * rng.standard_normal(800)
    radius = np.tile([0.4, 1.2], 400)
    drawn = true.copy()
    drawn[classes == 1] += 0.3
    ours, theirs = (
        Light(
            values={"concentration": c, "half_light_radius": radius}, frequencies=np.ones(2), spectrum=np.ones((1, 1))
        )
        for c in (drawn, true)
    )
    found = concentrations_compared(ours, theirs, classes, ("spiral", "merger"), 0.8, seed=0)
    assert {name: cell["galaxies"] for name, cell in found.items()} == {
        **{"spiral": 400, "merger": 400},
        **{"smaller than the PSF's width": 400, "larger": 400},
    }
    whole = np.std(true)
    assert found["spiral"]["w1"] == pytest.approx(0, abs=1e-12)
    assert found["merger"]["w1"] == pytest.approx(0.3 / whole, rel=1e-6)  # all moved by as much
    assert found["merger"]["shift"] == pytest.approx(0.3 / whole, rel=0.05)
    assert found["larger"]["w1"] == pytest.approx(0.15 / whole, rel=1e-6)  # half of them moved
    assert 0 < found["spiral"]["floor"] < 0.05
