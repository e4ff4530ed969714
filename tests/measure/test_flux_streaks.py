"""Spikes of stars beyond the frame: sizes stay right or are flagged; what belongs to galaxies raises no flag."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from galaxies.measure.flux import measure_flux
from galaxies.measure.flux_neighbours import _streaks
from galaxies.measure.photometry import CROSSED, LIGHT_FLAG_BITS, TOUCHES_EDGE

SIDE = 96
AXIS = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2


def turned(angle):
    """Coordinates along a direction, degrees, and across it (S, S)."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return AXIS * cos + AXIS[:, None] * sin, AXIS[:, None] * cos - AXIS * sin


def disc(significance, scale_length, ratio=0.7, angle=0.0):
    """An exponential disc (S, S) with sqrt(sum of I²) over a noise of 1."""
    along, across = turned(angle)
    light = torch.exp(-torch.hypot(along, across / ratio) / scale_length)
    return light * significance / light.square().sum().sqrt()


def spike(angle, offset, level, width=1.5, start=-10.0):
    """A star's spike: fainter the further from the star, which is 110 px away, and ending `start` px off the middle."""
    along, across = turned(angle)
    profile = (50 / (110 - along).clamp_min(1)) ** 0.6 * torch.sigmoid((along - start) / 2)
    return level * torch.exp(-0.5 * ((across - offset) / width).square()) * profile


def noise(seed):
    return torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measured(images):
    return measure_flux(torch.stack(images)[:, None].float(), 1.0)


def test_a_size_that_a_spike_changes_is_flagged():
    random = np.random.default_rng(11)
    with_spike, without = [], []
    for seed in range(60):
        galaxy = disc(random.choice([50, 100, 200]), random.uniform(2.5, 6), random.uniform(0.3, 1)) + noise(seed)
        across = spike(random.uniform(0, 360), random.uniform(-6, 6), 10 ** random.uniform(0, 1.3))
        with_spike.append(galaxy + across)
        without.append(galaxy)
    found, right = measured(with_spike), measured(without)
    moved = (found.petrosian_half_light_arcsec / right.petrosian_half_light_arcsec - 1).abs() > 0.1
    flagged = (found.flag & (CROSSED | TOUCHES_EDGE)) > 0
    # Without the flag ten of these would be silent.
    assert moved.sum() >= 8 and (moved & ~flagged).sum() <= 0.25 * moved.sum()
    assert not (right.flag & CROSSED).any()
    assert "spike" in LIGHT_FLAG_BITS[CROSSED]


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, 270.0])
def test_a_spike_on_one_side_is_left_out(angle):
    galaxy = disc(100, 3.0) + noise(1)
    found, right = measured([galaxy + spike(angle, 0.0, 6.0, start=12.0)]), measured([galaxy])
    assert found.flag.item() & CROSSED
    torch.testing.assert_close(found.petrosian_half_light_arcsec, right.petrosian_half_light_arcsec, rtol=0.05, atol=0)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_the_flag_knows_no_unit(unit):
    image = disc(100, 3.0) + spike(30.0, 0.0, 6.0) + noise(2)
    assert measured([image * unit]).flag.item() == measured([image]).flag.item() == CROSSED


def test_what_is_a_galaxys_own_raises_no_flag():
    galaxies = [disc(300, length, ratio, angle) for length in (6, 12, 20) for ratio, angle in ((0.12, 20), (0.9, 45))]
    # Another galaxy beside it, whole or cut off by the border, and a spike that passes at a distance.
    beside = torch.roll(disc(200, 2.0), (5, 44), (0, 1))
    galaxies += [disc(200, 3.0) + beside, disc(200, 3.0) + spike(90.0, 36.0, 6.0, start=-200.0)]
    found = measured([galaxy + noise(seed) for seed, galaxy in enumerate(galaxies)])
    assert not (found.flag & CROSSED).any()


def test_a_faint_streak_raises_no_flag():
    """One whose light is a hundredth of the galaxy's, and another of as much as half."""
    galaxy = disc(1000, 5.0)
    for part, flagged in ((0.01, False), (0.5, True)):
        streak = spike(0.0, 0.0, 1.0)
        streak = streak * part * galaxy.sum() / (streak * (turned(0.0)[0] > 0)).sum()
        assert bool(measured([galaxy + streak + noise(3)]).flag.item() & CROSSED) == flagged


