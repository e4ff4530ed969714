from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from galaxies.common.errors import UserError
from galaxies.datasets.field.frames import Area, Plane
from galaxies.datasets.field.sky import map_sky

WHOLE = Area(0, 240, 0, 300)
NOISE = np.random.default_rng(0).standard_normal((240, 300)).astype(np.float32)


def plane(image):
    return Plane("r", image.shape, lambda area: image[area.y0 : area.y1, area.x0 : area.x1].astype(np.float32))


def test_level_and_noise_follow_the_frame():
    y, x = np.mgrid[:240, :300]
    slope = 50 + 0.1 * x - 0.05 * y
    spread = np.where(x < 150, 2.0, 4.0)
    sky = map_sky(plane(slope + spread * NOISE), 60)
    assert np.abs(sky.level(WHOLE) - slope).max() < 1.5  # also beyond the centres of the outermost boxes
    assert np.allclose(sky.noise(Area(0, 240, 0, 60)), np.hypot(2.0, 0.11 * 60 / 12**0.5), rtol=0.1)
    assert np.allclose(sky.noise(Area(0, 240, 240, 300)), np.hypot(4.0, 0.11 * 60 / 12**0.5), rtol=0.1)
    assert np.array_equal(sky.level(Area(50, 60, 70, 90)), sky.level(WHOLE)[50:60, 70:90])
    assert sky.noise_at(np.array([10.2]), np.array([20.4]))[0] == sky.noise(WHOLE)[10, 20]
    # The slope within a box counts as noise of a pixel, and not as noise that pixels share.
    assert sky.sharing == 1.0
    assert map_sky(plane(NOISE), 60).sharing == pytest.approx(1, abs=0.1)


def test_sources_that_are_known_do_not_raise_the_sky():
    y, x = np.mgrid[:240, :300]
    halo = 5 * np.exp(-np.hypot(x - 150, y - 120) / 40)  # wider than a box
    image = plane(halo + NOISE)
    covered = np.hypot(x - 150, y - 120) < 70
    centre = Area(115, 125, 145, 155)
    blind = map_sky(image, 60).level(centre).mean()
    told = map_sky(image, 60, lambda area: covered[area.y0 : area.y1, area.x0 : area.x1]).level(centre).mean()
    assert told < 0.5 * blind


def test_what_was_not_observed_takes_its_sky_from_around():
    image = 10 + NOISE
    image[60:120, 60:120] = np.nan
    image[120:180, 60:120] = 0  # a box without noise
    sky = map_sky(plane(image), 60)
    assert np.allclose(sky.level(WHOLE), 10, atol=0.2)
    assert np.allclose(sky.noise(WHOLE), 1, rtol=0.1)
    with pytest.raises(UserError, match=r"a sky without noise"):
        map_sky(plane(np.ones((64, 64))), 32)


def test_noise_that_pixels_share_is_told():
    # Of a mean over 3 x 3 pixels, sums over 6 x 6 have this times the noise of as many independent ones, by the squares
    # of the weights 1/3, 2/3, 1, 1, 1, 1, 2/3, 1/3 of the pixels before.
    weights = np.convolve(np.ones(6), np.ones(3) / 3)
    expected = (weights**2).sum() / (6 / 3)
    sky = map_sky(plane(uniform_filter(NOISE, 3, mode="wrap")), 60)
    assert sky.sharing == pytest.approx(expected, rel=0.1)
    assert np.median(sky.noise_mesh) == pytest.approx(1 / 3, rel=0.05)


def test_a_frame_of_one_box_is_level():
    sky = map_sky(plane(7 + NOISE[:50, :50]), 128)
    assert np.allclose(sky.level(Area(0, 50, 0, 50)), 7, atol=0.2)
