"""The addresses of the server, as a Flask blueprint: a picture, numbers, a file, a sheet of many, and what there is.

`ROUTES` is the table of them, which `openapi` describes to programs; each function below adds its own row to it. They
all work on the `Services` of the application.
"""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from flask import Blueprint, Response, current_app, request
from PIL import __version__ as pillow_version

from galaxies.common.json_writing import json_text
from galaxies.generation.request_values import RequestError
from galaxies.serving.answers import Answer, Error, Facts, Health, Measurement, Neighbours, Sheet, Tile
from galaxies.serving.batching import BusyError
from galaxies.serving.openapi import Route
from galaxies.serving.queries import (
    FileParameters,
    GalaxyParameters,
    GalaxyQuery,
    Parameters,
    PictureParameters,
    SheetParameters,
    TelescopeParameters,
    read_query,
)
from galaxies.serving.service import DeviceFailureError, Galaxy, GalaxyService, Services

_FORMAT_VERSION = 1  # of the pictures: another one when the same request no longer gives the same bytes
_FRESH_S = 60  # for which a browser need not ask again; in this time it does not see that the checkpoint is another
_HINT = "python galaxy.py"  # what makes a checkpoint
_TAG = {"ETag": "Changes with the model and with the request."}
_PICTURE = {**_TAG, "Cache-Control": "For how long it need not be asked for again."}
_NAME = {"Content-Disposition": "Under which name to store it: class, what was set, seed and model."}
_SUPPORT = {
    "Galaxy-Support": "Whether the request is like real galaxies of its class: like, unusual or invented.",
    "Galaxy-Nearest": "Distance to the nearest one, in the class's spreads; left out where nothing is set or known.",
}

routes = Blueprint("galaxies", __name__)
ROUTES: list[Route] = []


class _NoModelError(Exception):
    """There is nothing that could draw a galaxy."""


