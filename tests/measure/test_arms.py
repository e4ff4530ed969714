"""Arms: known answers on discs by formula, what has none, and invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.measure.arms import LOOSEST, TIGHTEST, VISIBLE_ARMS
from galaxies.measure.photometry import measure_with_morphology
from tests.measure.spirals import spiral
from tests.measure.test_photometry import picture, profile, star


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def arms_of(*images, counts=False):
    """Return strength, number and pitch of arms in pictures, arrays (N,)."""
    return [values.numpy() for values in measure_with_morphology(torch.stack(images), counts=counts)[2]]


def drawn(count, side, inclinations, arms, seed=0):
    """Draw spirals at random; return their pictures, and pitches with the sign of winding."""
    rng = np.random.default_rng(seed)
    pitches = rng.uniform(15, 32, count) * rng.choice([-1, 1], count)
    return [
        spiral(
            arms,
            pitch,
            side=side,
            inclination=rng.uniform(*inclinations),
            angle=rng.uniform(0, 180),
            phase=rng.uniform(0, 6),
            x0=rng.uniform(-0.02, 0.02),
            seed=k,
        )
        for k, pitch in enumerate(pitches)
    ], pitches


# Known answers


@pytest.mark.parametrize(("side", "inclinations"), [(64, (0, 30)), (128, (0, 30)), (128, (45, 60))])
def test_number_pitch_and_winding_of_arms(side, inclinations):
    right, wound, off = [], [], []
    for arms in (2, 3, 4, 5) if inclinations[1] < 45 else (2, 3, 4):
        pictures, pitches = drawn(8 if side == 64 else 5, side, inclinations, arms, seed=arms)
        strength, count, pitch = arms_of(*pictures)
        assert (strength > 0).all()
        right += (count == arms).tolist()
        wound += (np.sign(pitch) == np.sign(pitches)).tolist()
        off += np.abs(pitch - pitches)[count == arms].tolist()
    assert np.mean(right) >= 0.95 and all(wound)
    assert np.mean(off) < 3 and np.quantile(off, 0.9) < 6


def test_one_arm_is_counted_and_adds_no_strength_to_two_or_more():
    pictures, _ = drawn(6, 64, (0, 20), 1)
    strength, count, _ = arms_of(*pictures)
    assert (count == 1).all() and (strength < 0.35 * 0.35).all()


def test_strength_is_the_amplitude_of_arms():
    amplitudes = np.array([0.1, 0.2, 0.4])
    sharp = [spiral(2, 20, a, side=128, psf=0, bulge=0, noise=0.003) for a in amplitudes]
    np.testing.assert_allclose(arms_of(*sharp)[0], amplitudes, rtol=0.1)
    # What a PSF and a bulge take of it is the same part of arms of any strength.
    seen = arms_of(*(spiral(2, 20, a, noise=0.003) for a in amplitudes))[0]
    np.testing.assert_allclose(seen / amplitudes, (seen / amplitudes).mean(), rtol=0.04)
    assert 0.5 < (seen / amplitudes).mean() < 0.95


def test_pitch_is_exact_without_a_psf():
    asked = [(3, 20.0), (4, -28.0), (3, 28.0)]
    found = arms_of(*(spiral(m, pitch, side=128, psf=0, bulge=0, noise=0.003) for m, pitch in asked))[2]
    np.testing.assert_allclose(found, [pitch for _, pitch in asked], atol=0.25)


def test_two_patterns_add_in_squares():
    pictures = [spiral(m, 20, 0.3, side=128, psf=0, bulge=0, noise=0) for m in (2, 3)]
    smooth = spiral(0, side=128, psf=0, bulge=0, noise=0)
    both = pictures[0] + pictures[1] - smooth
    first, second, together = arms_of(*pictures, both)[0]
    assert together == pytest.approx(np.hypot(first, second), rel=0.1)


@pytest.mark.parametrize("side", [64, 128])
def test_what_has_no_arms_has_no_strength(side):
    rng = np.random.default_rng(3)
    smooth = [
        spiral(0, side=side, inclination=i, angle=rng.uniform(0, 180), x0=rng.uniform(-0.02, 0.02), seed=k, noise=noise)
        for k, (i, noise) in enumerate([(0, 0.01), (30, 0.01), (60, 0.01), (0, 0.03), (30, 0.03), (60, 0.03)] * 2)
    ]
    strength = arms_of(*smooth)[0]
    assert strength.max() < 0.4 * VISIBLE_ARMS and (strength == 0).mean() >= 0.5


def test_ellipticals_have_no_arms():
    rng = np.random.default_rng(5)
    pictures = [
        picture(profile("de_vaucouleurs", 0.08, e, rng.uniform(0, 180), x0=0.01), noise=0.01, seed=k)
        for k, e in enumerate((0, 0.2, 0.4, 0.6) * 2)
    ]
    assert arms_of(*pictures)[0].max() < 0.4 * VISIBLE_ARMS


def test_bars_and_wrong_inclinations_are_no_arms():
    bar = spiral(0, noise=0.003) + 0.3 * torch.from_numpy(bar_light(64, 25)).float()
    strength = arms_of(bar)[0]
    assert strength.max() < 0.3 * VISIBLE_ARMS


def bar_light(side, angle):
    axis = (np.arange(side) - (side - 1) / 2) / side
    x, y = np.meshgrid(axis, axis)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.exp(-(((cos * x + sin * y) / 0.1) ** 2) - ((cos * y - sin * x) / 0.025) ** 2)


def test_a_star_on_a_smooth_disc_makes_no_arms():
    smooth, marked = (spiral(0, scale_length=0.12, noise=0.003) + s for s in (0, 0.5 * star(0.12, 0.05, 1.0)))
    arms = spiral(2, scale_length=0.12, noise=0.003)
    plain, with_star, spirals = arms_of(smooth, marked, arms)[0]
    assert plain < 0.02 and with_star < 0.6 * VISIBLE_ARMS < VISIBLE_ARMS < spirals


# Invariances


def test_turns_and_mirrors():
    image = spiral(3, 22, inclination=35, angle=40, noise=0.004)
    strength, count, pitch = arms_of(
        *(image.rot90(k, (1, 2)) for k in range(4)), image.flip(1), image.flip(2), image.transpose(1, 2)
    )
    np.testing.assert_allclose(strength, strength[0], rtol=0.02)
    assert (count == 3).all()
    np.testing.assert_allclose(pitch[:4], pitch[0], rtol=0.02)
    np.testing.assert_allclose(pitch[4:], -pitch[0], rtol=0.02)
    assert pitch[0] == pytest.approx(22, abs=3)


def test_inclination_and_pixels_change_little():
    strengths = [
        arms_of(spiral(2, 25, side=side, inclination=i, angle=70, noise=0.004))[0][0]
        for side in (64, 128)
        for i in (0, 30, 55)
    ]
    np.testing.assert_allclose(strengths, np.mean(strengths), rtol=0.2)


@pytest.mark.parametrize("unit", [0.5, 30.0])
def test_units_of_counts_do_not_matter(unit):
    image = spiral(2, 20) - 0.05
    one, other = arms_of(image, counts=True), arms_of(unit * image, counts=True)
    np.testing.assert_allclose(one, other, rtol=2e-3)


def test_an_image_is_measured_alone_and_always_finite():
    blank, noisy = torch.full((3, 64, 64), 0.1), torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    broken = spiral(2)
    broken[:, 20:24] = torch.nan
    images = [spiral(2), blank, noisy, broken, star(0.3, 0.3, 2.0) + spiral(2), torch.zeros(3, 64, 64)]
    together = arms_of(*images)
    for k, image in enumerate(images):
        for whole, alone in zip(together, arms_of(image), strict=True):
            assert np.isfinite(whole[k]) and whole[k] == pytest.approx(alone[0], rel=1e-4, abs=1e-5)
    strength, count, pitch = together
    assert (strength >= 0).all() and np.isin(count, range(1, 7)).all()
    assert (np.abs(pitch) >= TIGHTEST).all() and (np.abs(pitch) <= LOOSEST).all()
    assert strength[1] == strength[5] == 0
    assert all(len(values) == 0 for values in measure_with_morphology(torch.zeros(0, 3, 64, 64))[2])
