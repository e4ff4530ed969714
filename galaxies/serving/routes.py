"""The routes that answer with galaxies, as a Flask blueprint: a picture, numbers, a file, a sheet of many."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from flask import Blueprint, Response, request
from PIL import __version__ as pillow_version

from galaxies.serving.batching import BusyError
from galaxies.serving.cache import BoundedCache
from galaxies.serving.queries import (
    GALAXY_PARAMETERS,
    PIXELS,
    TILE_PIXELS,
    GalaxyQuery,
    QueryError,
    SheetQuery,
    read_galaxy,
    read_parameters,
    read_pixels,
    read_sheet,
)
from galaxies.serving.service import Galaxy, GalaxyService, page_facts, png_sheet

_SHEET_PARAMETERS = (*GALAXY_PARAMETERS, "seeds", "sweep", "steps", "columns", "pixels")
_KEPT_BYTES = 64 * 2**20  # of finished pictures
_FORMAT_VERSION = 1  # of the pictures: another one when the same request no longer gives the same bytes
_FRESH_S = 60  # for which a browser need not ask again; in this time it does not see that the checkpoint is another
_HINT = "python galaxy.py"  # what makes a checkpoint


def answer(content: bytes | dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response of bytes, or of JSON; nothing keeps it unless its headers say so."""
    if not isinstance(content, bytes):
        content = json.dumps(content, allow_nan=False).encode()
    return Response(
        content, status, {"Cache-Control": "no-store", "Content-Type": "application/json", **(headers or {})}
    )


def galaxy_routes(services: Sequence[GalaxyService]) -> Blueprint:
    """Return the routes of models.

    Parameters
    ----------
    services : sequence of GalaxyService
        The first one answers where a request names none; without any, every answer says how to make one.
    """
    routes = Blueprint("galaxies", __name__, url_prefix="/api")
    by_id = {service.model.id: service for service in services}
    attributes = {name: service.attributes for name, service in by_id.items()}
    kept: BoundedCache[bytes] = BoundedCache(_KEPT_BYTES)

    @routes.before_request
    def need_model() -> Response | None:
        if services:
            return None
        return answer({"error": "there is no checkpoint yet: train one, and start app.py again", "hint": _HINT}, 503)

    @routes.errorhandler(QueryError)
    def refuse(error: QueryError) -> Response:
        return answer({"error": error.sentence, "parameter": error.parameter, "allowed": error.allowed}, 400)

    @routes.errorhandler(BusyError)
    def put_off(error: BusyError) -> Response:
        return answer({"error": str(error)}, 503, {"Retry-After": str(error.retry_after_s)})

    def given(allowed: Sequence[str]) -> dict[str, str]:
        return read_parameters(request.environ.get("QUERY_STRING", ""), allowed)

    def draw(queries: Sequence[GalaxyQuery], measured: bool) -> list[Galaxy]:
        is_gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
        return by_id[queries[0].model].galaxies(queries, measured, lambda: not is_gone())

    def picture(service: GalaxyService, asked: tuple[object, ...], make: Callable[[], bytes]) -> Response:
        """Answer with a PNG file that is a function of the model and of what was asked."""
        told = repr((_FORMAT_VERSION, pillow_version, service.fingerprint, request.path, asked))
        tag = hashlib.sha256(told.encode()).hexdigest()[:32]
        headers = {"Content-Type": "image/png", "ETag": f'"{tag}"', "Cache-Control": f"public, max-age={_FRESH_S}"}
        if request.if_none_match.contains_weak(tag):
            return answer(b"", 304, headers)
        content = kept.get(tag)
        if content is None:
            with service.queue.place():
                content = make()
            kept.put(tag, content, len(content))
        return answer(content, headers=headers)

    @routes.get("/model")
    def model() -> Response:
        return answer(page_facts(services))

    @routes.get("/image.png")
    def image() -> Response:
        asked = given((*GALAXY_PARAMETERS, "pixels"))
        query, pixels = read_galaxy(asked, attributes), read_pixels(asked, PIXELS, 256)
        return picture(by_id[query.model], (query, pixels), lambda: png_sheet(draw([query], False), pixels))

    def sheet() -> tuple[GalaxyService, SheetQuery, int]:
        asked = given(_SHEET_PARAMETERS)
        query, pixels = read_sheet(asked, attributes), read_pixels(asked, TILE_PIXELS, 64)
        return by_id[query.base.model], query, pixels

    @routes.get("/sheet.png")
    def sheet_picture() -> Response:
        service, query, pixels = sheet()

        def make() -> bytes:
            return png_sheet(draw(service.tiles(query), False), pixels, query.columns)

        return picture(service, (query, pixels), make)

    @routes.get("/sheet.json")
    def sheet_numbers() -> Response:
        service, query, _ = sheet()
        with service.queue.place():
            tiles = service.tiles(query)
            galaxies = draw(tiles, True)
        reports = [service.report(tile, galaxy) for tile, galaxy in zip(tiles, galaxies, strict=True)]
        return answer({"tiles": reports})

    def one_measured() -> tuple[GalaxyService, GalaxyQuery, Galaxy]:
        query = read_galaxy(given(GALAXY_PARAMETERS), attributes)
        with by_id[query.model].queue.place():
            return by_id[query.model], query, draw([query], True)[0]

    @routes.get("/measure")
    def measure() -> Response:
        started = time.perf_counter()
        service, query, galaxy = one_measured()
        took = round((time.perf_counter() - started) * 1e3, 1)
        return answer({**service.report(query, galaxy), "milliseconds": took})

    @routes.get("/fits")
    def fits() -> Response:
        service, query, galaxy = one_measured()
        name = f"galaxy_{query.seed}.fits"  # of a number, and of nothing else that was sent
        headers = {"Content-Type": "application/fits", "Content-Disposition": f'attachment; filename="{name}"'}
        return answer(service.fits(query, galaxy), headers=headers)

    @routes.get("/catalogue.csv")
    def catalogue() -> Response:
        service, query, galaxy = one_measured()
        table = service.catalogue(query, galaxy).to_csv(index=False)
        return answer(table.encode(), headers={"Content-Type": "text/csv; charset=utf-8"})

    return routes
