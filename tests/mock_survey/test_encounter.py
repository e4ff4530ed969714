"""Encounters of galaxies: orbits, undisturbed discs, symmetries, and tails where the tide makes them."""

import math

import numpy as np
import pytest
import torch

from galaxies.mock_survey import encounter
from galaxies.mock_survey.encounter import HALO_RADIUS, MAX_RADIUS, Encounter, inner_share, particle_light

FAR = {"mass_ratio": 1e-6, "pericentre": 1000.0}  # a companion that pulls at nothing


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def uniform(count: int = 400, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 2, count, 2, generator=generator, dtype=torch.float64)


def meet(
    mass_ratio=1.0, pericentre=3.0, speed=0.8, time=25.0, tilt=(0.0, 0.0), node=(0.0, 0.0), view=None, draws=None
) -> Encounter:
    return encounter.simulate(
        numbers(mass_ratio),
        numbers(pericentre),
        numbers(speed),
        numbers(time),
        numbers(*tilt)[None],
        numbers(*node)[None],
        torch.eye(3, dtype=torch.float64)[None] if view is None else view[None],
        uniform() if draws is None else draws,
    )


def first_radii(draws: torch.Tensor) -> torch.Tensor:
    """Return where the particles of the primary start, scale lengths."""
    radius, cumulative, _ = particle_light()
    return torch.from_numpy(np.interp(draws[0, 0, :, 0], cumulative, radius))


# The orbit of the two galaxies


@pytest.mark.parametrize("speed", [0.55, 0.8, 1.0])
@pytest.mark.parametrize("pericentre", [1.2, 4.0])
def test_the_closest_approach_is_where_and_when_it_should_be(speed, pericentre):
    position = lambda time: meet(0.5, pericentre, speed, time, draws=uniform(1)).companion[0]  # noqa: E731
    torch.testing.assert_close(position(0.0), numbers(pericentre, 0), atol=0.01, rtol=0)
    rate = (position(0.01) - position(-0.01)) / 0.02
    expected = speed * math.sqrt(2 * 1.5 / (pericentre + HALO_RADIUS))  # below 1, slower than the parabola
    torch.testing.assert_close(rate, numbers(0, expected), atol=0.01, rtol=0)


def test_energy_and_angular_momentum_are_conserved():
    step = 0.01
    for time in (-20.0, -5.0, 5.0, 20.0, 50.0):
        before, now, after = (meet(0.5, 2.0, 0.7, time + dt, draws=uniform(1)).companion[0] for dt in (-step, 0, step))
        rate = (after - before) / (2 * step)
        energy = rate.square().sum() / 2 - 1.5 / (now.norm() + HALO_RADIUS)
        spin = now[0] * rate[1] - now[1] * rate[0]
        fastest = 0.7 * math.sqrt(2 * 1.5 / 5)
        assert float(energy) == pytest.approx(fastest**2 / 2 - 1.5 / 5, rel=5e-3)
        assert float(spin) == pytest.approx(2 * fastest, rel=5e-3)


def test_the_orbit_is_the_same_before_and_after():
    for time in (3.0, 12.0, 29.0):
        before, after = (meet(time=t, draws=uniform(1)).companion[0] for t in (-time, time))
        torch.testing.assert_close(before * numbers(1, -1), after, atol=0.02, rtol=0)


def test_slow_companions_come_back_and_parabolic_ones_do_not():
    distance = lambda speed, time: meet(1.0, 2.0, speed, time, draws=uniform(1)).companion.norm()  # noqa: E731
    assert distance(0.55, 50.0) < distance(0.55, 15.0)
    assert distance(1.0, 50.0) > distance(1.0, 15.0)


# Discs


@pytest.mark.parametrize("time", [6.0, 55.0])
def test_undisturbed_particles_stay_on_their_circles(time):
    draws = uniform()
    result = meet(**FAR, time=time, draws=draws)
    ratio = result.particles[0, 0].norm(dim=1) / first_radii(draws)
    assert ratio.sub(1).abs().max() < 0.05
    assert ratio.median() == pytest.approx(1, abs=0.005)