def answer(content: bytes | Answer, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response of bytes, or of JSON; nothing keeps it unless its headers say so."""
    if not isinstance(content, bytes):
        content = json_text(content.model_dump(exclude_unset=True)).encode()
    return Response(
        content, status, {"Cache-Control": "no-store", "Content-Type": "application/json", **(headers or {})}
    )


def file_answer(content: bytes, kind: str) -> Response:
    """Return a response of a file, packed where that helps, for which a browser asks each time whether it changed."""
    headers = {"Content-Type": kind, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if kind.startswith("text/") and request.accept_encodings["gzip"] > 0:  # a third of the bytes
        content, headers["Content-Encoding"] = gzip.compress(content, mtime=0), "gzip"
    response = answer(content, headers=headers)
    response.add_etag()
    response.make_conditional(request)
    return response


# The table


def _get(path: str, summary: str, answers: type[Answer] | str, said: str, **more: Any) -> Callable[..., Any]:
    """Return a decorator that enters a function without arguments into the table; see `Route`."""

    def add(view: Callable[[], Response]) -> Callable[[], Response]:
        ROUTES.append(Route(path, view.__name__, summary, answers, said, **more))
        routes.add_url_rule(path, view_func=view, methods=["GET"])
        return view

    return add


def get_galaxies(
    path: str,
    summary: str,
    parameters: type[Parameters],
    answers: type[Answer] | str,
    said: str,
    headers: Mapping[str, str] | None = None,
) -> Callable[[Callable[[GalaxyService, Parameters], Response]], Callable[[], Response]]:
    """Return the same for a function that is given the service of the model that is asked, and what it is asked."""

    def add(view: Callable[[GalaxyService, Parameters], Response]) -> Callable[[], Response]:
        @wraps(view)
        def read_and_answer() -> Response:
            services = _services()
            kind = services.kind(parameters)
            asked = read_query(kind, request.environ.get("QUERY_STRING", ""), services.served)
            return view(services.by_id[asked.model], asked)

        return _get(path, summary, answers, said, parameters=parameters, headers=headers or {})(read_and_answer)

    return add


def _services() -> Services:
    services: Services = current_app.extensions["galaxies"]
    if not services.by_id:
        raise _NoModelError
    return services


# What is refused


@routes.errorhandler(_NoModelError)
def _need_model(_: _NoModelError) -> Response:
    return answer(Error(error="there is no checkpoint yet: train one, and start app.py again", hint=_HINT), 503)


@routes.errorhandler(RequestError)
def _refuse(error: RequestError) -> Response:
    return answer(Error(error=error.sentence, parameter=error.parameter, allowed=error.allowed), 400)


@routes.errorhandler(DeviceFailureError)
def _give_up(error: DeviceFailureError) -> Response:
    current_app.logger.error("%s", error)
    return answer(Error(error=str(error)), 503)


@routes.errorhandler(BusyError)
def _put_off(error: BusyError) -> Response:
    return answer(Error(error=str(error)), 503, {"Retry-After": str(error.retry_after_s)})


# What is answered


@_get("/api/model", "Classes, models, and the attributes of each with their ranges", Facts, "What can be asked for.")
def model() -> Response:
    """Answer with what can be asked for."""
    return answer(_services().facts())


@get_galaxies(
    "/api/image.png",
    "One galaxy as a picture",
    PictureParameters,
    "image/png",
    "The picture.",
    headers={**_PICTURE, **_SUPPORT},
)
def image(service: GalaxyService, asked: PictureParameters) -> Response:
    """Answer with one galaxy."""
    query = service.previewed(asked.galaxy(service.served), asked.solver_steps)
    response = picture_answer(
        service, (query, asked.pixels), lambda: service.sheet(_draw(service, [query], measured=False), asked.pixels)
    )
    response.headers.update(_support_headers(service, query))
    return response


@get_galaxies(
    "/api/telescope.png",
    "What a survey sees of one galaxy, in the survey's own pixels, with its PSF and noise",
    TelescopeParameters,
    "image/png",
    "The picture, a composite of the survey's bands; only of models of light.",
    headers=_PICTURE,
)
def telescope(service: GalaxyService, asked: TelescopeParameters) -> Response:
    """Answer with one galaxy as a survey sees it."""
    query = service.observed(asked.galaxy(service.served), asked.survey, asked.exposure)
    return picture_answer(service, (query,), lambda: service.seen(query, _draw(service, [query], measured=False)[0]))


@get_galaxies(
    "/api/measure", "Requested and measured attributes of one galaxy", GalaxyParameters, Measurement, "The numbers."
)
def measure(service: GalaxyService, asked: GalaxyParameters) -> Response:
    """Answer with what was asked of a galaxy and what photometry measures on it."""
    started = time.perf_counter()
    query, galaxy = _one_measured(service, asked)
    took = round((time.perf_counter() - started) * 1e3, 1)
    return answer(Measurement(**service.report(query, galaxy).model_dump(exclude_unset=True), milliseconds=took))


@get_galaxies(
    "/api/nearest",
    "The real galaxies of the class that are nearest to a request in what it sets",
    GalaxyParameters,
    Neighbours,
    "Up to four of the set that app.py --real names; none without one.",
)
def nearest(service: GalaxyService, asked: GalaxyParameters) -> Response:
    """Answer with the real galaxies that are nearest to a request."""
    real = _services().real
    if real is None:
        return answer(Neighbours(galaxies=[]))
    query = asked.galaxy(service.served)
    values = zip(service.attributes, query.values, strict=True)
    given = {a.name: value for a, value in values if value is not None}
    found = real.nearest(service.served.classes[query.class_index], given)
    return answer(Neighbours(galaxies=[real.facts(neighbour) for neighbour in found]))


@get_galaxies(
    "/api/sheet.png",
    "Several galaxies as one picture of tiles without gaps, row by row",
    SheetParameters,
    "image/png",
    "The picture.",
    headers=_PICTURE,
)
def sheet_picture(service: GalaxyService, asked: SheetParameters) -> Response:
    """Answer with a picture of many galaxies."""
    columns = asked.columns or asked.count
    about = (asked.galaxy(service.served), asked.count, asked.sweep, columns, asked.pixels)
    return picture_answer(
        service,
        about,
        lambda: service.sheet(_draw(service, service.tiles(asked), measured=False), asked.pixels, columns),
    )


@get_galaxies(
    "/api/sheet.json",
    "Requested and measured attributes of a sheet's galaxies, in the order of its tiles",
    SheetParameters,
    Sheet,
    "The numbers.",
)
def sheet_numbers(service: GalaxyService, asked: SheetParameters) -> Response:
    """Answer with what `measure` says, of many galaxies."""
    with service.queue.place():
        queries = service.tiles(asked)
        galaxies = _draw(service, queries, measured=True)
    tiles: list[Tile] = [service.report(query, galaxy) for query, galaxy in zip(queries, galaxies, strict=True)]
    return answer(Sheet(tiles=tiles))


@get_galaxies(
    "/api/fits",
    "One galaxy as a FITS cube with its catalogue row in the header: R, G, B planes, 0 to 255, or of flux a plane a "
    "band, nJy a pixel",
    GalaxyParameters,
    "application/fits",
    "The file.",
    headers={**_NAME, **_SUPPORT},
)
def fits(service: GalaxyService, asked: GalaxyParameters) -> Response:
    """Answer with one galaxy for astronomers' programs."""
    query, galaxy = _one_measured(service, asked)
    headers = _file_headers(service, query, "fits", "application/fits") | _support_headers(service, query)
    return answer(service.fits(query, galaxy), headers=headers)


@get_galaxies(
    "/api/file.png",
    "One galaxy as a picture to keep, whose text chunks say that it is synthetic, of what model and version, whom to "
    "credit, when it was made, and all that was asked for and measured",
    FileParameters,
    "image/png",
    "The file.",
    headers=_NAME,
)
def picture_file(service: GalaxyService, asked: FileParameters) -> Response:
    """Answer with one galaxy and its provenance as a picture."""
    query, galaxy = _one_measured(service, asked)
    return answer(service.png(query, galaxy, asked.pixels), headers=_file_headers(service, query, "png", "image/png"))


@get_galaxies(
    "/api/catalogue.csv",
    "Catalogue row of one galaxy",
    GalaxyParameters,
    "text/csv",
    "A header and a row.",
    headers=_NAME,
)
def catalogue(service: GalaxyService, asked: GalaxyParameters) -> Response:
    """Answer with the row that generate_from_checkpoint.py writes of a galaxy."""
    query, galaxy = _one_measured(service, asked)
    table = service.catalogue(query, galaxy).to_csv(index=False)
    return answer(table.encode(), headers=_file_headers(service, query, "csv", "text/csv; charset=utf-8"))


@_get(
    "/api/openapi.json",
    "This description",
    "application/json",
    "It.",
    headers={"ETag": "Changes with it."},
    needs_model=False,
)
def openapi() -> Response:
    """Answer with the description of all of this."""
    services: Services = current_app.extensions["galaxies"]
    return file_answer(services.description(ROUTES), "application/json")


@_get("/healthz", "Whether the server is alive; answers also when it is busy", Health, "It is.", needs_model=False)
def healthz() -> Response:
    """Answer that the server is alive."""
    return answer(Health(status="ok"))


def _draw(service: GalaxyService, queries: Sequence[GalaxyQuery], measured: bool) -> list[Galaxy]:
    is_gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    return service.galaxies(queries, measured, lambda: not is_gone())


def _one_measured(service: GalaxyService, asked: GalaxyParameters) -> tuple[GalaxyQuery, Galaxy]:
    query = asked.galaxy(service.served)
    with service.queue.place():
        return query, _draw(service, [query], measured=True)[0]


def _file_headers(service: GalaxyService, query: GalaxyQuery, ending: str, kind: str) -> dict[str, str]:
    """Return the headers of a file; its name is made of a class of the model's and of numbers, not of what was sent."""
    name = service.file_name(query, ending)
    return {"Content-Type": kind, "Content-Disposition": f'attachment; filename="{name}"'}


def _support_headers(service: GalaxyService, query: GalaxyQuery) -> dict[str, str]:
    verdict, nearest = service.support(query)
    return {"Galaxy-Support": verdict} | ({} if nearest is None else {"Galaxy-Nearest": f"{nearest:g}"})


def picture_answer(
    service: GalaxyService,
    about: tuple[object, ...],
    make: Callable[[], bytes],
    place: Callable[[], AbstractContextManager[None]] | None = None,
) -> Response:
    """Answer with a PNG file that is a function of the model and of what was asked.

    It is made in one of the places for requests that `place` holds, by default one of the service's.
    """
    told = repr((_FORMAT_VERSION, pillow_version, service.fingerprint, request.path, about))
    tag = hashlib.sha256(told.encode()).hexdigest()[:32]
    headers = {"Content-Type": "image/png", "ETag": f'"{tag}"', "Cache-Control": f"public, max-age={_FRESH_S}"}
    if request.if_none_match.contains_weak(tag):
        return answer(b"", 304, headers)
    kept = _services().pictures
    content = kept.get(tag)
    if content is None:
        with (place or service.queue.place)():
            content = make()
        kept.put(tag, content, len(content))
    return answer(content, headers=headers)
