"""All that is measured on an image: invariances, blank frames, the table, measuring in blocks, diversity."""

import math

import numpy as np
import pytest
import torch

from config_physics import PHOTOMETRIC_ATTRIBUTES
from galaxies.measure import statistics_table
from galaxies.measure.photometry import NO_SOURCE, measure_with_morphology, measure_with_structure
from galaxies.measure.statistics_table import (
    ATTRIBUTE_STATISTICS,
    MORPHOLOGY_STATISTICS,
    STATISTIC_NAMES,
    STATISTICS,
    Measured,
    diversity,
    image_statistics,
    measure_attributes,
    measure_images,
)
from tests.conftest import render_galaxies
from tests.measure.test_sky import NOISE, blob, frames, white


def test_a_galaxy_in_the_centre_changes_neither_sky_nor_noise():
    noise = NOISE * white()
    empty, full = image_statistics(frames(noise)), image_statistics(frames(noise, blob(ellipticity=0.3)))
    for name in empty:
        if not name.startswith("power"):
            assert torch.allclose(empty[name], full[name], rtol=0.01, atol=1e-3), name


def test_flips_and_quarter_turns_change_nothing():
    images = frames(NOISE * white(4), blob(x0=0.1, ellipticity=0.5), blob(x0=-0.3, y0=0.4, width=0.03))
    expected = image_statistics(images)
    for turned in (images.flip(3), images.rot90(1, (2, 3)), images.rot90(2, (2, 3)), images.transpose(2, 3)):
        for name, values in image_statistics(turned).items():
            assert torch.allclose(values, expected[name], rtol=1e-3, atol=1e-4), name


def test_an_image_is_measured_by_itself():
    images = frames(NOISE * white(5), blob())
    together = image_statistics(images)
    for name, value in image_statistics(images[3:4]).items():
        assert value.item() == pytest.approx(together[name][3].item(), rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_blank_frames_give_finite_statistics(level):
    statistics = image_statistics(torch.full((2, 3, 64, 64), level))
    for name, values in statistics.items():
        assert values.shape == (2,), name
        assert torch.isfinite(values).all(), name
    assert statistics["sky_red"].tolist() == pytest.approx([level] * 2, abs=1e-6)
    assert statistics["noise_red"].max() < 0.1 / 255


# The table


@pytest.fixture(scope="module")
def pictures():
    """Seventy galaxies, more than are measured at a time, of which the first frame is blank."""
    images = torch.from_numpy(render_galaxies(70)[0])
    images[0] = 20
    return images


def test_what_people_see_is_measured_where_there_is_a_galaxy(pictures):
    measured = measure_images(pictures[:6], statistics=MORPHOLOGY_STATISTICS)
    *_, arms, mergers = measure_with_morphology(pictures[:6].float() / 255)
    expected = arms._asdict() | mergers._asdict()
    assert set(measured.values) == set(expected)
    for name, values in measured.values.items():
        assert np.isnan(values[0])  # of a blank frame
        np.testing.assert_array_equal(values[1:], expected[name].double().numpy()[1:])


def test_the_table_holds_what_its_sources_measure(pictures):
    measured = measure_images(pictures)
    assert tuple(measured.values) == STATISTIC_NAMES and measured.table().shape == (len(measured), len(STATISTICS))
    galaxy, structure = measure_with_structure(pictures.float() / 255)
    found = galaxy._asdict() | structure._asdict() | image_statistics(pictures.float() / 255)
    assert np.array_equal(measured.flags, galaxy.flag.numpy()) and measured.flags[0] & NO_SOURCE
    for statistic in STATISTICS:
        values = measured.values[statistic.name]
        assert values.dtype == np.float64
        # Nothing is known of a galaxy that was not found, but of its sky.
        assert np.isnan(values[0]) == (statistic.source != "image"), statistic.name
        np.testing.assert_allclose(values[1:], found[statistic.name][1:].numpy(), rtol=1e-4, atol=1e-5)


def test_neither_neighbours_nor_threads_change_a_value(pictures, threads):
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(pictures)))
    together = measure_images(pictures)
    permuted = measure_images(pictures[order])
    assert np.array_equal(permuted.table(), together.table()[order], equal_nan=True)
    assert np.array_equal(permuted.flags, together.flags[order])
    for row in (1, 40, 69):
        alone = measure_images(pictures[row : row + 1])
        np.testing.assert_allclose(alone.table()[0], together.table()[row], rtol=1e-5, atol=1e-7)
    torch.set_num_threads(2)
    assert np.array_equal(measure_images(pictures).table(), together.table(), equal_nan=True)


def test_each_block_is_measured_by_one_thread(pictures, threads, monkeypatch):
    counts, whole = [], statistics_table._found_on

    def found_on(images, *rest):
        counts.append((len(images), torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return whole(images, *rest)

    monkeypatch.setattr(statistics_table, "_found_on", found_on)
    measure_images(pictures, statistics=ATTRIBUTE_STATISTICS)
    assert sorted(counts) == [(6, 1, True), *[(16, 1, True)] * 4]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("side, together", [(64, 16), (100, 10), (256, 4)])
def test_larger_images_are_measured_fewer_at_a_time(side, together, monkeypatch):
    lengths, whole = [], statistics_table._found_on
    monkeypatch.setattr(
        statistics_table, "_found_on", lambda images, *rest: lengths.append(len(images)) or whole(images, *rest)
    )
    measure_images(torch.rand(together + 1, 3, side, side), statistics=ATTRIBUTE_STATISTICS)
    assert sorted(lengths) == [1, together]


def test_what_is_asked_for_alone_is_measured_the_same(pictures):
    everything = measure_images(pictures)
    attributes = measure_images(pictures, statistics=ATTRIBUTE_STATISTICS)
    assert tuple(attributes.values) == PHOTOMETRIC_ATTRIBUTES
    for name, values in measure_attributes(pictures.numpy()).items():
        assert np.array_equal(values, everything.values[name], equal_nan=True), name
        assert np.array_equal(values, attributes.values[name], equal_nan=True), name


def test_only_the_sources_asked_for_are_measured(pictures, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("not asked for")

    monkeypatch.setattr("galaxies.measure.statistics_table.measure_with_structure", fail)
    monkeypatch.setattr("galaxies.measure.statistics_table.image_statistics", fail)
    assert len(measure_images(pictures[:2], statistics=ATTRIBUTE_STATISTICS)) == 2
    with pytest.raises(AssertionError, match="not asked for"):
        measure_images(pictures[:2])


def test_measurements_are_joined_and_taken_apart(pictures):
    whole = measure_images(pictures, statistics=ATTRIBUTE_STATISTICS)
    parts = Measured.joined([whole.of(row) for row in range(len(whole))])
    assert np.array_equal(parts.table(), whole.table(), equal_nan=True)
    assert np.array_equal(parts.flags, whole.flags)


def test_no_images_have_no_measurements():
    measured = measure_images(torch.zeros(0, 3, 64, 64), statistics=ATTRIBUTE_STATISTICS)
    assert len(measured) == 0 and not measured and measured.table().shape == (0, len(ATTRIBUTE_STATISTICS))


def test_diversity_is_the_mean_distance_of_pairs():
    black = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    bright = torch.full_like(black, 255)
    # Black and white differ by 1 in each of the 768 values; of three pairs among two blacks and a white, two differ.
    assert diversity(torch.cat([black, bright])) == pytest.approx(math.sqrt(768), rel=1e-6)
    assert diversity(torch.cat([black, black, bright])) == pytest.approx(2 / 3 * math.sqrt(768), rel=1e-6)
    assert math.isnan(diversity(black))
