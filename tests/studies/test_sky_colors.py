"""Requests beyond the data's own, the real galaxies that are like them, and the colours of skies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.generation.sampler import GalaxySampler
from galaxies.measure.statistics_table import measure_attributes
from studies.sky_colors import KINDS, requests, resembling, table


@pytest.fixture(scope="module")
def sampler(untrained):
    return GalaxySampler.from_checkpoint(untrained["gan"], "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_requests_lie_within_what_their_class_has(sampler, kind):
    classes, values = requests(sampler, kind, 60, 1)
    assert len(classes) == len(values) > 0
    again = requests(sampler, kind, 60, 1)
    assert torch.equal(classes, again[0]) and torch.equal(values.nan_to_num(-1), again[1].nan_to_num(-1))
    if kind == "data":
        return
    verdicts = sampler.support(classes, values).verdicts
    assert verdicts.max() <= (0 if kind == "like" else 1)
    for index, row in zip(classes.tolist(), values, strict=True):
        for value, limits in zip(row.tolist(), sampler.supported[index], strict=True):
            if limits is None:
                continue
            if kind == "ends":
                assert min(abs(value - end) for end in limits) < 1e-6
            else:
                assert limits[0] - 1e-6 <= value <= limits[1] + 1e-6


def test_real_galaxies_are_of_the_class_and_near_the_request(data, sampler):
    rows = np.arange(0, len(data.images), 3)
    names = tuple(a.name for a in sampler.attributes)
    classes = torch.from_numpy(data.classes(rows))
    values = torch.from_numpy(data.attributes(names, rows)).float()
    found = resembling(data, sampler, classes, values, 1)
    assert np.array_equal(data.classes(found), classes.numpy())
    column = names.index("size")
    near = np.abs(data.attributes(names, found)[:, column] - values[:, column].numpy())
    others = np.random.default_rng(0).permutation(found)
    far = np.abs(data.attributes(names, others)[:, column] - values[:, column].numpy())
    assert np.nanmean(near) < 0.7 * np.nanmean(far)


def test_a_sky_that_is_redder_is_found():
    noise = torch.Generator().manual_seed(3)
    real = torch.randint(4, 12, (200, 3, 64, 64), generator=noise, dtype=torch.uint8)
    levels = torch.randint(0, 6, (200, 3, 1, 1), generator=noise, dtype=torch.uint8)
    real, same = real + levels, real + levels.flip(0)
    red = same.clone()
    red[:, 0] += 20
    assert measure_attributes(real[:1].numpy())["size"].shape == (1,)
    plain, reddened = (table("like", images, real, 1) for images in (same, red))
    multiples = [
        [float(line.split("B" if "- B" in line else "G")[-1].split()[0]) for line in lines]
        for lines in (plain, reddened)
    ]
    assert max(multiples[0]) < 1.5
    assert multiples[1][0] > 5 and multiples[1][2] > 5 and multiples[1][1] < 1.5  # red less green, red less blue
