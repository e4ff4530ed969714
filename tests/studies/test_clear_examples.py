"""The table of real galaxies that the rules for clear examples hold for."""

from __future__ import annotations

import numpy as np
import torch

from studies.clear_examples import table
from tests.serving.test_learn import NAMES, paint


def test_painted_galaxies_stand_under_their_class_and_others_are_counted_against_it():
    images = torch.from_numpy(np.stack([paint(name) for name in NAMES] + [paint("edge-on", 1.4)]))
    lines = table(images, np.array([0, 1, 2, 3, 0]))  # the last one is called a spiral
    assert lines[0].split() == ["rule", *NAMES, "of", "the", "class"]
    assert [line.split() for line in lines[1:]] == [
        ["spiral", "1", "0", "0", "0", "100.0%"],
        ["elliptical", "0", "1", "0", "0", "100.0%"],
        ["merger", "0", "0", "1", "0", "100.0%"],
        ["edge-on", "1", "0", "0", "1", "50.0%"],
        ["all", "2", "1", "1", "1"],
    ]
