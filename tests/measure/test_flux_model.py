"""Models and moments of galaxies on flux, by brute force on pixels and by drawing what noise makes of the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from galaxies.measure.flux_model import (
    BELIEVED_SNR,
    Ellipse,
    Psf,
    _expected,
    _inverse,
    _ring,
    believed,
    drawn,
    fit_profiles,
    fit_stretch,
    level_in,
    psf_of_width,
    radii_before,
    refine,
    scaled_bessel,
    stretched,
    trusted,
)
from galaxies.measure.flux_moments import adaptive_moments, stretch_of, weighted_moments
from galaxies.measure.sersic_mixtures import sersic_mixtures
from galaxies.measure.sky import Sky
from galaxies.measure.source import find_source

SIDE = 48
AXIS = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
ONE = torch.ones(1, dtype=torch.float64)


def covariance(major, minor, angle):
    """By turning: the matrix of a Gaussian of these widths, pixels, at an angle from +x towards +y, degrees."""
    turn = math.radians(angle)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return rotation @ np.diag([major**2, minor**2]) @ rotation.T


def gaussian(matrix, x=0.0, y=0.0):
    """A Gaussian (S, S) of the light 1, at the pixels' centres."""
    place = np.stack(np.broadcast_arrays(AXIS.numpy() - x, AXIS.numpy()[:, None] - y), -1)
    exponent = np.einsum("...i,ij,...j", place, np.linalg.inv(matrix), place)
    return torch.from_numpy(np.exp(-0.5 * exponent) / (2 * np.pi * math.sqrt(np.linalg.det(matrix))))


def stretch(ratio, angle):
    turn = 2 * math.radians(angle)
    return -math.log(ratio) * torch.tensor([[math.cos(turn), math.sin(turn)]], dtype=torch.float64)


PSF = Psf(torch.tensor([[0.8, 0.2]], dtype=torch.float64), torch.tensor([[1.5, 6.0]], dtype=torch.float64))


def test_gaussians_are_drawn_turned_stretched_and_blurred():
    ellipse = Ellipse(torch.tensor([[0.7, -1.3]], dtype=torch.float64), stretch(0.5, 25))
    found = drawn(torch.tensor([8.0, 18.0], dtype=torch.float64), ellipse, PSF, SIDE)[0].view(2, 2, SIDE, SIDE)
    for g, variance in enumerate((8.0, 18.0)):  # the area stays that of the round one
        shape = covariance(math.sqrt(variance / 0.5), math.sqrt(variance * 0.5), 25)
        for k, (part, blur) in enumerate(((0.8, 1.5), (0.2, 6.0))):
            right = part * gaussian(shape + (blur + 1 / 12) * np.eye(2), 0.7, -1.3)
            torch.testing.assert_close(found[k, g], right, rtol=1e-6, atol=1e-9)
    xx, yy, xy = (each.item() for each in stretched(ONE * 9, stretch(0.6, 70)))
    right = covariance(math.sqrt(9 / 0.6), math.sqrt(9 * 0.6), 70)
    np.testing.assert_allclose([xx, yy, xy], [right[0, 0], right[1, 1], right[0, 1]], rtol=1e-6)


def test_a_psf_of_a_width_has_it_and_the_light_1():
    psf = psf_of_width(2 * ONE)
    assert psf.parts.sum().item() == pytest.approx(1)
    radius = torch.linspace(0, 6, 6001, dtype=torch.float64)[:, None]
    height = (psf.parts / psf.variances * torch.exp(-0.5 * radius.square() / psf.variances)).sum(1)
    half = radius[(height > height[0] / 2).sum(), 0].item()
    assert half == pytest.approx(2 * math.sqrt(2 * math.log(2)), rel=0.01)


def test_the_level_in_the_sky_is_the_mean_of_its_pixels():
    sky = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    sky[0, :5] = True
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(level_in(sky, images.flatten(2)), images[:, :, :5].mean((2, 3)))
    assert (level_in(torch.zeros_like(sky), images.flatten(2)) == 0).all()


