"""Tell whether skies keep their colour under requests that no galaxy of the training data has made.

    python studies/sky_colors.py --checkpoint checkpoints/released/gan/generator.safetensors --data data/real

Draws galaxies as the data have them, then with attributes drawn evenly between the ends of what their class has, of
which those are kept that are like real galaxies together (see `Population.support`), then at the ends themselves, kept
unless they are invented. The sky of each picture is measured in each plane; its colours are compared with those of as
many real galaxies, which are like the requests: of each request one of the five nearest of its class in the attributes
that photometry measures. Prints for each kind of request W1 over that of halves of the real ones, and percentiles.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import PHOTOMETRIC_ATTRIBUTES
from galaxies.command_line import Parser, run_script
from galaxies.common.errors import UserError
from galaxies.common.parsing import whole_number
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.measure.sky import sky_level
from galaxies.validation.distances import compare_values

KINDS = ("data", "like", "ends")
COLORS = {"R - G": (0, 1), "G - B": (1, 2), "R - B": (0, 2)}
_NEAREST = 5
_TRIALS = 4096  # at a time
_ROUNDS = 64


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    data = PreparedDataset.open(options.data)
    sampler = GalaxySampler.from_checkpoint(options.checkpoint, "cpu")
    if data.layout.is_flux or sampler.config.kind == "flux":
        raise UserError("the colours of a sky are those of display pictures: flux has its sky subtracted")
    if sampler.config.classes != data.layout.classes:
        raise UserError(f"{options.checkpoint} and {options.data} have other classes than each other")
    print(f"{'requests':<10}{'colour':<8}{'W1 / floor':>11}{'generated, 1, 50, 99 %':>26}{'real':>22}  (grey levels)")
    for kind in KINDS:
        classes, values = requests(sampler, kind, options.count, options.seed)
        images = sampler.generate(classes, values, np.arange(len(classes)))
        rows = resembling(data, sampler, classes, values, options.seed)
        real = torch.from_numpy(np.array(data.images[np.sort(rows)]))
        for line in table(kind, images, real, options.seed):
            print(line)


def _parser() -> Parser:
    parser = Parser(prog="sky_colors.py", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="of a run, or a release")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared dataset of real galaxies")
    parser.add_argument("--count", type=whole_number(100, 100_000), default=1200, metavar="N", help="galaxies a kind")
    parser.add_argument("--seed", type=whole_number(0, 2**31), default=5, metavar="N", help="of the requests")
    return parser


def requests(sampler: GalaxySampler, kind: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return classes (N,) and attributes (N, A) of requests of a kind; fewer where the support has so few.

    Classes are as the data have them, and at the ends all alike.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    population = sampler.population
    shares = torch.bincount(population.classes, minlength=len(sampler.config.classes)).double().numpy()
    if kind == "data":
        classes = torch.from_numpy(rng.choice(len(shares), count, p=shares / shares.sum()))
        unset = torch.full((count, len(sampler.attributes)), torch.nan)
        return classes, sampler.complete_all(classes, unset, np.arange(count))
    wanted = np.full(len(shares), count // len(shares)) if kind == "ends" else np.ceil(count * shares / shares.sum())
    found: list[tuple[Tensor, Tensor]] = []
    for index, number in enumerate(wanted.astype(int) * (shares > 0)):
        ends = torch.tensor([end or (torch.nan, torch.nan) for end in sampler.supported[index]])
        kept = [torch.empty(0, len(ends))]
        for _ in range(_ROUNDS):
            part = torch.from_numpy(rng.random((_TRIALS, len(ends)))).float()
            values = torch.lerp(ends[:, 0], ends[:, 1], part.round() if kind == "ends" else part)
            verdicts = sampler.support(torch.full((_TRIALS,), index), values).verdicts
            kept.append(values[verdicts <= (1 if kind == "ends" else 0)])
            if sum(map(len, kept)) >= number:
                break
        chosen = torch.cat(kept)[:number]
        found.append((torch.full((len(chosen),), index), chosen))
    return torch.cat([c for c, _ in found]), torch.cat([v for _, v in found])


def resembling(data: PreparedDataset, sampler: GalaxySampler, classes: Tensor, values: Tensor, seed: int) -> np.ndarray:
    """Return for each request the row (N,) of a real galaxy that is like it in what photometry measures."""
    names = [a.name for a in sampler.attributes]
    columns = [k for k, name in enumerate(names) if name in PHOTOMETRIC_ATTRIBUTES]
    everything = np.arange(len(data.images))
    known = torch.from_numpy(data.attributes(tuple(names), everything)).float()[:, columns]
    own, rng = data.classes(everything), np.random.default_rng([seed, len(KINDS)])
    rows = np.empty(len(classes), np.int64)
    for index in classes.unique().tolist():
        asked = np.flatnonzero(classes.numpy() == index)
        members = np.flatnonzero((own == index) & known.isfinite().all(1).numpy())
        spread = known[members].std(0)
        distance = torch.cdist(values[asked][:, columns] / spread, known[members] / spread)
        nearest = distance.topk(min(_NEAREST, len(members)), largest=False).indices.numpy()
        rows[asked] = members[nearest[np.arange(len(asked)), rng.integers(0, nearest.shape[1], len(asked))]]
    return rows


def table(kind: str, images: Tensor, real: Tensor, seed: int) -> list[str]:
    """Return a line for each colour of the sky of images (N, 3, S, S) and (M, 3, S, S), uint8."""
    lines, skies = [], [_skies(part) for part in (images, real)]
    for name, (one, other) in COLORS.items():
        drawn, true = (sky[:, one] - sky[:, other] for sky in skies)
        w1 = compare_values(drawn, true, seed)["w1"]
        low_to_high = ["".join(f"{255 * v:7.1f}" for v in np.percentile(part, [1, 50, 99])) for part in (drawn, true)]
        lines.append(f"{kind:<10}{name:<8}{w1['multiple']:>11.2f}{low_to_high[0]:>26}{low_to_high[1]:>22}")
    return lines


def _skies(images: Tensor) -> np.ndarray:
    return torch.cat([sky_level(part.float() / 255) for part in images.split(512)]).numpy()


if __name__ == "__main__":
    run_script(main)
