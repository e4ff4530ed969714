"""Time the reading of cutouts on one core against a plain loop with Pillow.

    python benchmarks/read_images.py
    python benchmarks/read_images.py --path data/gz2_files --size 64

The plain loop is `Image.open(file).convert("RGB").resize((64, 64))`, as a first version would do it. Both run in
this process on the same files, in turns, and the medians are compared.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from galaxies.command_line import Parser, run_script
from galaxies.common.json_writing import json_text
from galaxies.datasets.cutouts import CutoutSource, decode_found, found_in


def make_pictures(folder: Path, count: int) -> None:
    """Write synthetic galaxies as JPEG files of 424 x 424 pixels, about as large as the survey's."""
    y, x = np.mgrid[:424, :424] / 424 - 0.5
    for seed in range(count):
        rng = np.random.default_rng(seed)
        width, height = rng.uniform(0.02, 0.15, 2)
        blob = np.exp(-((x / width) ** 2 + (y / height) ** 2) / 2)[..., None] * rng.uniform(80, 220, 3)
        pixels = (blob + rng.normal(10, 4, (424, 424, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.jpg", quality=85)


def seconds_of(read_all: Callable[[], None]) -> float:
    """Return the processor time that one reading takes."""
    started = time.process_time()
    read_all()
    return time.process_time() - started


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(description=__doc__)
    parser.add_argument("--path", type=Path, help="folder of pictures (default: synthetic ones)")
    parser.add_argument("--images", type=int, default=300, help="pictures to read (default: 300)")
    parser.add_argument("--repeats", type=int, default=5, help="times to read them (default: 5)")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default: 64)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        if options.path is None:
            make_pictures(Path(scratch), options.images)
        with CutoutSource(options.path or scratch) as source:
            names = source.names[: options.images]
            files = [source.path / name for name in names]
            shape = (options.size, options.size)

            def plain() -> None:
                for file in files:
                    Image.open(file).convert("RGB").resize(shape)

            def ours() -> None:
                for name in names:
                    decode_found(found_in(source, name), options.size, 0.5)

            pairs = [(seconds_of(plain), seconds_of(ours)) for _ in range(options.repeats)]
    plain_rate, our_rate = (len(names) / statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"plain Pillow {plain_rate:.0f} images/s a core, cutouts {our_rate:.0f}, ratio {our_rate / plain_rate:.2f}")
    result = {
        "images": len(names),
        "size": options.size,
        "plain_images_per_s": round(plain_rate, 1),
        "cutouts_images_per_s": round(our_rate, 1),
        "ratio": round(our_rate / plain_rate, 3),
        "ratios": [round(one / two, 3) for one, two in pairs],
    }
    print(json_text(result))


if __name__ == "__main__":
    run_script(main)
