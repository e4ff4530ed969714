"""Feature spaces: fixed random filters, counted in real deviations, and the check that distances grow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from config_physics import MORPHOLOGY_NAMES
from galaxies.measure.statistics_table import STATISTIC_NAMES, measure_images
from galaxies.validation.feature_spaces import (
    DISTANCES,
    FeatureSpace,
    RandomFeatures,
    add_noise,
    blur,
    standardised,
    validate,
)
from tests.conftest import render_galaxies


@pytest.fixture(scope="module")
def galaxies():
    images, names = render_galaxies(96, 5)
    return torch.from_numpy(images), np.array([MORPHOLOGY_NAMES.index(name) for name in names])


def test_random_features_are_the_same_in_every_process_and_depend_on_each_image_alone(galaxies):
    images = galaxies[0][:6]
    features = RandomFeatures(64).features(images)
    assert features.shape == (6, 64) and features.dtype == np.float64
    assert np.array_equal(features, RandomFeatures(64).features(images))
    assert features[3:4] == pytest.approx(RandomFeatures(64).features(images[3:4]), rel=1e-4)
    assert np.all(features.std(0) > 0)


def test_standardised_features_have_real_deviations_and_no_gaps():
    real = torch.arange(20.0)[:, None]
    unknown = np.array([[np.nan]])
    embed = standardised(lambda x: np.concatenate([x.numpy(), np.repeat(unknown, len(x), 0)], 1), real)
    features = embed(real)
    assert not features[:, 1].any()
    assert features[:, 0].mean() == pytest.approx(0) and features[:, 0].std() == pytest.approx(1)
    assert embed(torch.tensor([[1e9]]))[0, 0] == 10


def test_blur_and_noise_do_what_they_say():
    point = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    point[:, :, 32, 32] = 250
    spread = blur(point, 1.0)
    assert spread[0, 0, 32, 32] == round(250 / (2 * np.pi))  # the peak of a normal density in two dimensions
    assert torch.equal(blur(point, 0.0), point)
    grey = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    assert float((add_noise(grey, 0.1, 0).float() - 128).std() / 255) == pytest.approx(0.1, rel=0.03)
    assert torch.equal(add_noise(grey, 0.1, 0), add_noise(grey, 0.1, 0))


def test_random_features_pass_the_check_and_blind_ones_fail_it(galaxies):
    images, classes = galaxies
    network = RandomFeatures(64)
    good = FeatureSpace("random", "", "", standardised(network.features, images))
    blind = FeatureSpace("blind", "", "", lambda x: np.zeros((len(x), 2)))
    result = validate((good, blind), images, classes, 0)
    assert set(result["damages"]) == {"blur", "noise", "single", "class"}
    for damage in ("blur", "noise", "single"):
        for distance in DISTANCES:
            assert result["spaces"]["random"][damage][distance]["monotone"], (damage, distance)
    assert not result["spaces"]["blind"]["blur"]["frechet"]["monotone"]
    assert result["passed"] is False
    values = result["spaces"]["random"]["single"]["frechet"]["values"]
    assert result["spaces"]["random"]["single"]["frechet"]["monotone"] == bool(np.all(np.diff(values) > 0))
    assert result == validate((good, blind), images, classes, 0)


def test_too_few_images_are_not_checked(galaxies):
    assert validate((), galaxies[0][:39], galaxies[1][:39], 0) == {
        "left_out": "needs 40 images of the reference, has 39"
    }


def test_every_statistic_is_measured_and_a_blank_frame_has_none(galaxies):
    images = torch.cat([galaxies[0][:3], torch.zeros(1, 3, 64, 64, dtype=torch.uint8)])
    measured = measure_images(images)
    assert tuple(measured.values) == STATISTIC_NAMES
    assert np.isfinite(measured.table()[:3]).all()
    assert np.isnan(measured.values["size"][3]) and np.isfinite(measured.values["sky_red"][3])
    assert measured.flags[3] & 1 and not measured.flags[0] & 1
    assert np.allclose(measure_images(images[:3].float() / 255).table(), measured.table()[:3], atol=1e-5)
