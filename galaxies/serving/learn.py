"""The class mode: its page at `/learn`, the languages that it speaks, and the galaxies that its tasks show."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flask import Flask, Response, current_app, request

from galaxies.serving.examples import ExampleFinder, Examples
from galaxies.serving.queries import ExampleParameters
from galaxies.serving.routes import answer, file_answer, get_galaxies
from galaxies.serving.service import GalaxyService, Services

_FINDERS = "example finders"  # of the application, by the id of their model


def add_class_mode(app: Flask, frontend: Path) -> None:
    """Add the page and its languages to an application that has its `Services`; see `examples` for the rest."""
    services: Services = app.extensions["galaxies"]
    app.extensions[_FINDERS] = {name: ExampleFinder(service) for name, service in services.by_id.items()}
    app.add_url_rule("/learn", "/learn", partial(_file, frontend / "learn.html", "text/html; charset=utf-8"))
    # By a relative address, since a proxy may have the page below a path of its own.
    app.add_url_rule("/learn/", "/learn/", partial(_moved, "../learn"))
    for path in sorted((frontend / "languages").glob("*.json")):
        place = f"/languages/{path.name}"
        app.add_url_rule(place, place, partial(_file, path, "text/json; charset=utf-8"))


def _file(path: Path, kind: str) -> Response:
    return file_answer(path.read_bytes(), kind)


def _moved(place: str) -> Response:
    query = request.query_string.decode("ascii", "replace")
    # Of a query only what a link of ours can hold: nothing else that was sent gets into a header.
    kept = f"?{query}" if re.fullmatch(r"[\w.~%&=+-]+", query, re.ASCII) else ""
    return Response(status=308, headers={"Location": place + kept})


@get_galaxies(
    "/api/examples",
    "Clear examples of a class among the galaxies of a seed and those that follow, for people who learn the classes",
    ExampleParameters,
    Examples,
    "The examples.",
)
def examples(service: GalaxyService, asked: ExampleParameters) -> Response:
    """Answer with galaxies that show plainly what their class is known by."""
    finder: ExampleFinder = current_app.extensions[_FINDERS][service.model.id]
    is_gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    found = finder.find(asked.galaxy(service.served), asked.count, lambda: not is_gone())
    return answer(Examples(examples=found))
