"""Time the preparation of a dataset from JPEG pictures in a zip file, as surveys publish them.

    python benchmarks/preparation.py
    python benchmarks/preparation.py --images 24576 --workers 16

Prints one JSON object. The first row is the reading alone, by threads: decoded, cropped, brought to 64 pixels. The
second is `prepare_data.py labelled` from start to end, which measures the galaxies too and writes the dataset, by
processes from some thousands of pictures on. The reference of both is a plain loop with Pillow that decodes each
picture and resizes it, and does nothing else. Pictures are synthetic, 424 x 424 pixels; of a large archive the reading
alone and the reference take the first ones only.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import prepare_data
from benchmarks import timing
from benchmarks.read_images import make_pictures
from benchmarks.training_step import SURVEY
from config_physics import MORPHOLOGY_NAMES
from galaxies.command_line import Parser, run_script
from galaxies.common import hardware
from galaxies.datasets.cutout_blocks import read_cutouts
from galaxies.datasets.cutouts import CutoutSource

_DIFFERENT = 64  # pictures that are made; a larger archive holds them several times
_READ, _READ_PLAINLY = 2048, 512  # at most


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    device = torch.device("cpu")
    workers = options.workers or hardware.usable_cores()
    with tempfile.TemporaryDirectory(prefix="galaxy-") as scratch, contextlib.redirect_stdout(sys.stderr):
        folder = Path(scratch)
        archive, labels = make_archive(folder, options.images)
        with zipfile.ZipFile(archive) as pictures:
            names = pictures.namelist()

        def read() -> None:
            with CutoutSource(archive) as source:
                for cutout in read_cutouts(source, names[:_READ], 64, workers=workers):
                    np.asarray(cutout.image)

        def read_plainly() -> None:
            with zipfile.ZipFile(archive) as pictures:
                for name in names[:_READ_PLAINLY]:
                    np.asarray(Image.open(io.BytesIO(pictures.read(name))).convert("RGB").resize((64, 64)))

        def prepare() -> None:
            out = ["--out", str(folder / "prepared"), "--overwrite", "--workers", str(workers)]
            prepare_data.main(["labelled", "--images", str(archive), "--labels", str(labels), *out])

        works = {"read": read, "prepare": prepare}
        if not options.no_reference:
            works["plain"] = read_plainly
        seconds = timing.in_turns(works, options.repeats, device)
    plain = seconds.get("plain")
    many = f"{workers} worker{'s' if workers > 1 else ''}"
    plainly = min(len(names), _READ_PLAINLY)
    rows = [
        timing.row(f"{what}, {many}", seconds[name], count, reference=plain, reference_images=plainly)
        for name, what, count in (
            ("read", "pictures read", min(len(names), _READ)),
            ("prepare", "dataset prepared", len(names)),
        )
    ]
    minutes = SURVEY / rows[-1]["images_per_s"] / 60
    sizes = {"images": len(names), "workers": workers, "image_px": 64}
    facts = {"reference": "a plain loop with Pillow", f"minutes_for_{SURVEY}": float(f"{minutes:.4g}")}
    timing.print_result("preparation", hardware.describe(device), sizes, rows, facts)


def _parser() -> Parser:
    parser = Parser(prog="preparation.py", description=__doc__)
    timing.add_timing_options(parser, repeats=5)
    parser.add_argument(
        "--images", type=timing.at_least(4), default=256, metavar="N", help="pictures of the archive (default: 256)"
    )
    parser.add_argument(
        "--workers",
        type=timing.at_least(1),
        metavar="N",
        help="threads or processes (default: one for each core that may be used)",
    )
    return parser


def make_archive(folder: Path, count: int) -> tuple[Path, Path]:
    """Write a zip file of pictures and a table of their classes; return both paths."""
    pictures = folder / "pictures"
    pictures.mkdir()
    make_pictures(pictures, min(count, _DIFFERENT))
    files = sorted(pictures.iterdir())
    archive, labels = folder / "pictures.zip", folder / "labels.csv"
    lines = ["image,morphology"]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        for k in range(count):
            target.write(files[k % len(files)], f"{k}.jpg")
            lines.append(f"{k}.jpg,{MORPHOLOGY_NAMES[k % len(MORPHOLOGY_NAMES)]}")
    labels.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return archive, labels


if __name__ == "__main__":
    run_script(main)
