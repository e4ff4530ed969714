"""Neighbours near a small galaxy in a large frame are left out; arms, knots, tails and second nuclei are not."""

from __future__ import annotations

import math

import pytest
import torch

from galaxies.measure.flux import measure_flux
from galaxies.measure.photometry import NO_SOURCE

SIDE = 96
AXIS = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2


def disc(x=0.0, y=0.0, light=3000.0, scale_length=2.5):
    """An exponential disc (S, S), drawn at the pixels' centres."""
    radius = torch.hypot(AXIS - x, AXIS[:, None] - y)
    return light * torch.exp(-radius / scale_length) / (2 * math.pi * scale_length**2)


def measured(light, seed=0):
    grain = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = measure_flux((light + grain)[None, None].float(), 1.0)
    assert not found.flag.item() & NO_SOURCE
    return found


@pytest.mark.parametrize("x, y, part", [(16, 0, 0.1), (-13, 11, 0.1), (0, -23, 1.0), (21, 4, 2.0)])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_neighbour_within_a_quarter_of_the_frame_changes_hardly_anything(x, y, part, flipped):
    alone, beside = disc(), disc(x, y, 3000 * part, 1.5)
    assert math.hypot(x, y) < SIDE / 4
    with_it = (alone + beside).T if flipped else alone + beside
    found, right = measured(with_it), measured(alone)
    # With the neighbour's light in it the galaxy's would be up to 1.2 magnitudes brighter.
    torch.testing.assert_close(found.petrosian_half_light_arcsec, right.petrosian_half_light_arcsec, rtol=0.1, atol=0)
    torch.testing.assert_close(found.magnitude, right.magnitude, rtol=0, atol=0.1)


def test_two_nuclei_of_a_merger_are_one_galaxy():
    for x in (7, 9):
        pair = disc(light=6000) + disc(x, 3, 4500, 2.0)
        found, right = measured(pair), measured(disc(light=6000))
        assert found.flux.item() == pytest.approx(10_500, rel=0.1)
        assert found.petrosian_half_light_arcsec > 1.2 * right.petrosian_half_light_arcsec


def test_a_second_nucleus_behind_a_deep_valley_is_the_galaxys_own():
    """Three half-light radii away, of 4.2 px, with a tenth of the peaks' brightness between them."""
    pair = disc(light=6000) + disc(13, 3, 4500, 2.5)
    assert measured(pair).flux.item() == pytest.approx(10_500, rel=0.05)


def test_two_knots_across_from_each_other_are_the_galaxys_own_and_one_is_a_neighbour():
    galaxy = disc(light=20_000, scale_length=2.5)
    one, other = disc(15, 4, 900, 1.2), disc(-15, -4, 900, 1.2)
    assert measured(galaxy + one + other).flux.item() == pytest.approx(21_800, rel=0.02)
    assert measured(galaxy + one).flux.item() == pytest.approx(20_000, rel=0.02)


def test_arms_and_knots_are_the_galaxys_own():
    smooth = disc(light=60_000, scale_length=7)
    radius, angle = torch.hypot(AXIS, AXIS[:, None]), torch.atan2(AXIS[:, None].expand(-1, SIDE), AXIS.expand(SIDE, -1))
    arms = smooth * (1 + 0.9 * torch.cos(2 * (angle - 3 * (radius / 7 + 0.1).log())))
    knots = smooth + sum(disc(x, y, 900, 1.2) for x, y in ((13, 6), (-8, 12), (4, -15), (-14, -5)))
    for light in (arms, knots):
        assert measured(light).flux.item() == pytest.approx(light.sum().item(), rel=0.05)
    # One side twice as bright as the other is lopsided, and has no neighbour.
    lopsided = smooth * (1 + 0.5 * (AXIS / 15).clamp(-1, 1))
    assert measured(lopsided).flux.item() == pytest.approx(lopsided.sum().item(), rel=0.05)


def test_a_peak_whose_opposite_lies_beyond_the_frame_is_no_neighbour_by_that():
    # A galaxy off the middle: what is far out on one side has no other side in the frame.
    light = disc(x=7, light=60_000, scale_length=6) + disc(x=38, y=0, light=150, scale_length=1.2)
    found, right = measured(light), measured(disc(x=7, light=60_000, scale_length=6))
    torch.testing.assert_close(found.petrosian_half_light_arcsec, right.petrosian_half_light_arcsec, rtol=0.03, atol=0)


def test_faint_sources_all_around_are_no_sky():
    """A size is the same where the zero of the file says how dark it is between them, and where a sky was left in."""
    random = torch.Generator().manual_seed(8)
    changes = []
    for seed in range(6):
        light = disc(light=900, scale_length=3)
        for x, y, part in (torch.rand(60, 3, generator=random, dtype=torch.float64) - 0.5).tolist():
            if math.hypot(x, y) > 0.32:
                light = light + disc(x * SIDE, y * SIDE, 60 + 120 * part, 1.5)
        plain, with_sky = (measured(light + sky, seed).petrosian_half_light_arcsec.item() for sky in (0, 300))
        changes.append(abs(with_sky / plain - 1))
    assert max(changes) < 0.06
