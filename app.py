"""Serve the page on which galaxies are made by moving sliders.

    python app.py
    python app.py --checkpoint checkpoints/first/latest.pt --port 8000
    python app.py --checkpoint checkpoints/gan/latest.pt --checkpoint checkpoints/diffusion/latest.pt

Without --checkpoint the newest usable one of checkpoints/*/latest.pt is taken, and beside it the newest one of the
other family (GAN, diffusion model) if there is one; without any, one that came with the program. The page is at the
address that is printed, for this computer alone. docs/generation.md describes the requests that programs can make.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from galaxies.command_line import Parser, add_device_option, add_solver_options, run_script, solver_settings
from galaxies.common.errors import UserError
from galaxies.common.parsing import whole_number
from galaxies.common.signals import StopSignals
from galaxies.serving.batching import MOST_REQUESTS

if TYPE_CHECKING:
    from galaxies.serving.real_galaxies import RealGalaxies

_SPARE_THREADS = 16  # that refuse what is too much, serve files, and say that all is well


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    if options.debug and options.host not in ("127.0.0.1", "::1", "localhost"):
        raise UserError("--debug lets whoever reaches the server run code: leave out --host")
    from galaxies.serving.server import address_of, bind, build_server

    with bind(options.host, options.port) as listener:  # before the seconds that loading takes
        from galaxies.serving.application import create_app
        from galaxies.serving.models import load_models

        real = _real_galaxies(options.real, options.real_credit)
        models = load_models(options.checkpoint, options.device, **solver_settings(options))
        app = create_app(
            models,
            host=options.host,
            most_requests=options.threads,
            debug=options.debug,
            proxy_hosts=options.proxy_host,
            real=real,
        )
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


def _real_galaxies(path: Path | None, credit: str) -> RealGalaxies | None:
    """Open the prepared dataset whose galaxies are shown beside what the network draws."""
    if path is None:
        if credit:
            raise UserError("--real-credit says whom the galaxies of --real are owed to: give both")
        return None
    import numpy as np

    from galaxies.common.origin import origin_of
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.serving.real_galaxies import RealGalaxies

    data = PreparedDataset.open(path, verify=False)
    origin = origin_of(data.manifest.get("source"))
    if not credit and origin != "mock":
        raise UserError(f"the galaxies of {path} are somebody's: say with --real-credit whom they are owed to")
    everything = np.arange(len(data.images))
    names = [name for name in data.manifest["attributes"] if name in data.catalogue]
    noise = data.noise(everything)
    return RealGalaxies(
        data.images,
        data.layout.band_names,
        tuple(np.nanmedian(noise, 0).tolist()) if data.layout.is_flux else None,
        data.catalogue["object_id"].tolist(),
        data.catalogue["morphology"].to_numpy(),
        {name: data.catalogue[name].to_numpy(np.float32) for name in names},
        credit,
        origin,
    )


def _stop() -> None:
    raise KeyboardInterrupt  # at which the server closes its connections and returns


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
        default=MOST_REQUESTS,
        metavar="N",
        help=f"requests that a model has under way; more at once are refused (default: {MOST_REQUESTS})",
    )
    parser.add_argument(
        "--proxy-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name of a proxy that passes its own on, such as a JupyterHub's; more than once for more (default: none)",
    )
    parser.add_argument(
        "--real",
        type=Path,
        metavar="DIR",
        help="prepared dataset whose galaxies, the nearest to a request, are shown beside it (default: none)",
    )
    parser.add_argument(
        "--real-credit",
        default="",
        metavar="TEXT",
        help="whom they are owed to; not needed of a mock survey (default: none)",
    )
    add_device_option(parser)
    parser.add_argument(
        "--debug", action="store_true", help="Flask's own server and debugger, which runs code: never for others"
    )
    add_solver_options(parser)
    return parser


if __name__ == "__main__":
    run_script(main)
