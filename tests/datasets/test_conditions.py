"""The condition vector: built, taken apart, changed in one part."""

from __future__ import annotations

import pytest
import torch

from config_physics import Config
from galaxies.datasets.conditions import condition_vector, take_apart, with_scaled


def test_condition_vector_by_hand():
    config = Config(attributes=("ellipticity", "redshift"))
    condition, scaled, known = condition_vector(torch.tensor([2]), torch.tensor([[0.45, torch.nan]]), config)
    expected = torch.tensor([[0, 0, 1, 0, 0.5, 0, 1, 0]])
    torch.testing.assert_close(condition, expected.float())
    torch.testing.assert_close(scaled, torch.tensor([[0.5, 0.0]]))
    assert known.tolist() == [[1.0, 0.0]]


def test_paper_condition_is_one_hot_and_raw_values():
    config = Config(attributes=("vote_count",), condition_mask=False)
    condition, _, _ = condition_vector(torch.tensor([1]), torch.tensor([[0.3]]), config)
    torch.testing.assert_close(condition, torch.tensor([[0, 1, 0, 0, 0.3]]))


@pytest.mark.parametrize("mask", [True, False])
def test_parts_are_what_the_vector_was_built_of(mask):
    config = Config(attributes=("size", "ellipticity", "redshift"), condition_mask=mask)
    classes = torch.tensor([3, 0])
    values = torch.tensor([[0.28, torch.nan, 0.125], [0.05, 0.9, torch.nan]])
    condition, scaled, known = condition_vector(classes, values, config)
    assert condition.shape == (2, config.condition_dim)
    parts = take_apart(condition, config)
    assert parts.one_hot.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]
    torch.testing.assert_close(parts.scaled, torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]))
    assert torch.equal(parts.scaled, scaled)
    assert torch.equal(parts.flags, known if mask else torch.empty(2, 0))
    assert known.tolist() == [[1, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize("mask", [True, False])
def test_other_values_change_their_part_alone(mask):
    config = Config(attributes=("size", "redshift"), condition_mask=mask)
    before = [[0.0, 1, 2, 3, 4, 5, 6, 7], [10.0, 11, 12, 13, 14, 15, 16, 17]]
    after = [[0.0, 1, 2, 3, -1, -2, 6, 7], [10.0, 11, 12, 13, -3, -4, 16, 17]]
    given = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    changed = with_scaled(torch.tensor(before)[:, : config.condition_dim], given, config)
    assert torch.equal(changed, torch.tensor(after)[:, : config.condition_dim])


def test_a_vector_of_other_settings_is_refused():
    with pytest.raises(RuntimeError, match="split"):
        take_apart(torch.zeros(1, 9), Config(attributes=("size", "redshift")))


def test_shares_of_classes_stand_where_the_one_hot_class_does():
    config = Config(attributes=("ellipticity",), soft_classes=True)
    shares = torch.tensor([[0.7, 0.3, 0, 0], [0, 0, 0, 1.0]])
    values = torch.tensor([[0.45], [torch.nan]])
    condition, _, _ = condition_vector(shares, values, config)
    torch.testing.assert_close(condition, torch.tensor([[0.7, 0.3, 0, 0, 0.5, 1], [0, 0, 0, 1, 0, 0]]))
    hard, _, _ = condition_vector(torch.tensor([0, 3]), values, config)
    assert torch.equal(hard[1], condition[1])  # a class is the share of one
