"""Measure the attributes that a picture was asked to have, on the device that drew it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from galaxies.compute.device import Engine
from galaxies.compute.recorded_functions import Recorder, to_host
from galaxies.generation.build import fill_up
from galaxies.measure.statistics_table import (
    ATTRIBUTE_STATISTICS,
    PLACE_STATISTICS,
    Measured,
    measure_columns,
    measure_images,
)

_RECORDED_TOGETHER = 256  # images of 64 pixels a side that a CUDA graph measures

_MEASURED = ATTRIBUTE_STATISTICS + PLACE_STATISTICS
_attribute_columns = partial(measure_columns, statistics=_MEASURED)


class AttributeMeasurer:
    """Measure pictures on the engine's device, as CUDA graphs where it records them.

    A graph measures a fixed number of pictures, and does in it what does not depend on what it finds: a mask that
    winds more than any of real galaxies may end sooner (see `source.reconstruct`).

    Parameters
    ----------
    engine : Engine
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._run = engine, Recorder(engine)

    def __call__(self, images: Tensor) -> Measured:
        """Measure the attributes and places of images (N, 3, S, S) uint8; on a CPU alike for any number of threads."""
        return self.begin(images)()

    def begin(self, images: Tensor) -> Callable[[], Measured]:
        """Begin to measure images, and return what waits for the result and gives it; only CUDA works meanwhile."""
        if not self._engine.graphs:
            measured = measure_images(images, self._engine.device, statistics=_MEASURED)
            return lambda: measured
        together = max(16, _RECORDED_TOGETHER * 64**2 // images.shape[-1] ** 2)
        blocks = images.to(self._engine.device).split(together)
        parts = [self._run("attributes", _attribute_columns, fill_up(block, together)) for block in blocks]
        columns = to_host(torch.cat([part[:, : len(block)] for part, block in zip(parts, blocks, strict=True)], 1))
        return lambda: Measured.of_columns(columns()[0], _MEASURED)
