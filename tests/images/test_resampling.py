"""Turning, looking up and halving: bilinear by definition, exact where nothing is interpolated, free of aliases."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from galaxies.images import resampling
from galaxies.images.resampling import Halve, dihedral, doubled, fold, look_up, turned


def smooth_images(number=2, size=32):
    """Two off-centre Gaussians a plane, far from the border."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    planes = [torch.exp(-((x - 0.1 * k) ** 2 + (y + 0.2) ** 2) / 0.02) for k in range(3 * number)]
    return torch.stack(planes).view(number, 3, size, size)


def still(number=2):
    return torch.zeros(number), torch.ones(number), torch.zeros(number, 2)


def test_table_look_ups_are_bilinear_resampling():
    maps = torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    x, y = 15 * torch.rand(2, 4, 8, 8, dtype=torch.float64)
    x[0, 0, 0], y[0, 0, 1] = 0.0, 15.0  # the outermost pixels too
    grid = (torch.stack([x, y], -1) + 0.5) / 8 - 1
    images = [look_up(maps, x, y), F.grid_sample(maps, grid, align_corners=False)]
    torch.testing.assert_close(*images)
    weight = torch.randn_like(images[1])
    torch.testing.assert_close(*(torch.autograd.grad((image * weight).sum(), maps)[0] for image in images))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_quarter_turns_and_mirror_images_are_exact(mode):
    images, (angle, mirror, shift) = torch.rand(2, 3, 16, 16), still()
    torch.testing.assert_close(turned(images, angle, mirror, shift, mode), images, rtol=1e-4, atol=1e-5)
    quarter = turned(images, angle + math.pi / 2, mirror, shift, mode)
    torch.testing.assert_close(quarter, images.rot90(1, (2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turned(images, angle, -mirror, shift, mode), images.flip(3), rtol=1e-4, atol=1e-5)


def test_a_shift_of_whole_pixels_moves_the_image():
    images, (angle, mirror, shift) = smooth_images(), still()
    shift[:, 0] = 3 * 2 / 32
    moved = turned(images, angle, mirror, shift, "bicubic")
    torch.testing.assert_close(moved[..., :-3], images[..., 3:], rtol=1e-4, atol=1e-5)


def test_turning_there_and_back_returns_a_smooth_image():
    images, (_, mirror, shift) = smooth_images(), still()
    angle = torch.tensor([0.4, 1.3])
    back = {
        m: turned(turned(images, angle, mirror, shift, m), -angle, mirror, shift, m) for m in ("bilinear", "bicubic")
    }
    errors = {mode: (image - images).abs().max() for mode, image in back.items()}
    assert errors["bicubic"] < 0.05
    assert errors["bicubic"] < 0.3 * errors["bilinear"]


def test_positions_outside_are_reflected():
    position = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.25])
    torch.testing.assert_close(fold(position, 8), torch.tensor([1.5, 0.0, 3.5, 7.0, 6.5]))


def test_halving_keeps_the_mean_and_the_place():
    halve = Halve()
    constant = halve(torch.ones(1, 2, 8, 8))
    torch.testing.assert_close(constant, torch.ones(1, 2, 4, 4))
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    torch.testing.assert_close(halve(ramp)[0, 0, 3, 1:-1], 2 * torch.arange(1.0, 7.0) + 0.5)


def test_halving_removes_what_would_alias():
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    assert Halve()(stripes)[:, :, 1:-1, 1:-1].abs().max() < 1e-6


def test_halving_is_the_transpose_of_doubling():
    # <halve(a), b> = <a, double(b)> / 4, the border included.
    a, b = torch.randn(1, 3, 16, 16), torch.randn(1, 3, 8, 8)
    doubled = F.interpolate(b, scale_factor=2, mode="bilinear")
    torch.testing.assert_close((Halve()(a) * b).sum(), (a * doubled).sum() / 4, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=["by kernels", "by products"])
def _both_ways(request, monkeypatch):
    """Take a CPU's way, then a GPU's."""
    if request.param == "by products":
        monkeypatch.setattr(resampling, "_BY_PRODUCTS", frozenset({"cpu"}))


