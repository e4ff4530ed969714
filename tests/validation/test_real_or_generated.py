"""The network that tells generated from real galaxies: rates by hand, what it sees, and classes with few pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from config_physics import MORPHOLOGY_NAMES
from galaxies.compute.device import Engine
from galaxies.validation.real_or_generated import Pairs, groups_with_pairs, rate, tell_apart


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Images this small are slower to share among threads than to measure."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def both_rows(rows):
    """Pair the rows of one sample with the same rows of the other, dealt into the classes in turn."""
    return [(rows[k::4], rows[k::4]) for k in range(4)]


def test_a_rate_by_hand():
    found = rate(np.array([1.0, 2.0, -1.0, 0.0]), np.array([0.0, -1.0, -2.0, 3.0]))
    # Two of four generated are above 0, three of four real are not; of 16 pairs 9 are in order and 2 are ties.
    assert found["pairs"] == 4
    assert found["accuracy"] == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert found["standard_error"] == pytest.approx((0.625 * 0.375 / 8) ** 0.5)
    assert found["auc"] == pytest.approx(10 / 16)


def test_classes_with_few_pairs_are_not_tested():
    rows = np.arange(20)
    side = [(rows[:5], rows[:5]), (rows[:4], rows[:4]), (rows[:0], rows[:0]), (rows, rows)]
    assert groups_with_pairs(side) == {MORPHOLOGY_NAMES[0]: [0], MORPHOLOGY_NAMES[3]: [3], "all": [0, 3]}
    assert groups_with_pairs(side[1:3]) == {}


def test_the_network_sees_what_the_eye_does():
    generator = torch.Generator().manual_seed(0)
    sky = torch.randint(10, 30, (240, 3, 64, 64), dtype=torch.uint8, generator=generator).numpy()
    striped = sky.copy()
    striped[:, :, ::4] += 30
    pairs = Pairs(both_rows(np.arange(160)), both_rows(np.arange(160, 240)))
    engine = Engine.choose("cpu", "fp32")
    rates = tell_apart(striped, sky, pairs, 6, 0, engine, "test")
    assert set(rates) == {*MORPHOLOGY_NAMES, "all"}
    assert rates["all"]["auc"] > 0.95
    assert rates["all"]["pairs"] == 80 and rates["spiral"]["pairs"] == 20
    # The same pictures on both sides are a guess, whatever was learned.
    assert tell_apart(sky, sky, pairs, 6, 0, engine, "test")["all"]["auc"] == 0.5
