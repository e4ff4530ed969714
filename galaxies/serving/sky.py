"""The sky of a model: galaxies in their numbers, drawn in tiles, for the page on which it is moved about."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from flask import Flask, Response, current_app, request
from PIL import Image
from torch import Tensor

from galaxies.generation.request_values import RequestError
from galaxies.mock_field.making import reference_of
from galaxies.mock_field.picture_tiles import Backdrop, PictureTiles
from galaxies.mock_field.sources import MOCK_PARTS
from galaxies.mock_field.tiles import LightTiles, Tile, places_in
from galaxies.mock_field.trained_light import GeneratorLight
from galaxies.serving.answers import SkyGalaxy, SkyTile
from galaxies.serving.batching import ImageQueue
from galaxies.serving.models import rounded
from galaxies.serving.queries import GalaxyQuery, SkyParameters
from galaxies.serving.routes import answer, get_galaxies, picture_answer
from galaxies.serving.service import GalaxyService, Services, said_of_devices
from galaxies.telescope.surveys import Survey

_SKIES = "skies"  # of the application, by the id of their model
_FAINTEST, _FAINTEST_PICTURES = 25.0, 24.5  # AB magnitudes in i to which galaxies are counted
_TOGETHER = 16  # galaxies asked for at a time, so that who asks for one waits for no more
_MOST_REQUESTS = 8  # for tiles, under way at the same time
_PATIENCE_S = 40.0  # for which one waits
_BACKDROP_GALAXIES = 32  # in whose corners the sky of pictures is measured
_FIRST_CHOICE = "LSST"


def add_sky(app: Flask) -> None:
    """Add the skies to an application that has its `Services`."""
    services: Services = app.extensions["galaxies"]
    app.extensions[_SKIES] = {name: ModelSky(service) for name, service in services.by_id.items()}


class ModelSky:
    """The sky of one model, whose tiles are drawn one after the other.

    Parameters
    ----------
    service : GalaxyService
        Of the model; what it draws waits in its queue with all else.
    """

    def __init__(self, service: GalaxyService) -> None:
        self._service = service
        self._tiles: dict[str, LightTiles] = {}
        self.queue: ImageQueue[tuple[str | None, int, Tile], bytes] = ImageQueue(
            self._work, 1, _MOST_REQUESTS, _PATIENCE_S
        )

    def survey(self, asked: str | None) -> str | None:
        """Return the name of the survey that sees the sky; none sees that of pictures.

        Raises
        ------
        RequestError
            If the one that is asked for cannot.
        """
        surveys = self._service.model.surveys
        able = [name for name, one in surveys.items() if isinstance(one, Survey)]
        if asked is not None and asked not in able:
            found = surveys.get(asked, "this model draws pictures, and no light for a telescope to observe")
            raise RequestError(str(found), "survey", ", ".join(able) or "left out")
        return asked or (_FIRST_CHOICE if _FIRST_CHOICE in able else next(iter(able), None))

    def png(self, survey: str | None, sky: int, tile: Tile, is_wanted: Callable[[], bool]) -> bytes:
        """Return a tile as a PNG file.

        Raises
        ------
        BusyError, DeviceFailureError
            As `GalaxyService.galaxies` does.
        """
        return self.queue.results([(survey, sky, tile)], is_wanted)[0]

    def galaxies(self, survey: str | None, sky: int, tile: Tile) -> SkyTile:
        """Return who is in a tile, without drawing it."""
        tiles = self._of(survey)
        rows = tiles.sources(sky, tile)
        classes = self._service.served.classes
        values: list[dict[str, float]] = [{} for _ in rows]
        names = [name.decode() for name in rows["morphology"].tolist()]
        if isinstance(tiles, LightTiles) and isinstance(tiles.source, GeneratorLight):
            places, told = tiles.source.told(tiles.wanted(rows))
            names, values = [classes[place] for place in places], [self._named(row) for row in told.tolist()]
        where = zip(
            places_in(tile, tiles.facts, rows).tolist(), rows["size_arcsec"], tiles.magnitudes(rows), strict=True
        )
        found = [
            SkyGalaxy(
                x=round(x, 2),
                y=round(y, 2),
                radius=round(float(size) / tiles.facts.pixel_scale, 2),
                magnitude=round(float(magnitude), 2),
                morphology=name,
                seed=seed,
                values=value,
            )
            for ((x, y), size, magnitude), name, seed, value in zip(
                where, names, rows["seed"].tolist(), values, strict=True
            )
        ]
        return SkyTile(survey=survey, pixel_scale=tiles.facts.pixel_scale, galaxies=found)

    def _named(self, values: Sequence[float]) -> dict[str, float]:
        pairs = zip(self._service.attributes, values, strict=True)
        return {attribute.name: rounded(value) for attribute, value in pairs if math.isfinite(value)}

    def _work(self, items: list[tuple[str | None, int, Tile]]) -> list[bytes]:
        with said_of_devices():
            return [_png(self._of(survey).picture(sky, tile)) for survey, sky, tile in items]

    def _of(self, survey: str | None) -> LightTiles | PictureTiles:
        if survey is None:
            return self._pictures
        if survey not in self._tiles:
            found = self._service.model.surveys[survey]
            assert isinstance(found, Survey), "refused before"
            self._tiles[survey] = LightTiles(found, _FAINTEST, _LightInTurn(self._service, found))
        return self._tiles[survey]

    @cached_property
    def _pictures(self) -> PictureTiles:
        population = self._service.sampler.population
        members = {name: len(population.members(k)) for k, name in enumerate(self._service.served.classes)}
        parts = {name: number for name, number in members.items() if number} or dict.fromkeys(members, 1)
        if parts.keys() == MOCK_PARTS.keys():
            return PictureTiles(MOCK_PARTS, _FAINTEST_PICTURES, self._drawn, self._backdrop)
        return PictureTiles(parts, _FAINTEST_PICTURES, self._drawn, self._backdrop)

    def _drawn(self, names: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, np.ndarray]:
        """Return pictures of galaxies, and their half-light radii in widths of the picture."""
        classes, config = self._service.served.classes, self._service.sampler.config
        unset = (None,) * len(self._service.attributes)
        queries = [
            GalaxyQuery(self._service.model.id, classes.index(name), unset, seed)
            for name, seed in zip(names, seeds, strict=True)
        ]
        galaxies = [galaxy for some in _in_turn(queries) for galaxy in self._service.galaxies(some, measured=True)]
        images = torch.stack([galaxy.image for galaxy in galaxies])
        name, width = (
            ("size", 1.0) if config.kind != "flux" else ("size_arcsec", config.pixel_scale * config.image_size)
        )
        sizes = [float(galaxy.measured.values[name][0]) / width for galaxy in galaxies]
        return self._service.sampler.pictures(images), np.array(sizes)

    @cached_property
    def _sky_of_pictures(self) -> Backdrop:
        classes = self._service.served.classes
        names = [classes[k % len(classes)] for k in range(_BACKDROP_GALAXIES)]
        return Backdrop.of(self._drawn(names, range(_BACKDROP_GALAXIES))[0])

    def _backdrop(self) -> Backdrop:
        return self._sky_of_pictures


class _LightInTurn(GeneratorLight):
    """The light of a model that is served: it waits for its turn among all that the model is asked for."""

    def __init__(self, service: GalaxyService, survey: Survey) -> None:
        super().__init__(service.sampler, survey, reference_of(survey))
        self._service = service

    def _light(self, classes: Tensor, values: Tensor, seeds: np.ndarray) -> Tensor:
        queries = [
            GalaxyQuery(
                self._service.model.id,
                place,
                tuple(rounded(value) if math.isfinite(value) else None for value in row),
                seed,
                as_light=True,
            )
            for place, row, seed in zip(classes.tolist(), values.tolist(), seeds.tolist(), strict=True)
        ]
        drawn = [galaxy.image for some in _in_turn(queries) for galaxy in self._service.galaxies(some, measured=False)]
        return torch.stack(drawn)


def _in_turn(queries: Sequence[GalaxyQuery]) -> Iterator[Sequence[GalaxyQuery]]:
    for first in range(0, len(queries), _TOGETHER):
        yield queries[first : first + _TOGETHER]


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_type=zlib.Z_RLE)
    return file.getvalue()


def _sky(service: GalaxyService) -> ModelSky:
    found: ModelSky = current_app.extensions[_SKIES][service.model.id]
    return found


@get_galaxies(
    "/api/sky.png",
    "A tile of a sky of the model's galaxies, in the numbers in which galaxies are counted",
    SkyParameters,
    "image/png",
    "The tile, 256 pixels a side, which meets the tiles beside it without a seam.",
    headers={
        "ETag": "Changes with the model and with the request.",
        "Cache-Control": "For how long it need not be asked for again.",
    },
)
def sky_picture(service: GalaxyService, asked: SkyParameters) -> Response:
    """Answer with a tile of the sky."""
    sky, tile = _sky(service), Tile(asked.x, asked.y)
    survey = sky.survey(asked.survey)
    is_gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    about = (survey, asked.sky, tile)
    return picture_answer(
        service, about, lambda: sky.png(survey, asked.sky, tile, lambda: not is_gone()), sky.queue.place
    )


@get_galaxies(
    "/api/sky.json",
    "The galaxies of a tile of a sky, each with the request that draws it alone",
    SkyParameters,
    SkyTile,
    "The galaxies, the brightest first.",
)
def sky_galaxies(service: GalaxyService, asked: SkyParameters) -> Response:
    """Answer with who is in a tile of the sky."""
    sky = _sky(service)
    return answer(sky.galaxies(sky.survey(asked.survey), asked.sky, Tile(asked.x, asked.y)))
