"""Measuring the attributes of drawn pictures: in fixed numbers as graphs do, and operation by operation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.kernels import as_on_cuda
from config_physics import PHOTOMETRIC_ATTRIBUTES
from galaxies.compute.device import Engine
from galaxies.generation import attribute_measuring
from galaxies.generation.attribute_measuring import AttributeMeasurer
from galaxies.measure.photometry import NO_SOURCE
from galaxies.measure.statistics_table import (
    ATTRIBUTE_STATISTICS,
    PLACE_STATISTICS,
    PLACES,
    Measured,
    measure_images,
)
from tests.compute.test_cuda_graphs import Watch
from tests.compute.traced_step import TracedStep
from tests.conftest import needs_cuda, render_galaxies


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    images = torch.from_numpy(render_galaxies(41)[0])
    images[7] = 30  # blank
    return images


@pytest.fixture
def as_if_recording():
    """Take the branches of a recording on CUDA."""
    with as_on_cuda():
        yield


@pytest.fixture
def recording(monkeypatch, as_if_recording) -> AttributeMeasurer:
    monkeypatch.setattr("galaxies.compute.recorded_functions.RecordedStep", TracedStep)
    monkeypatch.setattr(attribute_measuring, "_RECORDED_TOGETHER", 16)
    return AttributeMeasurer(Engine(torch.device("cpu"), bf16=False, graphs=True))


def expected_of(images: torch.Tensor) -> Measured:
    return measure_images(images, "cpu", statistics=ATTRIBUTE_STATISTICS + PLACE_STATISTICS)


def assert_alike(found, expected):
    assert list(found.values) == list(expected.values)
    assert set(found.values) == {*PHOTOMETRIC_ATTRIBUTES, *PLACES}
    assert np.array_equal(found.flags, expected.flags) and found.flags.dtype == np.int64
    for name, column in expected.values.items():
        np.testing.assert_allclose(found.values[name], column, rtol=1e-3, atol=1e-4, err_msg=name)


def test_graphs_measure_what_is_measured_without(recording, pictures):
    expected = expected_of(pictures)
    assert expected.flags[7] & NO_SOURCE
    for _ in range(2):  # of three blocks, so that from the third one on graphs are replayed
        assert_alike(recording(pictures), expected)
    assert recording._run.num_graphs == 1
    assert_alike(recording(pictures[5:6]), expected_of(pictures[5:6]))


def test_on_a_processor_nothing_is_recorded(pictures):
    measurer = AttributeMeasurer(Engine.choose("cpu", "fp32", "auto"))
    found, expected = measurer(pictures), expected_of(pictures)
    assert np.array_equal(found.flags, expected.flags)
    assert all(np.array_equal(found.values[name], expected.values[name], equal_nan=True) for name in expected.values)


def test_measuring_never_waits_for_the_device(pictures, as_if_recording):
    with torch.inference_mode():
        attribute_measuring._attribute_columns(pictures)  # fills what is kept from then on
        with Watch() as watch:
            attribute_measuring._attribute_columns(pictures)
    assert watch.found == []


@needs_cuda
def test_graphs_on_cuda_measure_what_a_processor_measures(pictures):
    measurer = AttributeMeasurer(Engine.choose("cuda", "fp32", "auto"))
    many = pictures.repeat(40, 1, 1, 1)
    found = measurer(many.cuda())
    assert measurer._run.num_graphs == 1
    assert_alike(found, expected_of(many))