def test_particles_turn_with_the_orbit_at_the_circular_speed():
    draws = uniform()
    early, late = (meet(**FAR, time=t, draws=draws).particles[0, 0] for t in (10.0, 10.5))
    turn = torch.atan2(late[:, 1], late[:, 0]) - torch.atan2(early[:, 1], early[:, 0])
    turn = torch.remainder(turn + math.pi, 2 * math.pi) - math.pi
    radius = first_radii(draws)
    expected = 0.5 / (radius.sqrt() * (radius + HALO_RADIUS))  # v = sqrt(r) / (r + a)
    torch.testing.assert_close(turn, expected, atol=0.01, rtol=0.05)


def test_particles_share_the_outer_light_of_an_exponential_disc():
    draws = uniform(4000)
    radius = meet(**FAR, time=1.0, draws=draws).particles[0, 0].norm(dim=1)
    grid = np.linspace(0, MAX_RADIUS, 5001)
    light = grid * np.exp(-grid) * (1 - inner_share(torch.from_numpy(grid)).numpy())
    expected = np.interp([0.1, 0.25, 0.5, 0.75, 0.9], light.cumsum() / light.sum(), grid)
    np.testing.assert_allclose(np.quantile(radius, [0.1, 0.25, 0.5, 0.75, 0.9]), expected, rtol=0.04)


def test_inner_disc_and_particles_are_one_exponential_disc():
    radius = torch.linspace(0, 60, 60_001, dtype=torch.float64)
    inner = float((radius * torch.exp(-radius) * inner_share(radius)).sum() * 1e-3)  # of a disc's light, which is 1
    assert particle_light()[2] + inner == pytest.approx(1, abs=2e-3)


def test_particle_light_is_a_distribution():
    radius, cumulative, carried = particle_light()
    assert radius[0] == 0
    assert radius[-1] == MAX_RADIUS
    assert (cumulative.diff() >= 0).all()
    assert cumulative[-1] == pytest.approx(1)
    assert 0.5 < carried < 0.65
    assert inner_share(torch.tensor([0.0, 1.3, 100.0])).tolist() == pytest.approx([1, 0.5, 0], abs=1e-6)


@pytest.mark.parametrize(("tilt", "node"), [(1.0, 0.4), (0.6, 2.5), (2.4, 1.0)])
def test_tilted_discs_are_seen_as_ellipses(tilt, node):
    result = meet(**FAR, time=2.0, tilt=(tilt, 0.0), node=(node, 0.0), draws=uniform(4000))
    assert float(result.axis_ratio[0, 0]) == pytest.approx(abs(math.cos(tilt)), abs=1e-9)
    assert float(result.position_angle[0, 0]) % math.pi == pytest.approx(node, abs=1e-9)
    size, axes = np.linalg.eigh(np.cov(result.particles[0, 0].T))
    assert math.sqrt(size[0] / size[1]) == pytest.approx(abs(math.cos(tilt)), abs=0.05)
    assert math.atan2(axes[1, 1], axes[0, 1]) % math.pi == pytest.approx(node, abs=0.1)


def test_a_disc_seen_from_the_side_keeps_a_thickness():
    result = meet(tilt=(math.pi / 2, 0.0))
    assert result.axis_ratio[0].tolist() == pytest.approx([0.15, 1.0])


def test_light_companions_have_small_discs():
    result = meet(mass_ratio=0.3, pericentre=60.0, time=1.0)
    own, other = result.scale_length[0].tolist()
    assert own == 1
    assert other == pytest.approx(0.3**0.7)
    inside = (result.particles[0, 1] - result.companion[0]).norm(dim=1)
    assert inside.max() < 1.1 * MAX_RADIUS * other


# Tides


