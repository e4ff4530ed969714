r"""Show why the original diffusion model was poor: what its noise schedule leaves of the image, and what comes of it.

    python studies/noise_schedules.py --document checkpoints/linear/latest.pt \
        --default checkpoints/cosine/latest.pt --out docs/noise_schedules.png

Draws alpha bar of the original schedule (linear in beta, 100 steps), of the same range with the 1,000 steps that it was
made for, and of the default (cosine, ending without signal); beside them galaxies of two checkpoints, each drawn from
pure noise by the solver of its run: one trained with the original schedule, one with the default.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import MORPHOLOGIES, Config
from diffusion_model import DiffusionGenerator, cosine_schedule, linear_schedule
from galaxies.command_line import Parser, run_script
from galaxies.common.errors import UserError
from galaxies.common.outputs import check_file, has_bytes, write_output
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.grids import plain_grid

_SOFTWARE = "galaxy-physics, noise_schedules.py"  # in the file, by which it is known again
_COLUMNS = 6  # galaxies of each class
_INK, _PAPER, _FAINT = "#e2e4ec", "#0d0e14", "#787e8e"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="noise_schedules.py", description=__doc__)
    parser.add_argument("--document", type=Path, required=True, metavar="FILE", help="checkpoint, original schedule")
    parser.add_argument("--default", type=Path, required=True, metavar="FILE", help="checkpoint, default schedule")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="where the figure goes")
    options = parser.parse_args(argv)
    ours, inputs = has_bytes(_SOFTWARE.encode()), (options.document, options.default)
    check_file(options.out, ours, inputs)  # before the work
    samplers = {name: GalaxySampler.from_checkpoint(getattr(options, name)) for name in ("document", "default")}
    for name, sampler in samplers.items():
        if not sampler.config.diffusion:
            raise UserError(f"{getattr(options, name)} holds no diffusion model")
    content = draw({name: (title(sampler), galaxies(sampler)) for name, sampler in samplers.items()})
    write_output(options.out, content, ours, inputs)
    print(f"wrote {options.out}")


def title(sampler: GalaxySampler) -> str:
    """Say what schedule a checkpoint has, where it ends, and how its galaxies are drawn."""
    assert isinstance(sampler.network, DiffusionGenerator)
    process, config = sampler.network.process, sampler.config
    left = float(process.alphas_cumprod[-1])
    return (
        f"{config.noise_schedule}, {config.diffusion_steps} steps, ends at {left:.3g}\n"
        f"drawn by {sampler.solver.name} in {sampler.solver.num_steps} steps"
    )


def galaxies(sampler: GalaxySampler) -> Tensor:
    """Draw a row of each class with attributes of real galaxies, (4 x columns, 3, S, S) uint8."""
    classes = torch.arange(len(MORPHOLOGIES)).repeat_interleave(_COLUMNS)
    seeds = list(range(len(classes)))
    unset = torch.full((len(classes), len(sampler.attributes)), math.nan)
    return sampler.generate(classes, sampler.complete_all(classes, unset, seeds), seeds)


def draw(checkpoints: dict[str, tuple[str, Tensor]]) -> bytes:
    """Return the figure as a PNG, of {name: (title, galaxies)}."""
    from matplotlib.figure import Figure

    figure = Figure((15, 4.6), facecolor=_PAPER, layout="constrained")
    curve, *panels = figure.subplots(1, 1 + len(checkpoints), width_ratios=[1.15, *[1.5] * len(checkpoints)])
    schedules = {
        "original: linear, 100 steps": (linear_schedule(100), "#e69f00", "-"),
        "linear, the 1,000 steps it is for": (linear_schedule(1000), "#e69f00", ":"),
        "default: cosine, any number": (cosine_schedule(1000, Config.noise_shift), "#56b4e9", "-"),
    }
    for name, (alphas, color, line) in schedules.items():
        curve.plot(torch.linspace(0, 1, len(alphas)), alphas, color=color, ls=line, label=name)
    left = float(linear_schedule(100)[-1])
    curve.annotate(f"{left:.3f} is left", (1, left), (0.97, left - 0.06), color=_INK, ha="right")
    curve.set_xlabel("t / T", color=_INK)
    curve.set_ylabel("signal left in the variance, alpha bar", color=_INK)
    curve.legend(facecolor=_PAPER, labelcolor=_INK, edgecolor=_FAINT, fontsize=9, loc="upper right")
    curve.set_facecolor(_PAPER)
    curve.tick_params(colors=_INK)
    curve.spines[:].set_color(_FAINT)
    for panel, (words, images) in zip(panels, checkpoints.values(), strict=True):
        panel.imshow(plain_grid(images, _COLUMNS), interpolation="lanczos")
        panel.set_title(words, color=_INK, fontsize=10)
        panel.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, metadata={"Software": _SOFTWARE})
    return buffer.getvalue()


if __name__ == "__main__":
    run_script(main)
