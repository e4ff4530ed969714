"""Time the telescope in the loop of training: a batch observed, and the slopes of its light.

    python benchmarks/observing.py
    python benchmarks/observing.py --device cuda --batch-size 256

Prints one JSON object. The reference is the plain way: a fast Fourier transform of the light's padded frame, a transfer
function on all of it, one back, and a mean over the fine pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import timing
from galaxies.command_line import Parser, run_script
from galaxies.common import hardware
from galaxies.telescope.fourier import FourierGrid, fft_size
from galaxies.telescope.observing import Noise, gathered, noisy, observe
from galaxies.telescope.psf import Psf, PsfImages

_OVERSAMPLING = 2
_SCALE, _PSF_PIXELS = 0.2, 25  # arcseconds a pixel of the telescope; pixels of a measured PSF a side


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="observing.py", description=__doc__)
    timing.add_timing_options(parser)
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda or mps (default: cpu)")
    parser.add_argument(
        "--batch-size", type=timing.at_least(1), default=64, metavar="N", help="galaxies a batch (default: 64)"
    )
    parser.add_argument("--bands", type=timing.at_least(1), default=4, metavar="N", help="bands (default: 4)")
    parser.add_argument(
        "--size",
        type=timing.at_least(8),
        default=128,
        metavar="PX",
        help="pixels of the light a side, twice the telescope's (default: 128)",
    )
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    shape = options.batch_size, options.bands
    side = options.size // _OVERSAMPLING
    light = torch.rand(*shape, options.size, options.size, device=device, requires_grad=True)
    widths = 0.6 + 0.3 * torch.rand(*shape, device=device)
    scale = torch.full((options.batch_size,), _SCALE, device=device)
    noise = Noise(torch.rand(*shape, device=device) + 0.1, torch.full(shape[1:], 0.01, device=device))

    def plain(psf: Psf) -> Tensor:
        field = FourierGrid(fft_size(options.size), scale / _OVERSAMPLING)
        spectrum = torch.fft.rfft2(light, s=(field.side, field.side))
        blurred = field.image(spectrum * psf.transfer(field))[..., : options.size, : options.size]
        return noisy(gathered(blurred, _OVERSAMPLING), noise)

    def learned_from(seen: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(seen().square().sum(), light)

    shapes = {name: Psf.named(widths, text) for name, text in (("air", "kolmogorov"), ("mirror", "airy:0.3"))}
    images = PsfImages(shapes["air"].image(min(_PSF_PIXELS, side), _SCALE))
    works = {
        f"{options.size} px seen through {name}": learned_from(
            lambda psf=psf: observe(light, psf, scale, oversampling=_OVERSAMPLING, noise=noise)  # type: ignore[misc]
        )
        for name, psf in (*shapes.items(), ("measured PSFs", images))
    }
    if not options.no_reference:
        works["reference"] = learned_from(lambda: plain(shapes["air"]))
    seconds = timing.in_turns(works, options.repeats, device)
    reference = seconds.pop("reference", None)
    rows = [timing.row(what, times, options.batch_size, reference=reference) for what, times in seconds.items()]
    sizes = {"batch": options.batch_size, "bands": options.bands, "light_px": options.size, "image_px": side}
    timing.print_result("observing", hardware.describe(device), sizes, rows)


if __name__ == "__main__":
    run_script(main)
