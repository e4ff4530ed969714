"""The galaxy's own frame: poses, patterns, and turning maps onto the sky."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from galaxies.networks import galaxy_frame
from galaxies.networks.galaxy_frame import DiscInclination, GalaxyFrame, Pose, frame_axes, symmetrize, turn_onto_sky

UPRIGHT = torch.tensor([[1.0, 0.0, 1.0]])
QUARTER = torch.tensor([[0.0, 1.0, 1.0]])
MIRRORED = torch.tensor([[1.0, 0.0, -1.0]])


def poses(count, seed=0):
    return Pose.from_noise(torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)))


def still_frame(size=32):
    """A frame that gives every style the same scale 0.25, axis ratio 0.62 and winding, at the centre."""
    frame = GalaxyFrame(4, size)
    torch.nn.init.zeros_(frame.place.weight)
    return frame


def planes_of(frame, style, pose, axis_ratio=None):
    return frame(frame.shape(style, axis_ratio), pose)


# Poses


@pytest.mark.parametrize(
    ("noise", "along", "across"), [(UPRIGHT, 3.0, 5.0), (QUARTER, 5.0, -3.0), (MIRRORED, -3.0, 5.0)]
)
def test_known_poses(noise, along, across):
    x, y = torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), 5.0)
    found = Pose.from_noise(noise).to_frame(x, y)
    assert [t.item() for t in found] == pytest.approx([along, across])


def test_poses_keep_distances_and_ignore_the_length_of_the_noise():
    x, y = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(6, 3)
    u, v = Pose.from_noise(noise).to_frame(x, y)
    torch.testing.assert_close(u.square() + v.square(), (x.square() + y.square()).expand(6, -1, -1))
    torch.testing.assert_close(Pose.from_noise(7 * noise).to_frame(x, y), (u, v))


def test_every_angle_and_both_hands_are_equally_likely():
    pose = poses(40_000)
    angle = torch.atan2(pose.sine, pose.cosine)
    counts = torch.histc(angle, 8, -math.pi, math.pi)
    assert (counts - 5000).abs().max() < 5 * math.sqrt(5000)
    assert abs(pose.hand.mean().item()) < 5 / math.sqrt(40_000)


def test_no_direction_at_all_is_still_finite():
    pose = Pose.from_noise(torch.zeros(1, 3))
    assert torch.isfinite(torch.stack(pose.to_frame(*frame_axes(4)))).all()


# Patterns


def test_number_of_planes():
    assert planes_of(still_frame(), torch.zeros(3, 4), poses(3)).shape == (3, GalaxyFrame.num_planes, 32, 32)


@torch.no_grad()
def test_profiles_at_other_pixels_are_those_of_a_frame_that_has_them():
    torch.manual_seed(1)
    coarse, fine = GalaxyFrame(4, 16), GalaxyFrame(4, 64)
    fine.load_state_dict(coarse.state_dict())
    style, pose, ratio = 5 * torch.randn(3, 4), poses(3), torch.tensor([0.3, math.nan, 0.8])
    found = coarse.profiles(coarse.shape(style, ratio), pose, fine.axes)
    planes = planes_of(fine, style, pose, ratio)
    torch.testing.assert_close(found, torch.cat([planes[:, :5], planes[:, -4:]], 1))


def test_exponential_disc():
    size = 64
    planes = planes_of(still_frame(size), torch.zeros(1, 4), Pose.from_noise(UPRIGHT))
    x, y = frame_axes(size)
    ratio = 1 / (1 + math.exp(-0.5))
    radius = torch.hypot(x / 0.25, y / (0.25 * ratio))
    away = radius > 1  # a pixel of softening is 0.02 of this
    torch.testing.assert_close(planes[0, 1][away], torch.exp(-radius)[away], rtol=0.01, atol=0)
    torch.testing.assert_close(planes[0, 2][away], torch.exp(-2 * radius)[away], rtol=0.02, atol=0)


@pytest.mark.parametrize("arms", [1, 2, 3, 4])
def test_arms_are_logarithmic_spirals(arms):
    size = 256
    frame = still_frame(size)
    with torch.no_grad():
        frame.place.bias[1] = 20.0  # round
    planes = planes_of(frame, torch.zeros(1, 4), Pose.from_noise(UPRIGHT))[0]
    cosine, sine = planes[5 + 2 * (arms - 1)], planes[6 + 2 * (arms - 1)]
    x, y = frame_axes(size)
    radius, azimuth = torch.hypot(x, y) / 0.25, torch.atan2(y, x)
    ring = (radius > 1) & (radius < 3)
    expected = arms * (azimuth - 2 * radius.log())
    error = torch.remainder(torch.atan2(sine, cosine) - expected + math.pi, 2 * math.pi) - math.pi
    assert error[ring].abs().max() < 0.02


def test_arms_wind_the_other_way_in_the_mirror():
    frame = still_frame()
    planes, mirrored = (planes_of(frame, torch.zeros(1, 4), Pose.from_noise(z)) for z in (UPRIGHT, MIRRORED))
    torch.testing.assert_close(mirrored, planes.flip(3))
    # Two wound arms are not their own mirror image.
    assert (mirrored[0, 7] - planes[0, 7]).abs().max() > 0.1


def test_planes_turn_with_the_galaxy():
    frame = GalaxyFrame(4, 32)
    torch.nn.init.normal_(frame.place.weight, 0, 0.1)
    with torch.no_grad():
        frame.place.weight[2:4] = 0  # the centre's offset stays put on the sky
    style = torch.randn(1, 4)
    planes, turned = (planes_of(frame, style, Pose.from_noise(z)) for z in (UPRIGHT, QUARTER))
    torch.testing.assert_close(turned, planes.rot90(-1, (2, 3)), rtol=1e-4, atol=1e-5)


def test_style_moves_scale_and_axis_ratio():
    def extent(bias_index, value):
        frame = still_frame(64)
        with torch.no_grad():
            frame.place.bias[bias_index] = value
        disc = planes_of(frame, torch.zeros(1, 4), Pose.from_noise(UPRIGHT))[0, 1]
        x, y = frame_axes(64)
        return [((disc * t * t).sum() / disc.sum()).sqrt().item() for t in (x, y)]

    usual, larger, flatter = extent(0, 0.0), extent(0, 0.05), extent(1, -0.3)
    assert larger[0] > 1.1 * usual[0]
    assert larger[1] > 1.1 * usual[1]
    assert flatter[0] == pytest.approx(usual[0], rel=0.05)
    assert flatter[1] < 0.7 * usual[1]


def test_a_disc_is_as_flat_as_its_inclination_makes_it_and_as_long():
    frame, style = still_frame(64), torch.zeros(4, 4)
    seen = DiscInclination(value=1, flag=2, low=10.0, high=90.0)
    condition = torch.tensor([[7.0, (degrees - 10) / 80, 1.0] for degrees in (10.0, 60.0, 80.0)] + [[7.0, 0.0, 0.0]])
    planes = planes_of(frame, style, Pose.from_noise(UPRIGHT.expand(4, -1)), seen.axis_ratio(condition))
    assert torch.equal(planes[3:], planes_of(frame, style[:1], Pose.from_noise(UPRIGHT)))
    x, y = frame_axes(64)
    disc = planes[:, 2]
    long, short = (((disc * t * t).sum((1, 2)) / disc.sum((1, 2))).sqrt() for t in (x, y))
    torch.testing.assert_close(long[:3], long[:1].expand(3), rtol=0.03, atol=0)
    angle = torch.deg2rad(torch.tensor([10.0, 60.0, 80.0]))
    expected = (angle.cos() ** 2 + (0.15 * angle.sin()) ** 2).sqrt()  # Hubble 1926
    torch.testing.assert_close(short[:3] / long[:3], expected, rtol=0.06, atol=0)
    torch.testing.assert_close(seen.axis_ratio(condition)[:3], expected)
    beyond = torch.tensor([[0.0, 1.3, 1.0], [0.0, -0.5, 1.0]])  # by noise on what is told
    assert seen.axis_ratio(beyond).tolist() == pytest.approx([0.15, 1.0])
    assert seen.left_out(condition)[:, 0].tolist() == [7.0] * 4
    assert seen.left_out(condition)[:, 1:].abs().max() == 0


def test_the_gradient_of_the_planes_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(3)
    shape = torch.rand(3, 10, dtype=torch.float64, generator=generator)
    shape[:, 4:8] = 0.2 + 0.5 * shape[:, 4:8]  # lengths
    shape[1] *= torch.tensor([-1, -1, -1, -1, 1, 1, 1, 1, 1, -1])
    noise = torch.tensor([[1.0, 0.4, 1.0], [-0.3, 0.9, -1.0], [0.2, -0.7, -1.0]]).double()
    pose = Pose(*F.normalize(noise[:, :2]).unbind(1), noise[:, 2])
    axes = frame_axes(6).double()
    constants = [value.double() for value in galaxy_frame._Constants.make()]

    def planes(shape):
        return galaxy_frame._Patterns.apply(shape, pose.cosine, pose.sine, pose.hand, axes, *constants)

    assert torch.autograd.gradcheck(planes, (shape.requires_grad_(),), eps=1e-6, atol=1e-6, rtol=1e-6)


def test_a_pixel_at_the_very_centre_has_a_gradient():
    frame = still_frame(5)
    planes = planes_of(frame, torch.zeros(1, 4), Pose.from_noise(UPRIGHT))
    (planes * torch.arange(planes.shape[1])[:, None, None]).sum().backward()
    assert torch.isfinite(frame.place.bias.grad).all()
    assert frame.place.bias.grad.abs().max() > 1


def test_the_gradient_takes_few_operations():
    class Operations(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.number += 1
            return func(*args, **kwargs or {})

    frame, style = GalaxyFrame(4, 16), torch.randn(2, 4)
    planes = planes_of(frame, style, poses(2))
    with Operations() as seen:
        planes.sum().backward()
    assert seen.number < 210  # views included; 283 by automatic differentiation


@pytest.mark.parametrize("far", [0.0, 1e3, -1e3])
def test_planes_and_gradients_stay_finite(far):
    frame = GalaxyFrame(4, 32)
    style = (torch.randn(8, 4) + far).requires_grad_()
    planes = planes_of(frame, style, poses(8))
    planes.square().sum().backward()
    assert torch.isfinite(planes).all()
    assert planes.abs().max() < 10
    assert torch.isfinite(style.grad).all()
    assert torch.isfinite(frame.place.weight.grad).all()


# Turning


def test_turning_by_nothing_and_by_quarters():
    maps = torch.randn(1, 3, 16, 16)
    for noise, expected in ((UPRIGHT, maps), (QUARTER, maps.rot90(-1, (2, 3))), (MIRRORED, maps.flip(3))):
        torch.testing.assert_close(
            turn_onto_sky(maps, Pose.from_noise(noise), frame_axes(16)), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("size", [16, 32])
def test_turning_is_bilinear_resampling_with_reflection(size):
    maps, pose = torch.randn(5, 3, 16, 16, dtype=torch.float64, requires_grad=True), poses(5)
    zero = torch.zeros(5)
    matrix = torch.stack(
        [
            torch.stack([pose.hand * pose.cosine, pose.hand * pose.sine, zero], 1),
            torch.stack([-pose.sine, pose.cosine, zero], 1),
        ],
        1,
    ).double()
    grid = F.affine_grid(matrix, (5, 3, size, size), align_corners=False)
    expected = F.grid_sample(maps, grid, padding_mode="reflection", align_corners=False)
    found = turn_onto_sky(maps, pose, frame_axes(size))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((image * weight).sum(), maps)[0] for image in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def turned_both_ways(monkeypatch, maps, pose, size):
    """Turn maps as a CPU does and as a GPU does; return each image with its gradient under random weights."""
    weight = torch.randn(*maps.shape[:2], size, size, dtype=maps.dtype)
    found = []
    for devices in (frozenset(), frozenset({"cpu"})):
        monkeypatch.setattr(galaxy_frame, "_ADJOINT_BY_PRODUCT", devices)
        image = turn_onto_sky(maps, pose, frame_axes(size))
        found.append((image, torch.autograd.grad((image * weight).sum(), maps)[0]))
    return found


@pytest.mark.parametrize(("side", "size"), [(16, 32), (16, 16), (8, 32), (9, 13)])
def test_the_gradient_by_a_product_is_that_of_resampling(side, size, monkeypatch):
    maps = torch.randn(7, 3, side, side, dtype=torch.float64, requires_grad=True)
    (image, gradient), (same, product) = turned_both_ways(monkeypatch, maps, poses(7), size)
    assert torch.equal(same, image)
    torch.testing.assert_close(product, gradient, rtol=1e-9, atol=1e-9)
    assert product.is_contiguous(memory_format=torch.channels_last)


def test_few_matrices_at_a_time_and_none_that_is_too_large(monkeypatch):
    maps = torch.randn(5, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    multiplied = []
    adjoint = galaxy_frame._adjoint
    monkeypatch.setattr(galaxy_frame, "_adjoint", lambda *given: multiplied.append(len(given[0])) or adjoint(*given))
    monkeypatch.setattr(galaxy_frame, "_ADJOINT_VALUES", 2 * 8**4)
    (_, gradient), (_, product) = turned_both_ways(monkeypatch, maps, poses(5), 8)
    assert multiplied == [2, 2, 1]
    torch.testing.assert_close(product, gradient, rtol=1e-9, atol=1e-9)
    monkeypatch.setattr(galaxy_frame, "_LARGEST_ADJOINT", 8**4 - 1)
    turned_both_ways(monkeypatch, maps, poses(5), 8)
    assert len(multiplied) == 3


def test_the_product_has_gradients_to_second_order(monkeypatch):
    monkeypatch.setattr(galaxy_frame, "_ADJOINT_BY_PRODUCT", frozenset({"cpu"}))
    maps = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    pose, axes = poses(2), frame_axes(4)
    assert torch.autograd.gradcheck(lambda m: turn_onto_sky(m, pose, axes), (maps,))
    assert torch.autograd.gradgradcheck(lambda m: turn_onto_sky(m.square(), pose, axes), (maps,))


def test_turning_keeps_images_apart():
    maps = torch.zeros(3, 2, 16, 16)
    maps[1] = 1.0
    turned = turn_onto_sky(maps, poses(3), frame_axes(32))
    assert turned[1].min() == pytest.approx(1.0)
    assert turned[0].abs().max() == 0
    assert turned[2].abs().max() == 0


def test_symmetric_maps_equal_their_half_turn():
    maps = torch.randn(2, 8, 6, 6)
    result = symmetrize(maps, 0.75)
    torch.testing.assert_close(result[:, :6], result[:, :6].flip(2, 3))
    torch.testing.assert_close(result[:, 6:], maps[:, 6:])
    torch.testing.assert_close(symmetrize(result, 0.75), result)
