"""Time the page's server: one user, many users, and far more clients than it can serve.

    python benchmarks/serving.py
    python benchmarks/serving.py --checkpoint checkpoints/first/latest.pt --seconds 60

Prints one JSON object. A server of its own is started on a free port of this computer, in a process of its own. Each
user asks for a picture, reads it, and asks for the next, never for the same one twice, so that no cache helps; times
are those of the whole request as the user sees it. Then `--clients` clients ask at once, and again when they have been
told to come back later, while somebody asks for /healthz. Without a checkpoint an untrained network of `--width` is
served, which takes as long as a trained one.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import timing
from config_physics import MORPHOLOGY_NAMES, Config
from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common import hardware
from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.generation.build import build_generator
from galaxies.storage.checkpoint import save_checkpoint
from physics_model import build_predictor

_START_S = 60  # after which a server that says nothing is given up


@dataclass
class Asked:
    """One request: what came of it and how long it took."""

    status: int
    seconds: float
    retry_after_s: float
    size: int


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    device = Engine.choose(options.device, "fp32").device
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or Path(folder) / "untrained" / "latest.pt"
        if options.checkpoint is None:
            write_untrained(checkpoint, Config(width=options.width))
        with _server(checkpoint, str(device), options.threads) as (port, start_s):
            rows, facts = asyncio.run(_measure(port, options))
    sizes = {"seconds": options.seconds, "requests": options.requests, "pixels": options.pixels}
    sizes |= {"trained": options.checkpoint is not None, "threads": options.threads}
    timing.print_result("serving", hardware.describe(device), sizes, rows, {"start_s": round(start_s, 2), **facts})


def _parser() -> Parser:
    parser = Parser(prog="serving.py", description=__doc__)
    add_device_option(parser)
    number = timing.at_least(1)
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="checkpoint to serve (default: an untrained one)"
    )
    parser.add_argument("--width", type=number, default=32, metavar="N", help="of the untrained network (default: 32)")
    parser.add_argument(
        "--users", type=number, nargs="+", default=[1, 16], metavar="N", help="users at a time (default: 1 16)"
    )
    parser.add_argument("--seconds", type=number, default=20, metavar="S", help="for each of these (default: 20)")
    parser.add_argument(
        "--requests", type=number, default=50_000, metavar="N", help="most requests of each (default: 50000)"
    )
    parser.add_argument("--clients", type=number, default=200, metavar="N", help="of the overload (default: 200)")
    parser.add_argument("--pixels", type=int, choices=(64, 128, 256, 512), default=256, help="a side (default: 256)")
    parser.add_argument("--threads", type=number, default=24, metavar="N", help="of the server (default: 24)")
    return parser


def write_untrained(path: Path, config: Config) -> None:
    """Write the checkpoint of a network that was never trained, with attributes that are uniform in their ranges."""
    torch.manual_seed(0)
    table = config.attribute_rows
    places = torch.rand(400, len(table))
    values = torch.stack([a.at(column) for a, column in zip(table, places.T, strict=True)], 1)
    network = build_generator(config)
    if not config.diffusion:  # with the weights that training begins with, all pictures look alike
        with torch.no_grad():
            for weight in network.parameters():
                weight.mul_(10 if weight.ndim > 1 else 1)
    state = {"config": config.to_dict(), "phase": "generator", "epoch": 1, "step": 1, "ema": None}
    state["networks"] = {"generator": network.state_dict(), "predictor": build_predictor(config).state_dict()}
    state["attributes"] = [{key: getattr(a, key) for key in ("name", "unit", "low", "high", "raw")} for a in table]
    state["population"] = {"classes": torch.arange(400) % len(config.classes), "values": values}
    state["provenance"] = {"source": "random numbers", "count": 400, "sha256": {}}
    save_checkpoint(path, state)


@contextmanager
def _server(checkpoint: Path, device: str, threads: int) -> Iterator[tuple[int, float]]:
    """Run a server; yield its port and the seconds from its start until it listened."""
    command = [sys.executable, str(hardware.ROOT / "app.py"), "--checkpoint", str(checkpoint), "--device", device]
    command += ["--port", "0", "--threads", str(threads)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        patience = threading.Timer(_START_S, process.kill)
        patience.start()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.search(r"http://\S+:(\d+)/", line):
                    patience.cancel()
                    yield int(found[1]), time.perf_counter() - started
                    return
            raise UserError("the server did not start")
        finally:
            patience.cancel()
            process.terminate()


async def _measure(port: int, options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    targets = _targets(options.pixels)
    await _load(port, 1, 20, 5, targets)  # the first few load and try out things
    rows, facts = [], {}
    for users in options.users:
        asked, seconds = await _load(port, users, options.requests, options.seconds, targets)
        times = [one.seconds for one in asked if one.status == 200]
        what = f"picture of {options.pixels} px, {users} user{'s' if users > 1 else ''}"
        rows.append(
            timing.row(what, times, 1) | {"p99_ms": _ms(times, 99), "requests_per_s": _digits(len(times) / seconds)}
        )
        said = {"p50_ms": rows[-1]["ms"], "p99_ms": rows[-1]["p99_ms"], "requests_per_s": rows[-1]["requests_per_s"]}
        said |= {"requests": len(asked), "errors": len(asked) - len(times)}
        facts[f"{users} user{'s' if users > 1 else ''}"] = said
    facts["overload"] = await _overload(port, options, targets)
    return rows, facts


def _targets(pixels: int) -> Iterator[str]:
    """Yield paths of pictures that were never asked for before."""
    for seed in itertools.count():
        morphology = MORPHOLOGY_NAMES[seed % len(MORPHOLOGY_NAMES)]
        size, ellipticity = 0.1 + 0.1 * (seed % 97) / 97, 0.6 * (seed % 89) / 89
        yield (
            f"/api/image.png?morphology={morphology}&size={size:.4f}&brightness=0.3&ellipticity={ellipticity:.4f}"
            f"&redshift=0.05&seed={seed}&pixels={pixels}"
        )


async def _load(port: int, users: int, most: int, seconds: float, targets: Iterator[str]) -> tuple[list[Asked], float]:
    """Let users ask, each as soon as it has its answer, for some time or so many requests in all."""
    asked: list[Asked] = []
    started = time.perf_counter()

    async def user() -> None:
        async with _connection(port) as streams:
            while time.perf_counter() - started < seconds and len(asked) < most:
                asked.append(await _ask(streams, next(targets)))

    await asyncio.gather(*(user() for _ in range(users)))
    return asked, time.perf_counter() - started


async def _overload(port: int, options: Any, targets: Iterator[str]) -> dict[str, Any]:
    """Let far too many clients ask at once, and look how soon the server says no, and that it is alive."""
    asked: list[Asked] = []
    health: list[Asked] = []
    started = time.perf_counter()

    def time_left() -> bool:
        return time.perf_counter() - started < options.seconds and len(asked) < options.requests

    async def client() -> None:
        async with _connection(port) as streams:
            while time_left():
                asked.append(await _ask(streams, next(targets)))
                await asyncio.sleep(asked[-1].retry_after_s)

    async def watch() -> None:
        async with _connection(port) as streams:
            while time_left():
                health.append(await _ask(streams, "/healthz"))
                await asyncio.sleep(0.05)

    await asyncio.gather(watch(), *(client() for _ in range(options.clients)))
    refused = [one.seconds for one in asked if one.status == 503]
    served = [one.seconds for one in asked if one.status == 200]
    alive = [one.seconds for one in health if one.status == 200]
    return {
        "clients": options.clients,
        "served": len(served),
        "refused": len(refused),
        "other": len(asked) - len(served) - len(refused),
        "refusal_p50_ms": _ms(refused, 50),
        "refusal_p99_ms": _ms(refused, 99),
        "refusal_most_ms": _ms(refused, 100),
        "served_p99_ms": _ms(served, 99),
        "healthz_most_ms": _ms(alive, 100),
        "healthz_failed": len(health) - len(alive),
    }


@asynccontextmanager
async def _connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _ask(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], target: str) -> Asked:
    reader, writer = streams
    started = time.perf_counter()
    writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = re.search(r"\r\ncontent-length: (\d+)", head)
    assert length is not None, head
    content = await reader.readexactly(int(length[1]))
    seconds = time.perf_counter() - started
    retry = re.search(r"\r\nretry-after: (\d+)", head)
    return Asked(int(head.split(" ", 2)[1]), seconds, float(retry[1]) if retry else 0.0, len(content))


def _ms(seconds: Sequence[float], percent: float) -> float | None:
    return _digits(float(np.percentile(seconds, percent)) * 1e3) if seconds else None


def _digits(value: float) -> float:
    """Keep three digits: more is noise."""
    return float(f"{value:.3g}")


if __name__ == "__main__":
    run_script(main)
