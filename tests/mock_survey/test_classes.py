"""The table of the mock survey's classes: whole, and all that a class new to the survey has to touch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from config_physics import MORPHOLOGY_NAMES
from galaxies.mock_survey import observation, population
from galaxies.mock_survey.classes import CLASSES, Family, Impression, MockClass, draw_light
from galaxies.mock_survey.galaxy_table import columns_of
from galaxies.mock_survey.light import Light
from galaxies.mock_survey.observation import BLOCK, MockSurvey
from galaxies.mock_survey.structure import Shape

COUNT = BLOCK + 10  # of two blocks, whose classes are not equally many if they are five


@dataclass
class Ring:
    """What only ring galaxies have: the radius of the ring over its half-light radius."""

    radius: np.ndarray


def ring_shape(count: int, rng: np.random.Generator) -> Shape:
    flat = np.full(count, 0.05)
    return Shape(np.ones(count), flat, axis_ratio=rng.uniform(0.9, 1.0, count), other=Ring(np.full(count, 1.2)))


def ring_light(p, grid, _pair) -> Light:
    radius = (grid.x.square() + grid.y.square()).sqrt() / p.size[:, None, None]
    ring = torch.exp(-0.5 * ((radius - p.structure.other.radius[:, None, None]) / 0.1).square())
    ring = ring / ring.sum((1, 2), keepdim=True)
    return Light((p.disc_flux + p.bulge_flux)[..., None, None] * ring[:, None], [])


RING = MockClass(
    ring_shape, Family(-21.0, 0.5, 1.5, 0.0, 4.5, 0.0), Impression(features=0.99, edge_on=0.0), {"ring": ring_light}
)


@pytest.fixture
def with_rings(monkeypatch):
    """Name a fifth class in the table of the conditions, and give it an entry in the survey's; touch nothing else."""
    for module in (observation, population):  # which import the names
        monkeypatch.setattr(module, "MORPHOLOGY_NAMES", (*MORPHOLOGY_NAMES, "ring"))
    monkeypatch.setitem(CLASSES, "ring", RING)


def test_no_two_classes_share_the_name_of_a_kind():
    kinds = [kind for entry in CLASSES.values() for kind in entry.light]
    assert len(kinds) == len(set(kinds)) == 5


@pytest.mark.parametrize("name", MORPHOLOGY_NAMES)
def test_every_galaxy_is_of_a_kind_that_can_be_drawn(name):
    drawn = population.draw_structure(name, 100, np.random.default_rng(0))
    assert set(CLASSES[name].kinds(drawn)) == set(CLASSES[name].light)
    assert len(CLASSES[name].kinds(drawn)) == 100


def test_a_pair_is_dry_where_its_structure_says_so():
    drawn = population.draw_structure("merger", 100, np.random.default_rng(0))
    np.testing.assert_array_equal(CLASSES["merger"].kinds(drawn) == "dry merger", drawn.pair.dry == 1)


def test_a_new_class_needs_an_entry_alone(with_rings):
    (batch,) = MockSurvey(0, 64).batches(COUNT, 2)
    morphologies = np.array(batch.morphologies)
    assert morphologies[:6].tolist() == [*MORPHOLOGY_NAMES, "ring", "spiral"]
    assert (morphologies == "ring").sum() == COUNT // 5
    rings = morphologies == "ring"
    # The pictures show rings: the middle is dark and the light is not.
    brightness = batch.images[rings].mean(1)
    assert (brightness.max((1, 2)) > 1.5 * brightness[:, 31:33, 31:33].mean((1, 2))).mean() > 0.8
    of_discs = ("arm_count", "bar", "bulge")  # unknown of other galaxies
    assert all(np.isfinite(values).all() for name, values in batch.truth.items() if name not in of_discs)
    seen = batch.votes["t01_smooth_or_features_a02_features_or_disk"] / batch.votes["total_classifications"]
    assert seen[rings].mean() > 0.85  # as their impression says, 0.99 of 1.02


def test_galaxies_of_five_classes_do_not_depend_on_the_batches(with_rings):
    (whole,) = MockSurvey(0, 64).batches(COUNT, 2)
    parts = list(MockSurvey(0, 64).batches(COUNT, 1))
    assert [len(part.images) for part in parts] == [BLOCK, COUNT - BLOCK]
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
    for name, values in whole.truth.items():
        np.testing.assert_array_equal(np.concatenate([part.truth[name] for part in parts]), values, err_msg=name)


def test_columns_of_a_new_class_travel_with_its_structure(with_rings):
    drawn = population.draw_structure("ring", 3, np.random.default_rng(0))
    assert columns_of(drawn)["other.radius"].tolist() == [1.2, 1.2, 1.2]


def test_without_its_entry_a_new_class_is_refused(with_rings, monkeypatch):
    monkeypatch.delitem(CLASSES, "ring")
    with pytest.raises(ValueError, match="cannot draw the class 'ring'"):
        next(MockSurvey(0, 64).batches(COUNT))
    with pytest.raises(ValueError, match="cannot draw the light of a 'ring'"):
        draw_light("ring", None, None)
