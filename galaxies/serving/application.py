"""Build the server's application: the page's files, the routes, and what holds for every request."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from galaxies.common.errors import UserError
from galaxies.serving.answers import Error
from galaxies.serving.batching import MOST_REQUESTS
from galaxies.serving.learn import add_class_mode
from galaxies.serving.models import ServedModel
from galaxies.serving.real_galaxies import RealGalaxies
from galaxies.serving.routes import answer, file_answer, routes
from galaxies.serving.security import HEADERS, is_own_host
from galaxies.serving.service import GalaxyService, Services
from galaxies.serving.sky import add_sky

_FRONTEND = Path(__file__).resolve().parents[2] / "frontend"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".md": "text/plain; charset=utf-8",
}


def create_app(
    models: Sequence[ServedModel] = (),
    host: str = "127.0.0.1",
    most_requests: int = MOST_REQUESTS,
    debug: bool = False,
    proxy_hosts: Sequence[str] = (),
    real: RealGalaxies | None = None,
) -> Flask:
    """Build the server.

    Parameters
    ----------
    models : sequence of ServedModel
        At most one GAN and one diffusion model, of which the first one answers where a request names none. Without
        any the page says what to run.
    host : str
        Name or address that the server listens on.
    most_requests : int
        Requests under way at the same time, a model; more are refused.
    debug : bool
        Let errors through to Flask's debugger.
    proxy_hosts : sequence of str
        Other names that requests may be for, since a proxy passes on the one that it is known by.
    real : RealGalaxies, optional
        Shown beside what the network draws.

    Raises
    ------
    UserError
        If two models are of the same family.
    """
    if len({model.id for model in models}) < len(models):
        raise UserError("two checkpoints are of the same family: name one GAN and one diffusion model at most")
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # by a redirect, whose header would hold what was sent
    app.before_request(partial(_check_host, host, tuple(proxy_hosts)))
    app.after_request(_add_headers)
    app.register_error_handler(HTTPException, _explain)
    if not debug:
        app.register_error_handler(Exception, _admit_failure)
    # Only what lies there now can be asked for: no part of a request is ever made into a path.
    for path in sorted(_FRONTEND.glob("*")):
        if path.suffix in _TYPES and path.is_file():
            place = "/" if path.name == "index.html" else f"/{path.name}"
            app.add_url_rule(place, place, partial(_page_file, path))
    for model in models:
        if model.card is not None:
            place = f"/{model.card_name}"
            app.add_url_rule(place, place, partial(file_answer, model.card, _TYPES[".md"]))
    app.extensions["galaxies"] = Services([GalaxyService(model, most_requests) for model in models], real)
    add_class_mode(app, _FRONTEND)
    add_sky(app)
    app.register_blueprint(routes)
    return app


def _page_file(path: Path) -> Response:
    return file_answer(path.read_bytes(), _TYPES[path.suffix])


def _check_host(host: str, others: Sequence[str]) -> Response | None:
    if is_own_host(request.environ.get("HTTP_HOST", ""), host, others):
        return None
    sentence = (
        "this server answers to localhost and to the address that it listens on; --proxy-host adds a proxy's name"
    )
    return answer(Error(error=sentence), 421)


def _add_headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response


def _explain(error: HTTPException) -> Response:
    return answer(Error(error=error.name), error.code or 500, {"Allow": "GET, HEAD"} if error.code == 405 else None)


def _admit_failure(error: Exception) -> Response:
    logging.getLogger("app").error("%s failed", request.path, exc_info=error)
    return answer(Error(error="the server failed; its log says how"), 500)