def test_the_inverse_is_that_of_linear_algebra():
    rows = torch.randn(4, 6, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    matrices = torch.eye(6, dtype=torch.float64) + rows @ rows.mT
    torch.testing.assert_close(_inverse(matrices), torch.linalg.inv(matrices))


def table():
    mixtures = sersic_mixtures(SIDE, torch.float64, torch.device("cpu"))
    ellipse = Ellipse(torch.zeros(1, 2, dtype=torch.float64), stretch(0.7, 40))
    return mixtures, ellipse, drawn(mixtures.variances, ellipse, PSF, SIDE).sum(1)


def fitted(light, zero=0.0, possible=True, taken=0.0, of_level=0.0, weights=None, grain=1.0):
    mixtures, _, drawings = table()
    level = torch.full((1, drawings.shape[1]), taken, dtype=torch.float64) * drawings.mean(2)
    weights = torch.ones(1, SIDE, SIDE, dtype=torch.float64) if weights is None else weights
    return fit_profiles(
        light, weights, drawings, level, ONE * zero, torch.tensor([possible]), mixtures, ONE * grain, ONE * of_level
    )


def profile(index, radius):
    """The number of the profile of the table nearest to these, and its image (1, S, S) of the light 1."""
    mixtures, _, drawings = table()
    number = ((mixtures.indices - index).abs() + (mixtures.radii / radius).log().abs()).argmin().item()
    return number, (mixtures.parts[number] @ drawings[0]).view(1, SIDE, SIDE)


def test_a_profile_of_the_table_is_found_with_its_light():
    number, image = profile(1.0, 4.0)
    light = image * 900 / image.square().sum().sqrt()
    total = (light.sum() / image.sum()).item()
    for zero_too in (True, False):
        model = fitted(light, possible=zero_too)
        both = model.beliefs.unflatten(1, (2, -1))[0]
        assert both.sum(0).argmax().item() == number
        assert both.sum(0)[number] > 0.9 and both.sum() == pytest.approx(1)
        assert model.light.sum().item() == pytest.approx(total, rel=0.003)
        assert model.significance.item() == pytest.approx(900, rel=0.01)
        # Where the file's zero cannot be the sky nobody believes in it; where it can it is e^1.5 times as likely.
        assert model.of_zero.item() == pytest.approx(math.exp(1.5) / (1 + math.exp(1.5)) if zero_too else 0, abs=0.02)
    assert fitted(light, grain=3.0).significance.item() == pytest.approx(300, rel=0.01)


def test_a_sky_that_was_taken_off_with_the_wings_is_put_back():
    _, image = profile(2.8, 5.0)
    light = 4e4 * image
    own = light.mean()
    model = fitted(light - own, possible=False, taken=1.0)
    assert model.light.sum().item() == pytest.approx(4e4, rel=0.005)
    # The zero of the file says the same: the sky that was taken off was the wings.
    told = fitted(light - own, zero=own.item())
    assert told.of_zero.item() > 0.99 and told.light.sum().item() == pytest.approx(4e4, rel=0.01)
    # And an error of the level is let to be one, where it may have one; by 1 of a noise it would be far too bright.
    faint = 0.1 * light + 1
    lifted = [fitted(faint, possible=False, of_level=variance).light.sum().item() for variance in (0.0, 10.0)]
    assert abs(lifted[1] / 4e3 - 1) < 0.02 and lifted[0] / 4e3 > 1.03


def test_pixels_that_are_not_usable_have_no_say():
    _, image = profile(1.0, 4.0)
    weights = torch.ones(1, SIDE, SIDE, dtype=torch.float64)
    weights[:, :, 30:] = 0
    light = torch.where(weights > 0, 3e3 * image, 1e4)
    assert fitted(light, weights=weights, possible=False).light.sum().item() == pytest.approx(3e3, rel=0.01)


def test_light_follows_the_pixels_where_no_profile_does():
    """A sum of two far apart, none of the table: the light in a circle, which the pixels show, is that of the sum."""
    _, ellipse, drawings = table()
    light = 1e4 * profile(0.5, 2.0)[1] + 3e4 * profile(0.5, 9.0)[1]
    usable = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    model = fitted(light, possible=False)
    level, grain = torch.zeros(1, drawings.shape[1], dtype=torch.float64), ONE
    found = refine(model, light, usable, drawings, level, ellipse, grain, 0.01 * ONE)
    shown = [(each.light @ drawings[0]).view(1, SIDE, SIDE) for each in (model, found.model)]
    errors = [(each - light).abs().sum().item() / 4e4 for each in shown]
    assert errors[1] < 0.2 * errors[0]
    assert found.model.light.sum().item() == pytest.approx(4e4, rel=0.005)
    # What noise does to the light is what its covariance says.
    noise = torch.randn(300, SIDE, SIDE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    grained = light + 100 * noise
    many = [
        refine(model, each[None], usable, drawings, level, ellipse, 100 * grain, 0.01 * ONE).model.light
        for each in grained
    ]
    scatter = torch.cat(many).sum(1).std().item()
    covariances = refine(model, light, usable, drawings, level, ellipse, 100 * grain, 0.01 * ONE).covariance
    assert scatter == pytest.approx(covariances.sum().sqrt().item(), rel=0.25)


def test_pixels_are_believed_by_how_far_galaxies_differ_from_models_over_the_noise():
    round_one = Ellipse(torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64))
    level = torch.full((1, SIDE, SIDE), 2.0, dtype=torch.float64)
    nothing = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    radius = torch.hypot(AXIS, AXIS[:, None])
    ring = (2 * math.pi * radius.square() / 3).clamp_min(2)  # pixels of a ring of a third of its radius
    for grain in (1.0, 2.0):
        signal = ring * (0.1 * 2.0 / grain) ** 2
        found = believed(level, round_one, nothing, ONE, ONE * grain)
        torch.testing.assert_close(found[0], signal / (1 + signal), rtol=1e-5, atol=1e-9)
        usable = ~nothing
        found = trusted(fitted(1e3 * profile(1.0, 4.0)[1]), usable, table()[2], round_one, ONE * grain)
        smooth = fitted(1e3 * profile(1.0, 4.0)[1]).light @ table()[2][0]
        signal = ring * (0.07 * smooth.view(SIDE, SIDE) / grain).square()
        torch.testing.assert_close(found[0], 1 / (1 + signal), rtol=1e-5, atol=1e-9)
    half = believed(0 * level, round_one, ~nothing, BELIEVED_SNR * ONE, ONE)
    assert (half == 0.5).all() and (believed(0 * level, round_one, nothing, 1e3 * ONE, ONE) == 0).all()


def test_the_ring_through_a_pixel_is_that_of_the_ellipse():
    """Far along the major axis a ring is as long as near by on the minor one; the other diagonal is not the axis."""
    ellipse = Ellipse(torch.tensor([[0.5, 0.5]], dtype=torch.float64), stretch(0.25, 45))
    found = _ring(ellipse, torch.zeros(1, SIDE, SIDE, dtype=torch.float64))[0]
    middle = SIDE // 2
    along, across = found[middle + 16, middle + 16], found[middle + 4, middle - 4]
    assert along.item() == pytest.approx(across.item(), rel=1e-6)
    assert along.item() == pytest.approx(2 * math.pi / 3 * 0.25 * 2 * 16**2, rel=1e-3)


def test_half_of_a_gaussians_light_lies_within_its_radius():
    light = torch.tensor([[0.0, 5.0]], dtype=torch.float64)
    variances = torch.tensor([1.0, 16.0], dtype=torch.float64)
    found, _, _ = radii_before(light, variances, torch.zeros(1, 2, dtype=torch.float64), SIDE)
    assert found.item() == pytest.approx(4 * math.sqrt(2 * math.log(2)), rel=0.005)
    # Of an ellipse, by counting pixels of a large frame.
    image = gaussian(covariance(4 / math.sqrt(0.6), 4 * math.sqrt(0.6), 0))
    order = torch.hypot(AXIS, AXIS[:, None]).flatten().sort().indices
    radius = math.sqrt(int((image.flatten()[order].cumsum(0) < 0.5 * image.sum()).sum()) / math.pi)
    assert radii_before(light, variances, stretch(0.6, 0), SIDE)[0].item() == pytest.approx(radius, rel=0.02)


def test_the_stretch_that_shows_moments_is_that_of_the_galaxy_before_the_psf():
    """Moments by sums over pixels, of two blurred Gaussians of one stretch, under a weight of another."""
    light, variances = torch.tensor([[3.0, 1.0]], dtype=torch.float64), torch.tensor([4.0, 12.0], dtype=torch.float64)
    for ratio, angle in ((0.4, 20), (0.8, 100)):
        right = stretch(ratio, angle)
        ellipse = Ellipse(torch.zeros(1, 2, dtype=torch.float64), right)
        image = (light[0] @ drawn(variances, ellipse, PSF, SIDE).sum(1)[0]).view(SIDE, SIDE)
        weight = covariance(3.4, 2.9, 60)
        weighed = image * gaussian(weight)
        x, y = AXIS[None], AXIS[:, None]
        sums = [(weighed * each).sum() / weighed.sum() for each in (x * x, y * y, x * y)]
        moments = torch.stack(sums)[None]
        of_weight = torch.tensor([[weight[0, 0], weight[1, 1], weight[0, 1]]])
        start = 0.5 * right + 0.1
        tiny = torch.full((1, 2), 5e-3, dtype=torch.float64)
        found, errors = fit_stretch(moments, of_weight, start, light, variances, PSF, tiny)
        torch.testing.assert_close(found, right, rtol=0, atol=0.004)
        # An error of the moments is that of the stretch: by shifting what was measured, along and across.
        length = right.norm()
        along = right[0] / length
        across = torch.stack([-along[1], along[0]])
        size = sums[0] + sums[1]
        for direction, error in ((along, errors[0, 0]), (across, 2 * length * errors[0, 1])):
            push = 0.5 * size * 1e-3 * direction
            shift = torch.stack([push[0], -push[0], push[1]])[None]
            moved = fit_stretch(moments + shift, of_weight, start, light, variances, PSF, tiny)[0] - found
            assert (moved @ direction).item() == pytest.approx(0.2 * error.item(), rel=0.2)


def test_bessels_function_is_scipys():
    special = pytest.importorskip("scipy.special")
    values = torch.cat([torch.zeros(1), torch.logspace(-3, 6, 400)])
    np.testing.assert_allclose(scaled_bessel(values).numpy(), special.i0e(values.numpy()), rtol=0.006)


@pytest.mark.parametrize("sigma", [0.1, 0.45])
def test_ellipticities_are_true_in_the_mean_of_all_that_noise_makes_alike(sigma):
    """Of galaxies of all axis ratios, sorted by what is measured of them; so are errors, of the angle as well."""
    random = np.random.default_rng(4)
    true = random.uniform(0, 1 - math.exp(-2.6), 40_000)
    vector = np.stack([-np.log(1 - true), 0 * true], 1) + random.normal(0, sigma, (len(true), 2))
    length = np.hypot(*vector.T)
    angle = 0.5 * np.arctan2(vector[:, 1], vector[:, 0])
    found, errors = _expected(torch.from_numpy(length), torch.full((len(true), 2), sigma, dtype=torch.float64))
    seen = 1 - np.exp(-found.numpy())
    error = np.exp(-found.numpy()) * errors[:, 0].numpy()
    for part in np.array_split(length.argsort(), 5):
        assert abs((seen - true)[part].mean()) < 0.012
        assert (seen - true)[part].std() == pytest.approx(math.sqrt((error[part] ** 2).mean()), rel=0.06)
        assert math.sqrt((angle[part] ** 2).mean()) == pytest.approx(
            math.sqrt((errors[part, 1].numpy() ** 2).mean()), rel=0.2
        )


def moments_of(image, grain=1.0):
    light = image if image.ndim == 3 else image[None]
    level = torch.zeros(len(light), dtype=torch.float64)
    corners = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    source = find_source(light, Sky(level[:, None], 0.1 + level, 1 + level, corners))
    return adaptive_moments(light, source, torch.full_like(level, grain))


def test_adaptive_moments_are_those_of_a_gaussian_without_the_weight():
    matrix = covariance(4.0, 2.5, 35)
    found = moments_of(500 * gaussian(matrix, 1.2, -2.1))
    torch.testing.assert_close(found.centre, torch.tensor([[1.2, -2.1]], dtype=torch.float64), rtol=0, atol=1e-3)
    right = torch.tensor([[matrix[0, 0], matrix[1, 1], matrix[0, 1]]])
    torch.testing.assert_close(found.moments, right, rtol=1e-3, atol=1e-3)
    # Under a weight like itself a Gaussian's are half as large.
    torch.testing.assert_close(found.weight, right, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.weighted, 0.5 * right, rtol=1e-3, atol=1e-3)


def test_the_centre_under_a_weight_beside_it_is_the_galaxys():
    """The product of two like Gaussians lies half way between them."""
    matrix = covariance(4.0, 2.5, 35)
    weight = torch.tensor([[matrix[0, 0], matrix[1, 1], matrix[0, 1]]])
    found = weighted_moments(500 * gaussian(matrix, 0.8, -1.1)[None], torch.zeros(1, 2).double(), weight, ONE)
    torch.testing.assert_close(found.centre, torch.tensor([[0.8, -1.1]], dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.moments, weight, rtol=1e-3, atol=1e-3)


def test_a_galaxy_twice_as_wide_as_an_elongated_weight_keeps_its_moments():
    right = torch.tensor([[36.0, 4.0, 0.0]], dtype=torch.float64)
    image = 500 * gaussian(np.diag([36.0, 4.0]))[None]
    found = weighted_moments(image, torch.zeros(1, 2).double(), right / 4, ONE)
    torch.testing.assert_close(found.weighted, right / 5, rtol=5e-3, atol=1e-3)
    torch.testing.assert_close(found.moments, right, rtol=0.03, atol=1e-3)


def test_the_distortion_scatters_by_its_error_along_and_across():
    matrix = covariance(4.0, 2.0, 35)
    image = 400 * gaussian(matrix)
    noise = torch.randn(400, SIDE, SIDE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    weight = torch.tensor([[matrix[0, 0], matrix[1, 1], matrix[0, 1]]]).expand(400, -1)
    zeros = torch.zeros(400, 2, dtype=torch.float64)
    found = weighted_moments(image + noise, zeros, weight, torch.ones(400, dtype=torch.float64))
    xx, yy, xy = found.weighted.unbind(1)
    turn = 2 * math.radians(35)
    one, two = (xx - yy) / (xx + yy), 2 * xy / (xx + yy)
    along, across = one * math.cos(turn) + two * math.sin(turn), two * math.cos(turn) - one * math.sin(turn)
    for values, error in zip((along, across), found.error.unbind(1), strict=True):
        assert (values.std() / error.median()).item() == pytest.approx(1, abs=0.12)
    louder = weighted_moments(image + noise, zeros, weight, torch.full((400,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(louder.error, 2 * found.error)


def test_moments_of_noise_alone_stay_near_the_weights():
    noise = torch.randn(60, SIDE, SIDE, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    weight = torch.tensor([[9.0, 4.0, 1.0]], dtype=torch.float64).expand(60, -1)
    found = weighted_moments(noise, torch.zeros(60, 2, dtype=torch.float64), weight, torch.ones(60).double())
    for values, low, high in ((found.weighted, 0.1, 0.95), (found.moments, 0.25, 4.0)):
        xx, yy, xy = values.unbind(1)
        major = (xx + yy) / 2 + (((xx - yy) / 2).square() + xy.square()).sqrt()
        minor = xx + yy - major
        assert (major > low * 6.5 - 1e-6).all() and (major < 2 * high * 6.5 + 1e-6).all()
        assert (minor > 0).all()
        assert (major > 1.05 * low * 6.5).any() and (major < 2 * 0.95 * high * 6.5).any()
    assert found.centre.abs().amax() <= SIDE / 4


def test_the_stretch_of_moments_is_that_of_the_axes_without_the_psf():
    matrix = covariance(5.0, 3.0, 130) + 2.25 * np.eye(2)
    moments = torch.tensor([[matrix[0, 0], matrix[1, 1], matrix[0, 1]]])
    torch.testing.assert_close(stretch_of(moments, 2.25 * ONE), stretch(0.6, 130), rtol=1e-6, atol=1e-6)
    narrow = stretch_of(torch.tensor([[4.0, 1.0, 0.0]], dtype=torch.float64), 2 * ONE)  # narrower than the PSF
    assert narrow[0, 0].item() == pytest.approx(0.5 * math.log(2 / 0.1), rel=1e-6)
