"""Time photometry on simulated galaxies: the attributes, the structure as well, and pictures in files by the command.

    python benchmarks/measuring.py
    python benchmarks/measuring.py --images 16384 --batch-size 1024

Prints one JSON object. The last row is `evaluate.py measure` as a user starts it, Python and PyTorch included, on the
processor whatever the device. The plain reference of the others measures one image at a time with the same code; beside
it, where statmorph is installed (requirements-dev.txt), the facts tell how long that takes for the same galaxies. The
limit is the time in which the images could be read once. How right the measurements are is what instruments.py tells.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peaks, roofline, timing
from benchmarks.training_access import made_data
from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common import hardware
from galaxies.compute.device import Engine
from galaxies.measure import photometry

_ROOT = Path(__file__).resolve().parent.parent
_ALONE = 16  # images that the reference measures, one at a time


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    device = Engine.choose(options.device, "fp32").device
    machine, peak = hardware.describe(device), peaks.peak_of(device)
    images = torch.from_numpy(made_data(options.images).images).to(device).float() / 255
    alone = images[:_ALONE]
    rows = []
    for structure, what in ((False, "attributes"), (True, "attributes and structure")):
        works = {"ours": lambda s=structure: measure(images, options.batch_size, s)}
        if not options.no_reference:
            works["alone"] = lambda s=structure: measure(alone, 1, s)
        seconds = timing.in_turns(works, options.repeats, device)
        rows.append(
            timing.row(
                f"{what}, batch {options.batch_size}",
                seconds["ours"],
                len(images),
                reference=seconds.get("alone"),
                reference_images=len(alone),
                limit=(roofline.reading(len(images), images.shape[-1]), peak),
            )
        )
    with tempfile.TemporaryDirectory(prefix="galaxy-") as scratch:
        command = measuring_command(images[: options.pictures].cpu(), options.pictures, Path(scratch))
        seconds = timing.in_turns({"command": command}, min(options.repeats, 3), torch.device("cpu"))
    rows.append(timing.row(f"{options.pictures} pictures by evaluate.py measure", seconds["command"], options.pictures))
    facts: dict[str, float | str] = {"reference": "the same code, one image at a time"}
    if options.statmorph and importlib.util.find_spec("statmorph"):
        from studies.instruments import measure_with_statmorph

        chosen = images[: options.statmorph].cpu()
        measure_with_statmorph(chosen[:1])  # loads it
        started = time.perf_counter()
        measure_with_statmorph(chosen)
        facts["statmorph_ms_an_image"] = float(f"{(time.perf_counter() - started) / len(chosen) * 1e3:.4g}")
    sizes = {"images": len(images), "batch": options.batch_size, "image_px": images.shape[-1]}
    timing.print_result("measuring", machine, sizes, rows, facts)


def _parser() -> Parser:
    parser = Parser(prog="measuring.py", description=__doc__)
    timing.add_timing_options(parser)
    add_device_option(parser)
    parser.add_argument(
        "--images", type=timing.at_least(1), default=512, metavar="N", help="images to measure (default: 512)"
    )
    parser.add_argument(
        "--batch-size", type=timing.at_least(1), default=64, metavar="N", help="images at a time (default: 64)"
    )
    parser.add_argument(
        "--pictures",
        type=timing.at_least(1),
        default=400,
        metavar="N",
        help="files that the command measures (default: 400)",
    )
    parser.add_argument(
        "--statmorph",
        type=timing.at_least(0),
        default=8,
        metavar="N",
        help="images that statmorph measures too, if it is installed (default: 8)",
    )
    return parser


@torch.inference_mode()
def measure(images: Tensor, batch: int, structure: bool) -> None:
    """Measure images (N, 3, S, S) in [0, 1] in batches."""
    measure_batch = photometry.measure_with_structure if structure else photometry.measure
    for start in range(0, len(images), batch):
        measure_batch(images[start : start + batch])


def measuring_command(images: Tensor, count: int, folder: Path) -> Callable[[], object]:
    """Write `count` pictures of images (N, 3, S, S) in [0, 1], in turn; return what measures them by the command."""
    paths = [str(folder / f"{k}.png") for k in range(count)]
    for k, path in enumerate(paths):
        pixels = (255 * images[k % len(images)]).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path)
    argv = [sys.executable, str(_ROOT / "evaluate.py"), "measure", *paths, "--out", str(folder / "measured.csv")]
    return lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    run_script(main)
