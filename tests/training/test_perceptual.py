"""Means of features: zero where distributions agree, unbiased in small batches; VGG-16 from torchvision's file."""

from __future__ import annotations

import pytest
import torch

from galaxies.common.errors import UserError
from galaxies.training.perceptual import _VGG_GROUPS, Vgg16, perceptual_loss
from physics_model import PhysicsPredictor


def alone(values):
    return values


def maps(number, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randn(number, 5, 1, 1, generator=generator) + shift
    return [levels + 0.3 * torch.randn(number, 5, 6, 6, generator=generator)]


def test_equal_distributions_have_a_distance_of_zero_on_average():
    losses = torch.stack([perceptual_loss(maps(64, 2 * k), maps(64, 2 * k + 1), alone, 64) for k in range(300)])
    error = losses.std() / 300**0.5
    assert error < 0.003  # without the correction the mean would be 2 / 64
    assert losses.mean().abs() < 4 * error


def test_a_shift_counts_squared_in_units_of_the_spread():
    losses = torch.stack([perceptual_loss(maps(500, 2 * k, 3.0), maps(500, 2 * k + 1), alone, 500) for k in range(10)])
    # Half of the statistics are means, shifted by 3 of about one; the others are standard deviations, not shifted.
    assert losses.mean().item() == pytest.approx(4.5, rel=0.05)


def test_maps_that_hardly_respond_do_not_rule():
    lively, dead = maps(64, 1)[0], torch.full((64, 1, 6, 6), 1e-3)
    found = [
        perceptual_loss([torch.cat([lively, d], 1)], [torch.cat([maps(64, 2)[0], dead], 1)], alone, 64)
        for d in (dead, 2 * dead)
    ]
    assert (found[1] - found[0]).abs() < 1e-3


def test_varying_less_gains_nothing():
    slopes = []
    for k in range(1000):
        levels = torch.randn(2, 16, 5, 1, 1, generator=torch.Generator().manual_seed(k))
        scale = torch.ones((), requires_grad=True)
        loss = perceptual_loss([scale * levels[0]], [levels[1]], alone, 16)
        slopes.append(torch.autograd.grad(loss, scale)[0])
    slopes = torch.stack(slopes)
    # Half of the statistics are means; without the correction their slope would be 2 / 16 of about one.
    assert slopes.std() / 1000**0.5 < 0.005
    assert slopes.mean().abs() < 0.02


def test_the_place_of_a_galaxy_does_not_matter():
    one, other = maps(8, 1)[0], maps(8, 2)[0]
    loss = perceptual_loss([one], [other], alone, 8)
    torch.testing.assert_close(perceptual_loss([one.roll((2, 1), (2, 3)).rot90(1, (2, 3))], [other], alone, 8), loss)


def test_predictor_gives_its_rectified_maps():
    predictor = PhysicsPredictor(3, width=4).eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    found = predictor.maps(images)
    assert [tuple(m.shape) for m in found] == [(2, 4, 32, 32), (2, 8, 16, 16), (2, 16, 8, 8)]
    assert all(m.min() >= 0 for m in found)
    torch.testing.assert_close(found[-1].mean((2, 3)), predictor.features(images))


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """Random weights in the shape of torchvision's file, its classifier left out."""
    torch.manual_seed(0)
    weights, place, c_in = {}, 0, 3
    for widths in (*_VGG_GROUPS, (512, 512, 512)):
        for c_out in widths:
            weights[f"features.{place}.weight"] = torch.randn(c_out, c_in, 3, 3) * (2 / 9 / c_in) ** 0.5
            weights[f"features.{place}.bias"] = torch.zeros(c_out)
            place, c_in = place + 2, c_out
        place += 1
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(weights, path)
    return path


def test_vgg_has_torchvision_s_layers(vgg_file):
    # features.0, .2 | .5, .7 | .10, .12, .14 | .17, .19, .21 are the convolutions of torchvision's configuration D.
    vgg = Vgg16.from_file(vgg_file)
    weights = torch.load(vgg_file, weights_only=True)
    assert sum(p.numel() for p in vgg.parameters()) == 7_635_264
    assert torch.equal(vgg.groups[3][2].weight, weights["features.21.weight"])
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    found = vgg.maps(images)
    assert [tuple(m.shape[1:]) for m in found] == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8)]
    expected = (images + 1) / 2
    expected = (expected - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    for place in (0, 2):
        layer = (weights[f"features.{place}.weight"], weights[f"features.{place}.bias"])
        expected = torch.nn.functional.conv2d(expected, *layer, padding=1).relu()
    torch.testing.assert_close(found[0], expected)
    assert not any(p.requires_grad for p in vgg.parameters())


def test_vgg_weights_have_a_fingerprint(vgg_file):
    one, other = (Vgg16.from_file(vgg_file) for _ in range(2))
    assert one.fingerprint() == other.fingerprint()
    other.groups[0][0].bias[0] += 1
    assert one.fingerprint() != other.fingerprint()


def test_a_missing_file_says_where_it_is_from(tmp_path):
    with pytest.raises(
        UserError, match=r"there is no file .*vgg\.pth.*download https://download\.pytorch\.org/models/"
    ):
        Vgg16.from_file(tmp_path / "vgg.pth")


@pytest.mark.parametrize("content", [b"<html>not found</html>", b""])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "vgg.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="does not hold torchvision's weights"):
        Vgg16.from_file(path)
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="does not hold torchvision's weights"):
        Vgg16.from_file(path)