def bilinear(row):
    """Double a row by hand: a quarter of the neighbour and three of the pixel itself, which the border repeats."""
    before, after = [row[0], *row[:-1]], [*row[1:], row[-1]]
    return [0.25 * n + 0.75 * p for b, p, a in zip(before, row, after, strict=True) for n in (b, a)]


@pytest.mark.usefixtures("_both_ways")
def test_doubling_is_bilinear_along_rows_and_columns():
    rows = [[1.0, 2.0, 4.0], [0.0, -8.0, 16.0], [3.0, 3.0, 5.0]]
    columns = zip(*(bilinear(row) for row in rows), strict=True)
    expected = torch.tensor([bilinear(column) for column in columns]).T
    found = doubled(torch.tensor([[rows, rows], [rows, [[0.0] * 3] * 3]]))
    assert torch.equal(found, torch.stack([expected, expected, expected, 0 * expected]).view(2, 2, 6, 6))


@pytest.mark.parametrize("resample", [doubled, Halve()])
def test_products_are_what_kernels_compute_with_gradients_to_second_order(resample, monkeypatch):
    images = torch.randn(3, 2, 8, 8, dtype=torch.float64, requires_grad=True)

    def look():
        result = resample(images.square())
        (gradient,) = torch.autograd.grad(result.square().sum(), images, create_graph=True)
        return result, gradient, torch.autograd.grad(gradient.square().sum(), images)[0]

    by_kernels = look()
    monkeypatch.setattr(resampling, "_BY_PRODUCTS", frozenset({"cpu"}))
    by_products = look()
    torch.testing.assert_close(by_products, by_kernels, rtol=1e-12, atol=1e-12)
    assert by_products[0].is_contiguous(memory_format=torch.channels_last)


def test_products_keep_the_precision_of_the_maps(monkeypatch):
    monkeypatch.setattr(resampling, "_BY_PRODUCTS", frozenset({"cpu"}))
    maps = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert doubled(maps).dtype == Halve()(maps).dtype == torch.float32
        assert doubled(maps.bfloat16()).dtype == Halve()(maps.bfloat16()).dtype == torch.bfloat16
    # Rounded after each axis, to 8 bits.
    torch.testing.assert_close(doubled(maps.bfloat16()).float(), doubled(maps), rtol=0, atol=0.03)


def test_halving_has_nothing_to_save():
    assert Halve().state_dict() == {}


def test_halving_has_the_gradients_of_a_plain_convolution_to_second_order():
    halve = Halve().double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(halve, (images,))
    assert torch.autograd.gradgradcheck(lambda x: halve(x.square()), (images,))
    plain = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), halve.kernel.expand(3, 1, 4, 4), stride=2, groups=3)
    torch.testing.assert_close(halve(images), plain)


def test_a_gradient_penalty_computes_no_gradient_of_the_fixed_kernel():
    with FlopCounterMode(display=False) as counter:
        images = torch.randn(1, 4, 16, 16, requires_grad=True)
        loss = Halve()(images.square()).square().sum()
        (gradient,) = torch.autograd.grad(loss, images, create_graph=True)
        gradient.square().sum().backward()
    # Forward, and the gradient's gradient; each 8 x 8 x 4 maps x 16 weights. Interpolation counts no product.
    assert counter.get_total_flops() == 2 * 2 * 8 * 8 * 4 * 16


def test_the_eight_turns_are_different_and_keep_every_pixel():
    image = torch.arange(9.0).view(1, 1, 3, 3).repeat(8, 1, 1, 1)
    turned = dihedral(image, torch.arange(8))
    assert len({tuple(t.flatten().tolist()) for t in turned}) == 8
    assert torch.equal(turned.flatten(1).sort(1).values, image.flatten(1))
    assert torch.equal(turned[0], image[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_of_the_eight_turns(dtype):
    image = torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], dtype=dtype)
    # Bit 0 flips x, bit 1 then y, and bit 2 then swaps the axes, by hand.
    expected = ["1234", "2143", "3412", "4321", "1324", "2413", "3142", "4231"]
    found = dihedral(image.expand(8, -1, -1, -1), torch.arange(8, dtype=torch.uint8))
    assert found.dtype == dtype
    assert ["".join(str(int(v)) for v in planes[0].flatten()) for planes in found] == expected
    assert torch.equal(found[:, 1], found[:, 0] + 4)
