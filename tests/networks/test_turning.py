"""Turning light onto the sky: exact by quarters, no light made or lost, and how much it blurs."""

from __future__ import annotations

import math

import pytest
import torch

from galaxies.networks.galaxy_frame import Pose
from galaxies.networks.turning import along_major_axis, at_position_angle, turned_light, upright
from galaxies.telescope.observing import observe
from galaxies.telescope.profiles import profile_of
from galaxies.telescope.psf import Psf


def poses(degrees, mirrored=False):
    noise = torch.tensor([[0.3, -2.0, -1.0 if mirrored else 1.0, 0.7]]).expand(len(degrees), -1)
    return Pose.from_noise(at_position_angle(noise, torch.tensor(degrees)))


def gaussian(side, major, ratio, degrees, x=0.0, y=0.0):
    """Return a unit of light (side, side), float64, at an angle."""
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    dx, dy = axis - x, axis[:, None] - y
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    u, v = cosine * dx + sine * dy, cosine * dy - sine * dx
    light = torch.exp(-0.5 * ((u / major) ** 2 + (v / major / ratio) ** 2))
    return light / light.sum()


def moments(light):
    """Return the sum, the centre and the second moments xx, yy, xy of light (side, side)."""
    axis = torch.arange(len(light), dtype=torch.float64) - (len(light) - 1) / 2
    total = light.sum()
    x, y = (light.sum(0) * axis).sum() / total, (light.sum(1) * axis).sum() / total
    dx, dy = axis - x, (axis - y)[:, None]
    return [float(t) for t in (total, x, y, *((light * t).sum() / total for t in (dx * dx, dy * dy, dx * dy)))]


def some_light(count=1, side=32):
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 2, side, side, generator=generator)