def tail(level, end):
    """A tidal tail (S, S) to the right of the middle, from 10 to `end` px from it, fainter outwards."""
    along, across = AXIS[None], AXIS[:, None] - 6
    fading = level * torch.exp(-(along - 10) / 30) * torch.sigmoid((along - 10) / 2) * torch.sigmoid(end - along)
    return fading * torch.exp(-0.5 * (across / 5).square())


def test_a_tail_that_the_border_cuts_off_is_flagged():
    """What lies beyond is in no profile; of a tail that ends inside nothing is missing."""
    galaxy = disc(150, 4.0)
    whole, part = (measured([galaxy + tail(4.0, end) + noise(4)]) for end in (36, 80))
    column = tail(4.0, 80)[:, -1].sum()
    assert (
        30 * column > 0.1 * galaxy.sum()
    )  # in the border's column, and beyond it, where the tail falls by 1/e in 30 px
    assert whole.flag.item() == 0 and part.flag.item() == TOUCHES_EDGE
    turned_round = measured([(galaxy + tail(4.0, 80) + noise(4)).flip(1).T])
    assert turned_round.flag.item() == TOUCHES_EDGE
    bright = disc(3000, 5.0)
    assert 48 * column < 0.02 * bright.sum()  # no noticeable part, if as much went on for half a frame
    assert measured([bright + tail(4.0, 80) + noise(4)]).flag.item() == 0


def test_wings_that_a_profile_has_at_the_rim_are_not_cut_off():
    """A disc without noise to speak of, 4.4 scale lengths to the border, beyond which 7 % of it lie."""
    disc_with_wings = disc(3000, 11.0, ratio=1.0)
    assert disc_with_wings[:, -1].sum() > 20  # noises, so that the rim is the galaxy's
    assert measured([disc_with_wings + noise(6)]).flag.item() == 0


def test_a_tail_that_noise_hides_at_the_border_raises_no_flag():
    """Its light in the rim is 2.4 standard deviations of the noise there, with which it reaches the border."""
    right = AXIS[None] > 44.5
    for width in (3.0, 4.0):
        faint = 0.7 * torch.sigmoid(AXIS[None] - 5) * torch.exp(-0.5 * (AXIS[:, None] / width).square())
        seen = right & (AXIS[:, None].abs() < 2 * width)
        assert (faint * seen).sum() < 3.5 * seen.sum().sqrt()
        found = measured([disc(10 * width, 3.5) + faint + noise(4)])
        assert found.flag.item() == 0  # TOUCHES_EDGE by what the noise adds


def test_light_as_bright_as_the_rest_of_the_rim_is_no_streak():
    """A galaxy that fills its frame, whose ends lie on the border: the rim's median is its own."""
    found = measured([300 * disc(1, 60.0, ratio=0.7) + noise(3)])
    assert not found.flag.item() & CROSSED


def test_light_on_much_of_the_rim_is_no_streak():
    sigma = torch.full((1, 1, 1), 0.1, dtype=torch.float64)
    middle = 20 * torch.exp(-0.5 * (AXIS.square() + AXIS[:, None].square()) / 16)
    everywhere = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    for reach, streak in ((4, True), (40, False)):  # pixels to either side of the middle of one of four sides
        crossing = 5.0 * ((AXIS > 0) & (AXIS[:, None].abs() < reach))
        found = _streaks((middle + crossing)[None], everywhere, sigma)
        assert bool(found.any()) == streak


def test_a_streak_that_leads_to_a_bright_part_of_the_galaxy_takes_nothing_of_it():
    """One half of it, twice as bright as the streak and more, is the galaxy's own; the streak may count or not."""
    half = 20 * torch.exp(-0.5 * ((AXIS - 9).square() + AXIS[:, None].square()) / 16)
    streak = 3 * torch.sigmoid(AXIS - 10) * torch.exp(-0.5 * (AXIS[:, None] / 1.8).square())
    galaxy = disc(300, 3.0)
    found = measured([galaxy + half + streak + noise(1)])
    whole = (galaxy + half).sum().item()
    assert 0.98 * whole < found.flux.item() < 1.02 * (whole + streak.sum().item())
