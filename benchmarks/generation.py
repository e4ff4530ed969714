"""Time the drawing of galaxies: many at once, and one alone, which is what a person waits for.

    python benchmarks/generation.py
    python benchmarks/generation.py --recipe paper --images 16384

Prints one JSON object. What is timed is `GalaxySampler.generate`, from classes, attributes and seeds to 8-bit images in
the processor's memory, in which image k depends on its own seed alone. The reference is the plain eager generator in
batches of 64, followed by the same conversion.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peaks, roofline, timing
from benchmarks.eager_reference import BATCH, LATENT_DIM, NUM_ATTRIBUTES, NUM_CLASSES, PlainGenerator, plain_settings
from config_physics import MORPHOLOGIES, Config, attribute_table
from galaxies.command_line import Parser, add_config_options, config_from_options, run_script
from galaxies.common import hardware
from galaxies.compute.device import Engine
from galaxies.datasets.population import Population
from galaxies.datasets.prepared import to_uint8
from galaxies.generation.build import build_generator
from galaxies.generation.sampler import GalaxySampler


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    config = config_from_options(options)
    engine = Engine.choose(config.device, "fp32")  # as images are drawn from a checkpoint
    device = engine.device
    machine, peak = hardware.describe(device), peaks.peak_of(device)
    torch.manual_seed(0)
    classes, values = _requests(config, options.images)
    sampler = GalaxySampler(engine.prepare(build_generator(config)), config, Population(classes, values), engine)
    plain = PlainGenerator().to(device).eval()
    rows = []
    for count, repeats in ((options.images, options.repeats), (1, 3 * options.repeats)):
        seeds = list(range(count))
        works: dict[str, Callable[[], torch.Tensor]] = {
            "ours": partial(sampler.generate, classes[:count], values[:count], seeds)
        }
        if not options.no_reference:
            works["plain"] = partial(draw_plainly, plain, count, device)
        seconds = timing.in_turns(works, repeats, device)
        what = f"{count} image{'s' if count > 1 else ''}, {config.recipe} recipe"
        limit = roofline.generation(config, count), peak
        rows.append(timing.row(what, seconds["ours"], count, reference=seconds.get("plain"), limit=limit))
    sizes = {"recipe": config.recipe, "width": config.width, "images": options.images, "image_px": config.image_size}
    timing.print_result("generation", machine, sizes, rows)


def _parser() -> Parser:
    parser = Parser(prog="generation.py", description=__doc__)
    add_config_options(parser, ("recipe", "width", "generator", "pixel_noise", "device"))
    timing.add_timing_options(parser)
    parser.add_argument(
        "--images", type=timing.at_least(1), default=512, metavar="N", help="images drawn at once (default: 512)"
    )
    return parser


def _requests(config: Config, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random classes (N,) and attributes (N, A), uniform in the range of each, physical units."""
    table = attribute_table(config.attributes)
    low, high = (torch.tensor([getattr(a, name) for a in table]) for name in ("low", "high"))
    return torch.randint(0, len(MORPHOLOGIES), (count,)), low + (high - low) * torch.rand(count, len(table))


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
