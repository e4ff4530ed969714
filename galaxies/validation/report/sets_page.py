"""The comparison of sets as one HTML file that needs nothing else: plots and example galaxies inside."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS
from galaxies.validation.report.cells import ALL
from galaxies.validation.report.drawing import color_of
from galaxies.validation.report.figures import level_of_multiple
from galaxies.validation.report.page import Notes
from galaxies.validation.report.sets_contents import SPACES, Ends, SetsReport
from galaxies.validation.report.templates import FOLDER, render
from galaxies.validation.viewing import statistics_of

if TYPE_CHECKING:
    from torch import Tensor

    from galaxies.validation.set_comparison import SetsPictures
    from galaxies.validation.viewing import Viewer


@dataclass(frozen=True)
class Shown:
    """A galaxy on the page: its name, the value of the statistic, and its picture as base64."""

    name: str
    value: float
    png: str


def build_sets_page(report: SetsReport, pictures: SetsPictures, plots: dict[str, dict[str, bytes]]) -> str:
    """Return a comparison of sets as one HTML page; see `page.build_page`."""
    from markupsafe import Markup  # comes with Jinja2

    examples = []
    for found, galaxies, names in zip(report.sets, pictures.sets, pictures.names, strict=True):
        of_set = _Album(pictures.viewer, galaxies.images, names)
        of_real = _Album(pictures.viewer, pictures.real.images, pictures.real_names)
        examples.append([(each, of_set.ends(each.ends), of_real.ends(each.reference_ends)) for each in found.differing])
    return render(
        "sets.html",
        report=report,
        examples=examples,
        colors=[color_of(index) for index in range(len(report.sets))],
        level_of_multiple=level_of_multiple,
        notes=Notes(),
        plots={name: {k: base64.b64encode(png).decode() for k, png in plot.items()} for name, plot in plots.items()},
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        groups=[ALL, *report.reference.classes],
        morphology=MORPHOLOGY_STATISTICS,
        statistics=statistics_of(report.reference.kind, report.reference.bands),
        spaces=SPACES,
        measures=report.measures(),
    )


class _Album:
    """Pictures of galaxies by their names."""

    def __init__(self, viewer: Viewer, images: Tensor, names: list[str]) -> None:
        self._viewer, self._images = viewer, images
        self._places = {name: place for place, name in enumerate(names)}

    def ends(self, ends: Ends) -> tuple[list[Shown], list[Shown]]:
        """Return what is shown of the low and of the high end."""
        low, high = ([self._shown(e.name, e.value) for e in part] for part in (ends.low, ends.high))
        return low, high

    def _shown(self, name: str, value: float) -> Shown:
        place = self._places[name]
        picture = self._viewer.pictures(self._images[place : place + 1])[0]
        buffer = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", optimize=True)
        return Shown(name, value, base64.b64encode(buffer.getvalue()).decode())
