"""Reports on colour pictures of a dataset's own classes."""

from __future__ import annotations

import numpy as np
import pytest

from config_physics import Morphology
from galaxies.datasets.layout import DISPLAY
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from galaxies.validation.viewing import Viewer


@pytest.mark.parametrize("count", [1, 9])
def test_what_looks_at_a_dataset_knows_its_classes(tmp_path, count):
    classes = [Morphology(f"class {k}", f"Class {k}", "") for k in range(count)]
    images = np.zeros((count, 3, 64, 64), np.uint8)
    with DatasetWriter(tmp_path / "d", 64, 0.5, {}, layout=DISPLAY.with_classes(classes)) as writer:
        writer.append(images, [f"g{k}" for k in range(count)], [c.name for c in classes], {})
    data = PreparedDataset.open(tmp_path / "d")
    viewer = Viewer.of_dataset(data)
    assert viewer.layout.classes == tuple(c.name for c in classes)
    assert [m.label for m in viewer.layout.morphologies] == [c.label for c in classes]
