"""Time the mock survey: galaxies rendered, and a prepared dataset of them written.

    python benchmarks/rendering.py
    python benchmarks/rendering.py --count 16384

Prints one JSON object; the facts tell how many minutes 240,000 galaxies would take, and how much longer linear images
take to render in three bands of LSST, with the light before the telescope of the test split, than display pictures do.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import timing
from benchmarks.training_step import SURVEY
from galaxies.command_line import Parser, run_script
from galaxies.common import hardware
from galaxies.datasets.writing import split_of
from galaxies.mock_survey.band_observation import BandSurvey
from galaxies.mock_survey.band_population import Frame
from galaxies.mock_survey.observation import BLOCK, MockSurvey
from galaxies.mock_survey.writing import blocks_at_once, rendering_device, write_dataset
from galaxies.telescope.surveys import Survey, SurveyBand

# As surveycodex has it, which machines with a GPU may lack.
LSST = Survey(
    "LSST",
    0.2,
    "kolmogorov",
    0.63,
    (
        SurveyBand("g", 486.4, (422.2, 550.6), 0.86, 22.26, 28.29, 2400),
        SurveyBand("r", 625.0, (557.5, 692.5), 0.81, 21.20, 28.13, 5520),
        SurveyBand("i", 756.5, (695.2, 817.8), 0.79, 20.48, 27.81, 5520),
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="rendering.py", description=__doc__)
    timing.add_timing_options(parser, repeats=3, reference=False)
    parser.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, cuda or mps, which renders on the CPU (default: auto)"
    )
    parser.add_argument(
        "--count", type=timing.at_least(1), default=256, metavar="N", help="galaxies a repeat (default: 256)"
    )
    parser.add_argument("--size", type=int, default=64, choices=(64, 128, 256), help="pixels a side (default: 64)")
    options = parser.parse_args(argv)
    # The mock survey knows no MPS.
    device = torch.device(rendering_device("cpu" if options.device == "mps" else options.device))

    def render() -> None:
        blocks = blocks_at_once(device, options.size)
        for _ in MockSurvey(0, options.size, device=device).batches(options.count, blocks):
            pass

    frame = Frame(LSST, options.size, LSST.pixel_scale)

    def render_flux() -> None:
        blocks = blocks_at_once(device, options.size)
        in_flux = BandSurvey(0, frame, device, with_intrinsic=lambda object_id: split_of(object_id) == "test")
        for _ in in_flux.batches(options.count, blocks):
            pass

    def write() -> None:
        with tempfile.TemporaryDirectory(prefix="galaxy-") as folder, contextlib.redirect_stdout(sys.stderr):
            write_dataset(Path(folder) / "mock", options.count, 0, options.size, device.type, "a benchmark")

    works = {
        "galaxies rendered": render,
        "galaxies rendered in flux": render_flux,
        "galaxies rendered, measured and written": write,
    }
    seconds = timing.in_turns(works, options.repeats, device)
    rows = [timing.row(what, times, options.count) for what, times in seconds.items()]
    minutes = SURVEY / rows[-1]["images_per_s"] / 60
    sizes = {"count": options.count, "image_px": options.size, "block": BLOCK}
    flux_ratio = rows[0]["images_per_s"] / rows[1]["images_per_s"]
    facts = {
        f"minutes_for_{SURVEY}": float(f"{minutes:.4g}"),
        "flux_over_display": float(f"{flux_ratio:.3g}"),
    }
    timing.print_result("rendering", hardware.describe(device), sizes, rows, facts)


if __name__ == "__main__":
    run_script(main)