@pytest.mark.parametrize("degrees", [0.0, 7.5, 44.0, 61.0, -20.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_quarter_turn_more_is_the_same_light_turned(degrees, mirrored):
    light = some_light()
    turned = [turned_light(light, poses([degrees + 90 * k], mirrored)) for k in range(4)]
    for k in range(1, 4):
        torch.testing.assert_close(turned[k], turned[0].rot90(-k, (2, 3)), rtol=2e-5, atol=2e-5)
    if degrees == 0:
        start = light.flip(3) if mirrored else light
        assert all(torch.equal(turned[k], start.rot90(-k, (2, 3))) for k in range(4))


@pytest.mark.parametrize("own", [0.0, 25.0, -38.0])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("brightness", [1e-20, 1.0, 1e20])
def test_light_is_turned_by_its_own_major_axis(own, mirrored, brightness):
    light = gaussian(65, 7, 0.4, own, 2, -1)[None, None].float() * brightness
    pose = poses([70.0], mirrored)
    turned = turned_light(light, along_major_axis(light, pose))[0, 0].double()
    _, _, _, xx, yy, xy = moments(turned)
    assert math.degrees(0.5 * math.atan2(2 * xy, xx - yy)) == pytest.approx(70, abs=0.5)
    further = turned_light(light, along_major_axis(light, poses([160.0], mirrored)))
    tolerance = 2e-5 * brightness * float(light.max() / brightness)
    torch.testing.assert_close(further[0, 0].double(), turned.rot90(-1), rtol=2e-5, atol=tolerance)


def test_round_light_and_none_have_no_axis_to_be_turned_by():
    pose = poses([33.0, 33.0])
    light = torch.stack([gaussian(65, 5, 0.995, 45), torch.zeros(65, 65)])[:, None].float()
    found = along_major_axis(light, pose)
    angles = torch.rad2deg(torch.atan2(found.sine, found.cosine)).tolist()
    assert angles[0] == pytest.approx(33, abs=1)
    assert angles[1] == pytest.approx(33, abs=1e-4)
    assert not along_major_axis(light.requires_grad_(), pose).cosine.requires_grad


def test_so_it_is_through_a_telescope_with_a_round_psf():
    light = 100 * torch.stack([gaussian(64, 5, 0.3, 0, 4, 2), gaussian(64, 3, 0.8, 50, -6, 5)])[None].float()
    psf = Psf(torch.tensor([[0.7, 0.9]]), profile_of("kolmogorov"))
    seen = [observe(turned_light(light, poses([31.0 + d])), psf, 0.2, oversampling=2) for d in (0.0, 90.0)]
    torch.testing.assert_close(seen[1], seen[0].rot90(-1, (2, 3)), rtol=1e-4, atol=1e-5)
    assert (seen[0] - seen[1]).abs().max() > 0.1


@pytest.mark.parametrize("degrees", [0.0, 10.0, 30.0, 45.0, 80.0, 135.0, 200.0, 300.0])
def test_light_lies_where_it_should_and_is_hardly_blurred(degrees):
    light = gaussian(128, 8, 0.4, 0, 10, 3)
    turned = turned_light(light[None, None], poses([degrees]))[0, 0]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    expected = moments(gaussian(128, 8, 0.4, degrees, 10 * cosine - 3 * sine, 10 * sine + 3 * cosine))
    total, x, y, xx, yy, xy = moments(turned)
    assert total == pytest.approx(1, abs=1e-6)
    assert (x, y) == pytest.approx(expected[1:3], abs=1e-3)
    # A square pixel of 0.1 arcsec has a variance of 1/12; turning adds at most four times as much.
    blur = xx - expected[3], yy - expected[4]
    assert all(-1e-3 < added < 0.4 for added in blur)
    assert xy == pytest.approx(expected[5], abs=0.05)
    assert turned.min() >= 0


def test_no_angle_loses_light_or_makes_it_negative():
    light = some_light(24, 48)
    axis = torch.arange(48) - 23.5
    light = light * (torch.hypot(axis, axis[:, None]) < 21)
    turned = turned_light(light, poses([15.0 * k + 1 for k in range(24)]))
    torch.testing.assert_close(turned.sum((2, 3)), light.sum((2, 3)), rtol=1e-5, atol=0)
    assert turned.min() >= 0
    assert turned.max() <= light.max()


def test_light_is_not_lost_on_its_way_into_a_corner():
    # The first shear moves it to x = 34, beyond the frame's edge at 32.
    turned = turned_light(gaussian(64, 0.8, 1.0, 0, 29, -12)[None, None], poses([44.9]))[0, 0]
    assert moments(turned)[:3] == pytest.approx([1, 29, 12], abs=0.1)


def test_a_constant_stays_one_within_the_circle():
    turned = turned_light(torch.ones(1, 1, 64, 64), poses([37.0]))[0, 0]
    axis = torch.arange(64) - 31.5
    assert (turned[torch.hypot(axis, axis[:, None]) < 28] - 1).abs().max() < 1e-5


def test_galaxies_keep_apart_and_each_has_its_own_pose():
    light = some_light(3)
    angles = [10.0, 100.0, 250.0]
    together = turned_light(light, poses(angles))
    for row, angle in enumerate(angles):
        torch.testing.assert_close(together[row : row + 1], turned_light(light[row : row + 1], poses([angle])))


def test_the_gradient_is_that_of_finite_differences_to_second_order():
    light = some_light(2, 6).double().requires_grad_()
    pose = poses([25.0, 130.0], mirrored=True)
    assert torch.autograd.gradcheck(lambda x: turned_light(x, pose), (light,))
    assert torch.autograd.gradgradcheck(lambda x: turned_light(x.square(), pose), (light,))


def test_noise_of_a_position_angle():
    noise = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    asked = torch.tensor([0.0, 90.0, math.nan, 200.0, -30.0])
    found = at_position_angle(noise, asked)
    assert torch.equal(found[:, 2:], noise[:, 2:])
    assert torch.equal(found[2], noise[2])
    assert found[:2, :2].tolist() == [[1, 0], [0, 1]]
    angle = torch.rad2deg(torch.atan2(found[:, 1], found[:, 0]))
    torch.testing.assert_close(angle[3:], torch.tensor([-160.0, -30.0]))


def test_what_paints_is_told_nothing_of_the_pose():
    noise = torch.randn(4, 6)
    pose = Pose.from_noise(upright(noise))
    assert pose.cosine.tolist() == [1] * 4
    assert pose.sine.tolist() == [0] * 4
    assert pose.hand.tolist() == [1] * 4
    assert torch.equal(upright(noise)[:, 3:], noise[:, 3:])
    assert torch.equal(upright(at_position_angle(noise, torch.full((4,), 33.0))), upright(noise))