def extent(tilt: float, **changes: float) -> tuple[float, float]:
    """Return how far from its galaxy the outermost tenth of each disc is."""
    result = meet(tilt=(tilt, tilt), draws=uniform(1500), **changes)
    own = result.particles[0, 0].norm(dim=1)
    other = (result.particles[0, 1] - result.companion[0]).norm(dim=1)
    return float(own.quantile(0.9)), float(other.quantile(0.9))


def test_prograde_discs_grow_longer_tails_than_retrograde_ones():
    prograde, retrograde = extent(0.0), extent(math.pi)  # Toomre & Toomre (1972), section III
    assert prograde[0] > 1.4 * retrograde[0]
    assert prograde[1] > 1.4 * retrograde[1]


def test_close_and_heavy_companions_do_more():
    assert extent(0.0)[0] > 1.3 * extent(0.0, pericentre=12.0)[0]
    assert extent(0.0)[0] > 1.1 * extent(0.0, mass_ratio=0.1)[0]


# Symmetries


def test_equal_galaxies_are_each_others_mirror_image():
    draws = uniform()
    draws[:, 1] = draws[:, 0]
    result = meet(tilt=(0.5, 0.5), node=(0.9, 0.9 + math.pi), draws=draws)
    torch.testing.assert_close(
        result.particles[0, 1] - result.companion[0], -result.particles[0, 0], atol=1e-6, rtol=1e-6
    )


def test_turning_the_view_turns_the_picture():
    angle = 0.7
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]], dtype=torch.float64
    )
    plain, turned = meet(tilt=(0.5, 1.0)), meet(tilt=(0.5, 1.0), view=turn)
    torch.testing.assert_close(turned.particles, plain.particles @ turn[:2, :2].T)
    torch.testing.assert_close(turned.companion, plain.companion @ turn[:2, :2].T)
    torch.testing.assert_close(turned.axis_ratio, plain.axis_ratio)
    difference = torch.remainder(turned.position_angle - plain.position_angle, math.pi)
    torch.testing.assert_close(difference, torch.full_like(difference, angle))


def test_results_depend_on_the_numbers_given_and_on_nothing_else():
    torch.manual_seed(1)
    first = meet()
    torch.manual_seed(2)
    again, other = meet(), meet(draws=uniform(seed=1))
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.particles, other.particles)
    assert torch.equal(first.companion, other.companion)  # particles have no mass


def test_a_batch_is_its_galaxies_one_by_one():
    generator = torch.Generator().manual_seed(3)
    draws = torch.rand(5, 2, 50, 2, generator=generator)
    random = lambda low, high, *shape: low + (high - low) * torch.rand(5, *shape, generator=generator)  # noqa: E731
    view = torch.linalg.qr(torch.randn(5, 3, 3, generator=generator)).Q
    arguments = [random(0.3, 1), random(1.2, 4), random(0.55, 0.8), random(6, 55)]
    arguments += [random(0, 3, 2), random(0, 6, 2), view, draws]
    together = encounter.simulate(*arguments)
    shapes = [tuple(part.shape) for part in together]
    assert shapes == [(5, 2, 50, 2), (5, 2), (5, 2), (5, 2), (5, 2)]
    for part in together:
        assert part.dtype == torch.float32
        assert part.isfinite().all()
    for k in range(5):
        alone = encounter.simulate(*(a[k : k + 1] for a in arguments))
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[k], atol=1e-4, rtol=1e-4)


def test_extreme_encounters_stay_finite():
    edge = torch.zeros(1, 2, 20, 2, dtype=torch.float64)
    edge[..., 10:, :] = 1 - 1e-12  # the outermost particle, and the one at the centre
    for changes in ({"pericentre": 1e-3}, {"time": 0.0}, {"time": 500.0}, {"mass_ratio": 1e-9}, {"speed": 0.0}):
        for part in meet(draws=edge, **changes):
            assert part.isfinite().all(), changes
