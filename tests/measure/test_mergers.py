"""Marks of mergers: known answers, invariances, and what statmorph says."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from galaxies.measure.mergers import VISIBLE_NUCLEUS
from galaxies.measure.photometry import measure_with_morphology
from galaxies.measure.sky import estimate_sky
from galaxies.measure.source import find_source
from tests.measure.spirals import spiral
from tests.measure.test_photometry import picture, profile, star


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mergers(*images):
    """Return the marks of mergers by name, arrays (N,)."""
    return {name: v.numpy() for name, v in measure_with_morphology(torch.stack(images))[3]._asdict().items()}


def pair(ratio, apart=0.16, side=64, noise=0.004, seed=0):
    """Return two Gaussians of one size, the second so many times as bright."""
    one, two = (profile("gaussian", 0.035, x0=x, side=side) for x in (-apart / 2, apart / 2))
    return picture(one + ratio * two, noise=noise, seed=seed)


@pytest.mark.parametrize("side", [64, 128])
def test_light_of_a_second_nucleus(side):
    ratios = np.array([1.0, 0.6, 0.3])
    found = mergers(*(pair(ratio, side=side) for ratio in ratios))["second_nucleus"]
    np.testing.assert_allclose(found, ratios, rtol=0.15)
    # A nucleus that the other outshines is none.
    assert mergers(pair(0.5, apart=0.03, side=side))["second_nucleus"][0] < 0.1


def test_light_that_is_faint_beside_the_nucleus_is_no_second_one():
    """However much of it there is: below a fifth of the mean of all that is brighter the map of nuclei ends."""
    core = profile("gaussian", 0.035, x0=-0.12)
    wide = profile("gaussian", 0.12, x0=0.14) / profile("gaussian", 0.12).max() * core.max()
    faint, clear = mergers(*(picture(core + part * wide, noise=0.001) for part in (0.03, 0.3)))["second_nucleus"]
    assert faint < 0.05 and clear > 0.3  # though even the faint one has a third of its light


def test_a_fifth_of_the_light_is_a_visible_nucleus():
    """As Freeman et al. (2013) count pairs; a nucleus of a quarter is seen, one of a seventh is not."""
    seen, unseen = mergers(pair(0.26, apart=0.2), pair(0.14, apart=0.2))["second_nucleus"]
    assert seen > VISIBLE_NUCLEUS > unseen > 0.05


def test_single_galaxies_have_one_nucleus():
    single = [picture(profile(kind, 0.09, 0.3, 40), noise=0.01) for kind in ("exponential", "de_vaucouleurs")]
    assert (mergers(*single, spiral(0))["second_nucleus"] < 0.5 * VISIBLE_NUCLEUS).all()


def test_a_tail_makes_the_outline_asymmetric_however_faint():
    smooth = spiral(0, scale_length=0.05, noise=0.01)
    axis = (torch.arange(64) - 31.5) / 64
    x, y = axis, axis[:, None]
    tail = 0.12 * ((x > 0.05) & (x < 0.4) & ((y - 0.05).abs() < 0.04))
    both = tail + tail.flip(0, 1)  # a half turn maps them onto each other
    plain, one, two = mergers(smooth, smooth + tail, smooth + both)["shape_asymmetry"]
    brighter = mergers(smooth + 2 * tail)["shape_asymmetry"][0]
    assert plain < 0.12 and two < 0.15
    # The tail's pixels outside of the disc and as many that lack opposite it, over all.
    assert one > plain + 0.15 and brighter == pytest.approx(one, abs=0.08)


def test_light_in_two_places_lies_above_the_line():
    two, one, disc = mergers(
        pair(1.0, apart=0.22), *(picture(profile(k, 0.08)) for k in ("de_vaucouleurs", "exponential"))
    )["gini_m20_merger"]
    assert two > 0 > one and two > disc


def test_the_line_is_that_of_lotz_et_al():
    image = pair(0.7)
    structure, marks = measure_with_morphology(image[None])[1::2]
    # G > -0.14 M20 + 0.33 (Lotz et al. 2008, eq. 4).
    expected = structure.gini - (-0.14 * structure.m20 + 0.33)
    torch.testing.assert_close(marks.gini_m20_merger, expected)


def test_turns_flips_and_units():
    image = pair(0.5) + 0.1 * spiral(0, x0=0.1, noise=0)
    turned = [image.rot90(k, (1, 2)) for k in range(4)] + [image.flip(1), image.flip(2)]
    for name, values in mergers(*turned).items():
        np.testing.assert_allclose(values, values[0], rtol=0.03, atol=0.02, err_msg=name)
    counts = [measure_with_morphology(unit * (image[None] - 0.1), counts=True)[3] for unit in (1, 40)]
    for one, other in zip(*counts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_odd_frames_stay_finite_and_are_measured_alone():
    frames = [
        pair(0.5),
        torch.full((3, 64, 64), 0.1),
        torch.zeros(3, 64, 64),
        torch.stack(3 * [star(0, 0, 0.3)]),
        pair(1.0, 0.9),
    ]
    frames.append(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1)))
    together = mergers(*frames)
    for name, values in together.items():
        assert np.isfinite(values).all()
        for k, frame in enumerate(frames):
            assert values[k] == pytest.approx(mergers(frame)[name][0], rel=1e-4, abs=1e-5)
    assert ((together["second_nucleus"] >= 0) & (together["second_nucleus"] <= 1)).all()
    assert all(len(v) == 0 for v in measure_with_morphology(torch.zeros(0, 3, 64, 64))[3])


@pytest.mark.slow  # loading it takes seconds
def test_statmorph_agrees_on_second_nuclei():
    statmorph = pytest.importorskip("statmorph")
    images = torch.stack([pair(r, apart=a, seed=k) for k, (r, a) in enumerate([(1, 0.12), (0.5, 0.12), (0.7, 0.13)])])
    sky = estimate_sky(images)
    light = (images - sky.level[..., None, None]).mean(1)
    source = find_source(light, sky)
    theirs = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for plane, mask in zip(light.double().numpy(), source.mask.numpy(), strict=True):
            theirs.append(statmorph.SourceMorphology(plane, mask.astype(int), 1, gain=1e4).intensity)
    np.testing.assert_allclose(mergers(*images)["second_nucleus"], theirs, rtol=0.1, atol=0.03)
