"""Serve the page on which galaxies are made by moving sliders.

    python app.py
    python app.py --checkpoint checkpoints/first/latest.pt --port 8000
    python app.py --checkpoint checkpoints/gan/latest.pt --checkpoint checkpoints/diffusion/latest.pt

Without --checkpoint the newest usable one of checkpoints/*/latest.pt is taken, and beside it the newest one of the other
family (GAN, diffusion model) if there is one; without any, one that came with the program. The page is at the address
that is printed, on this computer alone; docs/generation.md describes the requests that it makes, for use by programs.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line import Parser, add_solver_options, run_script, solver_settings, whole_number

if TYPE_CHECKING:
    from flask import Flask, Response

    from served_models import ServedModel

_FOLDER = Path(__file__).resolve().parent
_FRONTEND, _OPENAPI = _FOLDER / "frontend", _FOLDER / "docs" / "openapi.json"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
_MOST_REQUESTS = 24  # under way at the same time, a model
_MOST_BODY = 16 * 1024  # bytes; no request needs one
_ANSWER_BYTES = 64 * 2**20  # of finished pictures that are kept
_FORMAT_VERSION = 1  # of the pictures: another one when the same request no longer gives the same bytes
_FRESH_S = 60  # for which a browser need not ask again; after a new start with another checkpoint it may be wrong


def create_app(
    checkpoints: Any = None,
    device: str = "auto",
    bound: str = "127.0.0.1",
    most_requests: int = _MOST_REQUESTS,
    debug: bool = False,
) -> Flask:
    """Build the server.

    Parameters
    ----------
    checkpoints : Path, GalaxySampler, ServedModel, a sequence of these, or None
        At most one GAN and one diffusion model; None leaves a page that says what to run.
    device : str
        For checkpoints that are loaded here.
    bound : str
        Name or address that the server listens on.
    most_requests : int
        Requests under way at the same time, a model.
    debug : bool
        Let errors through to Flask's debugger.

    Raises
    ------
    UserError
        If a checkpoint cannot be used, or two of them are of the same family.
    """
    from flask import Flask, request
    from PIL import __version__ as pillow_version
    from werkzeug.exceptions import HTTPException

    from bounded_cache import BoundedCache
    from galaxy_queries import (
        GALAXY_PARAMETERS,
        PIXELS,
        TILE_PIXELS,
        QueryError,
        read_galaxy,
        read_parameters,
        read_pixels,
        read_sheet,
    )
    from galaxy_service import GalaxyService, page_facts, png_sheet
    from image_queue import BusyError
    from web_security import HEADERS, is_own_host

    services = {m.id: GalaxyService(m, most_requests) for m in _as_models(checkpoints, device)}
    attributes = {name: service.attributes for name, service in services.items()}
    answers: BoundedCache[bytes] = BoundedCache(_ANSWER_BYTES)
    sheet_parameters = (*GALAXY_PARAMETERS, "seeds", "sweep", "steps", "columns", "pixels")
    app = Flask(__name__, static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=_MOST_BODY, PROVIDE_AUTOMATIC_OPTIONS=False)

    def respond(content: Any, status: int = 200, **headers: str) -> Response:
        if not isinstance(content, bytes):
            content = json.dumps(content, allow_nan=False).encode()
            headers.setdefault("Content_Type", "application/json")
        headers.setdefault("Cache_Control", "no-store")
        return app.response_class(content, status, {name.replace("_", "-"): text for name, text in headers.items()})

    # What every request goes through

    @app.before_request
    def check_host() -> Response | None:
        if is_own_host(request.environ.get("HTTP_HOST", ""), bound):
            return None
        return respond({"error": "this server answers to localhost and to the address that it was started with"}, 421)

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(QueryError)
    def refuse(error: QueryError) -> Response:
        return respond({"error": error.sentence, "parameter": error.parameter, "allowed": error.allowed}, 400)

    @app.errorhandler(BusyError)
    def put_off(error: BusyError) -> Response:
        return respond({"error": str(error)}, 503, Retry_After=str(error.retry_after_s))

    @app.errorhandler(HTTPException)
    def explain(error: HTTPException) -> Response:
        allowed = {"Allow": "GET, HEAD"} if error.code == 405 else {}
        return respond({"error": error.name}, error.code or 500, **allowed)

    def report_failure(error: Exception) -> Response:
        traceback.print_exception(error)
        return respond({"error": "the server failed; its log says how"}, 500)

    if not debug:
        app.register_error_handler(Exception, report_failure)

    # The page

    def serve(path: Path, kind: str) -> Callable[[], Response]:
        def file() -> Response:
            response = respond(path.read_bytes(), Content_Type=kind, Cache_Control="no-cache")
            response.add_etag()
            return response.make_conditional(request)

        return file

    for path in sorted(_FRONTEND.glob("*")):
        if path.suffix in _TYPES and path.is_file():
            place = "/" if path.name == "index.html" else f"/{path.name}"
            app.add_url_rule(place, path.name, serve(path, _TYPES[path.suffix]))
    app.add_url_rule("/api/openapi.json", "openapi", serve(_OPENAPI, "application/json"))

    @app.get("/healthz")
    def healthz() -> Response:
        return respond({"status": "ok"})

    # Galaxies

    def parameters(allowed: Sequence[str]) -> dict[str, str]:
        return read_parameters(request.environ.get("QUERY_STRING", ""), allowed)

    def keep(service: GalaxyService, what: Any, make: Callable[[], bytes]) -> Response:
        """Answer with a picture that is a function of the model and of `what` was asked for."""
        told = repr((_FORMAT_VERSION, pillow_version, service.fingerprint, request.path, what))
        etag = hashlib.sha256(told.encode()).hexdigest()[:32]
        headers = {"ETag": f'"{etag}"', "Cache_Control": f"public, max-age={_FRESH_S}"}
        if request.if_none_match.contains(etag):
            return respond(b"", 304, **headers)
        content = answers.get(etag)
        if content is None:
            with service.queue.place():
                content = make()
            answers.put(etag, content, len(content))
        return respond(content, Content_Type="image/png", **headers)

    @app.get("/api/model")
    def model() -> Response:
        return respond(page_facts(list(services.values())))

    @app.get("/api/image.png")
    def image() -> Response:
        given = parameters((*GALAXY_PARAMETERS, "pixels"))
        query, pixels = read_galaxy(given, attributes), read_pixels(given, PIXELS, 256)
        service = services[query.model]
        return keep(service, (query, pixels), lambda: png_sheet(service.galaxies([query], False), pixels))

    @app.get("/api/measure")
    def measure() -> Response:
        query = read_galaxy(parameters(GALAXY_PARAMETERS), attributes)
        service, started = services[query.model], time.perf_counter()
        with service.queue.place():
            galaxy = service.galaxies([query], True)[0]
        took = round((time.perf_counter() - started) * 1e3, 1)
        return respond({**service.report(query, galaxy), "milliseconds": took})

    @app.get("/api/sheet.png")
    def sheet_picture() -> Response:
        given = parameters(sheet_parameters)
        sheet, pixels = read_sheet(given, attributes), read_pixels(given, TILE_PIXELS, 64)
        service = services[sheet.base.model]
        return keep(
            service,
            (sheet, pixels),
            lambda: png_sheet(service.galaxies(service.tiles(sheet), False), pixels, sheet.columns),
        )

    @app.get("/api/sheet.json")
    def sheet_numbers() -> Response:
        given = parameters(sheet_parameters)
        sheet, _ = read_sheet(given, attributes), read_pixels(given, TILE_PIXELS, 64)
        service = services[sheet.base.model]
        with service.queue.place():
            tiles = service.tiles(sheet)
            galaxies = service.galaxies(tiles, True)
        return respond({"tiles": [service.report(*pair) for pair in zip(tiles, galaxies, strict=True)]})

    @app.get("/api/fits")
    def fits() -> Response:
        query = read_galaxy(parameters(GALAXY_PARAMETERS), attributes)
        service = services[query.model]
        with service.queue.place():
            content = service.fits(query, service.galaxies([query], True)[0])
        name = f"galaxy_{query.seed}.fits"  # of a number, and of nothing else that was sent
        return respond(content, Content_Type="application/fits", Content_Disposition=f'attachment; filename="{name}"')

    @app.get("/api/catalogue.csv")
    def catalogue() -> Response:
        query = read_galaxy(parameters(GALAXY_PARAMETERS), attributes)
        service = services[query.model]
        with service.queue.place():
            table = service.catalogue(query, service.galaxies([query], True)[0])
        return respond(table.to_csv(index=False).encode(), Content_Type="text/csv; charset=utf-8")

    return app


def _as_models(checkpoints: Any, device: str) -> list[ServedModel]:
    from sampling import GalaxySampler
    from served_models import ServedModel

    if checkpoints is None:
        return []
    if isinstance(checkpoints, (str, Path, GalaxySampler, ServedModel)):
        checkpoints = [checkpoints]
    models = []
    for one in checkpoints:
        if isinstance(one, GalaxySampler):
            models.append(ServedModel(one))
        else:
            models.append(one if isinstance(one, ServedModel) else ServedModel.load(Path(one), device))
    return models


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    import waitress

    from served_models import ServedModel, find_checkpoints, load_found

    solver = solver_settings(options)
    if options.checkpoint:
        models = [ServedModel.load(path, options.device, **solver) for path in options.checkpoint]
    else:
        models = load_found(find_checkpoints(Path("checkpoints")), options.device, **solver)
    app = create_app(models, bound=options.host, debug=options.debug)
    server = waitress.create_server(app, host=options.host, port=options.port, threads=64, ident=None)
    print(f"http://{options.host}:{server.effective_port}/", flush=True)
    server.run()


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, action="append", metavar="FILE", help="checkpoint of a training run")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=whole_number(0, 65535), default=5000, metavar="N", help="port (default: 5000)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--debug", action="store_true", help="serve with Flask's debugger")
    add_solver_options(parser)
    return parser


if __name__ == "__main__":
    run_script(main)
