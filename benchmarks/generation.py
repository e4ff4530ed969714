"""Time the drawing of galaxies: many at once, and one alone, which is what a person waits for.

    python benchmarks/generation.py
    python benchmarks/generation.py --recipe paper --images 16384 --few 1 4 16 64 256 --shards 50000
    python benchmarks/generation.py --shards 2000 --formats npy fits fits-table webdataset
    python benchmarks/generation.py --diffusion --width 32

Prints one JSON object. What is timed is `GalaxySampler.generate`, from classes, attributes and seeds to 8-bit images in
the processor's memory, in which image k depends on its own seed alone; and with --shards the whole of a mock catalogue:
drawn, measured, and written to the disk, in shards of any format or as a FITS file a galaxy, whose megabytes stand
under facts. The reference is the plain eager generator in batches of 64, followed by the
same conversion; a diffusion model has none.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peaks, roofline, timing
from benchmarks.eager_reference import BATCH, LATENT_DIM, NUM_ATTRIBUTES, NUM_CLASSES, PlainGenerator, plain_settings
from config_physics import MORPHOLOGIES, Config
from galaxies.command_line import Parser, add_config_options, config_from_options, run_script
from galaxies.common import hardware
from galaxies.compute.device import Engine
from galaxies.compute.ranks import Ranks
from galaxies.datasets.population import Population
from galaxies.datasets.prepared import to_uint8
from galaxies.generation.build import build_generator
from galaxies.generation.catalogue import generate_pictures
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.generation.shard_formats import attributes_described
from galaxies.generation.shards import ShardFolder, format_of, write_shards

FORMATS = ("npy", "fits", "fits-table", "webdataset")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    config = config_from_options(options)
    engine = Engine.choose(config.device, "fp32", "auto")  # as images are drawn from a checkpoint
    device = engine.device
    machine, peak = hardware.describe(device), peaks.peak_of(device)
    torch.manual_seed(0)
    classes, values = _requests(config, options.images)
    sampler = GalaxySampler(engine.prepare(build_generator(config)), config, Population(classes, values), engine)
    plain = PlainGenerator().to(device).eval()
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    few = [(count, 3 * options.repeats) for count in options.few if count <= options.images]
    for count, repeats in ((options.images, options.repeats), *few):
        seeds = list(range(count))
        works: dict[str, Callable[[], torch.Tensor]] = {
            "ours": partial(sampler.generate, classes[:count], values[:count], seeds)
        }
        if not (options.no_reference or config.diffusion):
            works["plain"] = partial(draw_plainly, plain, count, device)
        seconds = timing.in_turns(works, repeats, device)
        what = f"{count} image{'s' if count > 1 else ''}, {_drawn_by(config)}"
        limit = roofline.generation(config, count), peak
        rows.append(timing.row(what, seconds["ours"], count, reference=seconds.get("plain"), limit=limit))
    if options.shards:
        for name in options.formats:
            _write(sampler, min(1024, options.shards), name)  # untimed: until graphs are recorded, and files open
            spent, size = _write(sampler, options.shards, name)
            how = {"npy": "in shards", "fits": "as a FITS file each"}.get(name, f"in shards, {name}")
            what = f"{options.shards} images, measured and written {how}, {_drawn_by(config)}"
            rows.append(timing.row(what, [spent], options.shards))
            facts[f"{name}_mb"] = size / 1e6
    sizes = {"recipe": config.recipe, "width": config.width, "images": options.images, "image_px": config.image_size}
    timing.print_result("generation", machine, sizes, rows, facts)


def _parser() -> Parser:
    parser = Parser(prog="generation.py", description=__doc__)
    settings = ("recipe", "diffusion", "width", "generator", "pixel_noise", "unet_blocks", "solver_steps", "device")
    add_config_options(parser, settings)
    timing.add_timing_options(parser)
    parser.add_argument(
        "--images", type=timing.at_least(1), default=512, metavar="N", help="images drawn at once (default: 512)"
    )
    parser.add_argument(
        "--few", type=timing.at_least(1), nargs="+", default=[1], metavar="N", help="and few at once (default: 1)"
    )
    parser.add_argument(
        "--shards", type=int, default=0, metavar="N", help="images measured and written in shards (default: none)"
    )
    parser.add_argument(
        "--formats",
        choices=FORMATS,
        nargs="+",
        default=["npy"],
        help="in which --shards are written, and fits, a file a galaxy (default: npy)",
    )
    return parser


def _drawn_by(config: Config) -> str:
    if config.diffusion:
        return f"diffusion, width {config.width}, {config.solver_steps} steps"
    return f"{config.recipe} recipe"


def _write(sampler: GalaxySampler, count: int, name: str) -> tuple[float, int]:
    """Return the seconds in which a mock catalogue is drawn, measured and written, shards of 10,000, and its bytes."""
    requests = Requests.alike(0, [math.nan] * len(sampler.attributes), 0, count)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "mock"
        started = time.perf_counter()
        if name == "fits":
            generate_pictures(sampler, requests, out, {"fits"})
        else:
            described = attributes_described(sampler.attributes)
            write_shards(ShardFolder(out, requests, 10_000, format_of(name, sampler, described), {}), sampler, Ranks())
        seconds = time.perf_counter() - started
        files = [file for file in out.rglob("*") if file.is_file() and file.name != "grid.png"]
        return seconds, sum(file.stat().st_size for file in files)


def _requests(config: Config, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random classes (N,) and attributes (N, A), uniform in the range of each, physical units."""
    table = config.attribute_rows
    places = torch.rand(count, len(table))
    values = torch.stack([a.at(column) for a, column in zip(table, places.T, strict=True)], 1)
    return torch.randint(0, len(MORPHOLOGIES), (count,)), values


@torch.no_grad()
def draw_plainly(network: PlainGenerator, count: int, device: torch.device) -> torch.Tensor:
    """Return images (N, 3, 64, 64), uint8, on the CPU, of a plain generator in batches."""
    drawn = []
    with plain_settings():
        for start in range(0, count, BATCH):
            size = min(BATCH, count - start)
            z = torch.randn(size, LATENT_DIM, device=device)
            condition = torch.rand(size, NUM_CLASSES + NUM_ATTRIBUTES, device=device)
            drawn.append(to_uint8(network(z, condition)).cpu())
    return torch.cat(drawn)


if __name__ == "__main__":
    run_script(main)
