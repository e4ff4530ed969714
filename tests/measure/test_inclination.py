"""The relation between a disc's inclination and its axis ratio, against an oblate spheroid that is seen from a side."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.measure.inclination import DISC_THICKNESS, axis_ratio_of, inclination_of


def test_an_oblate_spheroid_has_that_axis_ratio():
    # Points on x^2 + y^2 + (z / q0)^2 = 1, turned about x and seen along z: the farthest along y is the minor axis.
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400_000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points[:, 2] *= DISC_THICKNESS
    for degrees in (0.0, 20.0, 45.0, 70.0, 85.0, 90.0):
        angle = np.radians(degrees)
        minor = (points[:, 1] * np.cos(angle) + points[:, 2] * np.sin(angle)).max()
        assert axis_ratio_of(torch.tensor(degrees)).item() == pytest.approx(minor, abs=1e-3)


def test_the_two_undo_each_other_and_stay_within_a_right_angle():
    degrees = torch.linspace(1, 89, 45, dtype=torch.float64)
    torch.testing.assert_close(inclination_of(axis_ratio_of(degrees)), degrees)
    assert inclination_of(torch.tensor([1.0, 1.2, DISC_THICKNESS, 0.05])).tolist() == pytest.approx([0, 0, 90, 90])
