"""Serve the page on which galaxies are made by moving sliders.

    python app.py
    python app.py --checkpoint checkpoints/first/latest.pt --port 8000
    python app.py --checkpoint checkpoints/gan/latest.pt --checkpoint checkpoints/diffusion/latest.pt

Without --checkpoint the newest usable one of checkpoints/*/latest.pt is taken, and beside it the newest one of the
other family (GAN, diffusion model) if there is one; without any, one that came with the program. The page is at the
address that is printed, for this computer alone. docs/generation.md describes the requests that programs can make.
"""

from __future__ import annotations

import gzip
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galaxies.command_line import Parser, add_device_option, add_solver_options, run_script, solver_settings
from galaxies.common.errors import UserError
from galaxies.common.parsing import whole_number
from galaxies.common.signals import StopSignals

if TYPE_CHECKING:
    from flask import Flask, Response

    from galaxies.serving.models import ServedModel

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
_SPARE_THREADS = 16  # that refuse what is too much, serve files, and say that all is well


def create_app(
    checkpoints: Any = None,
    device: str = "auto",
    host: str = "127.0.0.1",
    most_requests: int = _MOST_REQUESTS,
    debug: bool = False,
) -> Flask:
    """Build the server.

    Parameters
    ----------
    checkpoints : Path, GalaxySampler, ServedModel, a sequence of these, or None
        At most one GAN and one diffusion model, of which the first one answers where a request names none. Without
        any the page says what to run.
    device : str
        For checkpoints that are loaded here.
    host : str
        Name or address that the server listens on.
    most_requests : int
        Requests under way at the same time, a model; more are refused.
    debug : bool
        Let errors through to Flask's debugger.

    Raises
    ------
    UserError
        If a checkpoint cannot be used, or two of them are of the same family.
    """
    from flask import Flask, request
    from werkzeug.exceptions import HTTPException

    from galaxies.serving.routes import answer, galaxy_routes
    from galaxies.serving.security import HEADERS, is_own_host
    from galaxies.serving.service import GalaxyService

    models = _as_models(checkpoints, device)
    if len({model.id for model in models}) < len(models):
        raise UserError("two checkpoints are of the same family: name one GAN and one diffusion model at most")
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # by a redirect, whose header would hold what was sent

    @app.before_request
    def check_host() -> Response | None:
        if is_own_host(request.environ.get("HTTP_HOST", ""), host):
            return None
        return answer({"error": "this server answers to localhost and to the address that it listens on"}, 421)

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def explain(error: HTTPException) -> Response:
        return answer({"error": error.name}, error.code or 500, {"Allow": "GET, HEAD"} if error.code == 405 else None)

    def admit_failure(error: Exception) -> Response:
        logging.getLogger("app").error("%s failed", request.path, exc_info=error)
        return answer({"error": "the server failed; its log says how"}, 500)

    if not debug:
        app.register_error_handler(Exception, admit_failure)

    def add_file(place: str, path: Path, kind: str) -> None:
        def file() -> Response:
            content, headers = path.read_bytes(), {"Content-Type": kind, "Cache-Control": "no-cache"}
            headers["Vary"] = "Accept-Encoding"
            if kind.startswith("text/") and request.accept_encodings["gzip"] > 0:  # a third of the bytes
                content, headers["Content-Encoding"] = gzip.compress(content, mtime=0), "gzip"
            response = answer(content, headers=headers)
            response.add_etag()
            return response.make_conditional(request)

        app.add_url_rule(place, place, file)

    # Only what lies there now can be asked for: no part of a request is ever made into a path.
    for path in sorted(_FRONTEND.glob("*")):
        if path.suffix in _TYPES and path.is_file():
            add_file("/" if path.name == "index.html" else f"/{path.name}", path, _TYPES[path.suffix])
    add_file("/api/openapi.json", _OPENAPI, "application/json")

    @app.get("/healthz")
    def healthz() -> Response:
        return answer({"status": "ok"})

    app.register_blueprint(galaxy_routes([GalaxyService(model, most_requests) for model in models]))
    return app


def _as_models(checkpoints: Any, device: str) -> list[ServedModel]:
    from galaxies.generation.sampler import GalaxySampler
    from galaxies.serving.models import ServedModel

    def as_model(one: Any) -> ServedModel:
        if isinstance(one, ServedModel):
            return one
        return ServedModel(one) if isinstance(one, GalaxySampler) else ServedModel.load(Path(one), device)

    if checkpoints is None:
        return []
    return [as_model(one) for one in (checkpoints if isinstance(checkpoints, (list, tuple)) else [checkpoints])]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    if options.debug and options.host not in ("127.0.0.1", "::1", "localhost"):
        raise UserError("--debug lets whoever reaches the server run code: leave out --host")
    from galaxies.serving.server import address_of, bind, build_server

    with bind(options.host, options.port) as listener:  # before the seconds that loading takes
        models = _load(options.checkpoint, options.device, solver_settings(options))
        app = create_app(models, host=options.host, most_requests=options.threads, debug=options.debug)
        for model in models:
            print(f"{model.checkpoint}: {model.sampler.describe()}")
        if not models:
            print("there is no checkpoint in checkpoints/: train one with galaxy.py", file=sys.stderr)
        if options.debug:
            port = listener.getsockname()[1]
            listener.close()
            app.run(options.host, port, debug=True, use_reloader=False)  # the reloader would load the models twice
            return
        server = build_server(app, listener, max(1, len(models)) * options.threads + _SPARE_THREADS)
        print(f"the page is at {address_of(listener)} (Ctrl-C stops it)", flush=True)
        with StopSignals(_stop):
            server.run()


def _stop() -> None:
    raise KeyboardInterrupt  # at which the server closes its connections and returns


def _load(paths: Sequence[Path] | None, device: str, solver: dict[str, Any]) -> list[ServedModel]:
    from galaxies.serving.models import ServedModel, load_found
    from galaxies.storage.release import find_checkpoints

    if paths:
        models = [ServedModel.load(path, device, **solver) for path in paths]
    else:
        models = load_found(find_checkpoints(Path("checkpoints")), device, **solver)
    if solver and not any(model.id == "diffusion" for model in models):
        raise UserError(f"no diffusion model is served: only those have a {', a '.join(solver)}")
    return models


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        metavar="FILE",
        help="checkpoint of a training run; twice for a GAN and a diffusion model (default: the newest)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="NAME", help="name or address to listen on (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=whole_number(0, 65_535), default=5000, metavar="N", help="port; 0 is a free one (default: 5000)"
    )
    parser.add_argument(
        "--threads",
        type=whole_number(1, 100),
        default=_MOST_REQUESTS,
        metavar="N",
        help=f"requests that a model has under way; more at once are refused (default: {_MOST_REQUESTS})",
    )
    add_device_option(parser)
    parser.add_argument(
        "--debug", action="store_true", help="Flask's own server and debugger, which runs code: never for others"
    )
    add_solver_options(parser)
    return parser


if __name__ == "__main__":
    run_script(main)
