"""Generate galaxies with requested attributes from a checkpoint.

    python generate_from_checkpoint.py --checkpoint checkpoints/first/latest.pt --morphology spiral --count 16
    python generate_from_checkpoint.py --checkpoint checkpoints/first/latest.pt --requests wanted.csv --format png,fits

Attributes that are not set are drawn from real galaxies of the class. Image k depends on the checkpoint, on its
condition and on seed + k alone. The output folder gets grid.png, images/, images.npz and catalogue.csv, which
lists what was requested and what photometry measured on the image.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line import Parser, run_script
from config_physics import ATTRIBUTES, MORPHOLOGIES, MORPHOLOGY_NAMES, UserError, morphology_index

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from sampling import GalaxySampler

_FORMATS = ("png", "npz", "fits")
_GRID_LIMIT = 256
_MAX_COUNT = 100_000  # all images of a call are held in memory, 12 kB each at 64 pixels
_MAX_SEED = 2**63 - 1 - _MAX_COUNT  # the last image's seed must fit a 64-bit generator


@dataclass(frozen=True)
class Request:
    """One wanted image: class index, the attributes that were set (physical units), and seed."""

    class_index: int
    values: dict[str, float]
    seed: int


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    formats = _formats(options.format)
    given = {name: getattr(options, name) for name in ATTRIBUTES if getattr(options, name) is not None}
    if options.requests is None and options.morphology is None:
        raise UserError(f"say which galaxies: --morphology {'|'.join(MORPHOLOGY_NAMES)}, or --requests CSV")
    if options.requests is not None and (given or options.morphology or options.count is not None):
        raise UserError("--requests lists every image: it cannot be combined with --morphology, --count or attributes")
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file: name a folder")

    if "fits" in formats and importlib.util.find_spec("astropy") is None:
        raise UserError("--format fits needs the package astropy: python -m pip install astropy")
    from sampling import GalaxySampler  # torch loads only after the options are known to be right

    sampler = GalaxySampler.from_checkpoint(options.checkpoint, options.device)
    names = [a.name for a in sampler.attributes]
    if options.requests is not None:
        requests = read_requests(options.requests, names, options.seed)
    else:
        check_attributes(given, names)
        index, count = morphology_index(options.morphology), 16 if options.count is None else options.count
        requests = [Request(index, given, options.seed + k) for k in range(count)]
    for sentence in _warnings(sampler, requests):
        print(f"warning: {sentence}", file=sys.stderr)

    images, catalogue = generate(sampler, requests)
    write_output(options.out, formats, images, catalogue, sampler)
    print(f"{len(images)} galaxies in {options.out}")


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="checkpoint of a training run")
    parser.add_argument("--morphology", metavar="NAME", help=f"class: {', '.join(MORPHOLOGY_NAMES)}")
    group = parser.add_argument_group("attributes", "Those that the checkpoint was trained with; unset ones are drawn.")
    for attribute in ATTRIBUTES.values():
        unit = f" [{attribute.unit}]" if attribute.unit else ""
        group.add_argument(
            f"--{attribute.name.replace('_', '-')}",
            dest=attribute.name,
            type=_finite,
            metavar="VALUE",
            help=f"{attribute.label}{unit}, about {attribute.low:g} to {attribute.high:g}: {attribute.description}",
        )
    parser.add_argument("--count", type=_positive, metavar="N", help="number of images (default: 16)")
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of the first image (default: 0)")
    parser.add_argument(
        "--requests", type=Path, metavar="CSV", help="one image a row: morphology, attributes and optionally seed"
    )
    parser.add_argument(
        "--format", default="png", metavar="LIST", help="single images as png, npz, fits (default: png)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("generated"), metavar="DIR", help="output folder (default: generated)"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    return parser


def _finite(text: str) -> float:
    value = float(text)
    if not abs(value) < 1e30:  # not a number, infinite, or beyond the networks' single precision
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def _positive(text: str) -> int:
    if not 1 <= (value := int(text)) <= _MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text} must lie between 1 and {_MAX_COUNT}")
    return value


def _seed(text: str) -> int:
    if not 0 <= (value := int(text)) <= _MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and {_MAX_SEED}")
    return value


def _formats(text: str) -> set[str]:
    formats = {name.strip() for name in text.split(",") if name.strip()}
    if not formats or not formats <= set(_FORMATS):
        raise UserError(f"--format {text}: choose from {', '.join(_FORMATS)}, separated by commas")
    return formats


def check_attributes(values: dict[str, float], names: Sequence[str]) -> None:
    """Refuse attributes that the checkpoint was not trained with."""
    for name in values:
        if name not in names:
            raise UserError(f"this checkpoint does not know '{name}': it was trained with {', '.join(names)}")


def read_requests(path: Path, names: Sequence[str], seed: int) -> list[Request]:
    """Read a CSV of requests.

    Parameters
    ----------
    path : Path
        Columns ``morphology``, any of `names` (physical units, empty: unset), and optionally ``seed``.
    names : sequence of str
        Attributes of the checkpoint.
    seed : int
        Row k gets seed + k where the file gives none.

    Raises
    ------
    UserError
        Naming the file, and where it applies the column and the row.
    """
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # what pandas would leave out
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except pd.errors.ParserWarning:
        raise UserError(f"{path} has rows with more cells than its header") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a CSV file: {error}") from None
    table.columns = [str(column).strip() for column in table.columns]
    if "morphology" not in table or len(table) == 0:
        raise UserError(f"{path} needs a column morphology and at least one row")
    columns = [c for c in table.columns if c not in ("morphology", "seed")]
    if strange := [c for c in columns if c not in names]:
        raise UserError(f"{path} has a column '{strange[0]}': this checkpoint knows {', '.join(names)}")
    requests = []
    for row, record in enumerate(table.to_dict("records")):
        try:
            class_index = morphology_index(record["morphology"])
            values = {column: _finite(record[column]) for column in columns if record[column].strip()}
            row_seed = _seed(record["seed"]) if record.get("seed", "").strip() else seed + row
        except (ValueError, argparse.ArgumentTypeError, UserError) as error:
            raise UserError(f"{path}, row {row + 2}: {error}") from None
        requests.append(Request(class_index, values, row_seed))
    return requests


def _warnings(sampler: GalaxySampler, requests: list[Request]) -> list[str]:
    """Collect, once each, what the requests ask beyond the training data."""
    seen: dict[str, None] = {}
    for request in requests:
        for sentence in sampler.unsupported(request.class_index, _as_tensor(sampler, request)):
            seen.setdefault(sentence)
    return list(seen)


def _as_tensor(sampler: GalaxySampler, request: Request) -> Tensor:
    import torch

    return torch.tensor([request.values.get(a.name, math.nan) for a in sampler.attributes])


def generate(sampler: GalaxySampler, requests: list[Request]) -> tuple[Tensor, pd.DataFrame]:
    """Generate the requested images and measure them.

    Returns
    -------
    images : Tensor, (N, 3, S, S), uint8
    catalogue : DataFrame, N rows
        file, seed, morphology, ``requested_<attribute>`` (drawn ones included; empty where unknown),
        ``set_by_user``, ``measured_<attribute>`` of what photometry measures, measurement ``flag``, ``supported``.
    """
    import pandas as pd
    import torch
    from tqdm import tqdm

    import photometry

    rows, pictures = [], []
    digits = max(5, len(str(len(requests) - 1)))
    with tqdm(total=len(requests), unit="img", desc="generating", disable=len(requests) < 64) as bar:
        for start in range(0, len(requests), 256):
            part = requests[start : start + 256]
            wanted = [_as_tensor(sampler, r) for r in part]
            values = torch.stack(
                [sampler.complete(r.class_index, w, r.seed) for r, w in zip(part, wanted, strict=True)]
            )
            images = sampler.generate(torch.tensor([r.class_index for r in part]), values, [r.seed for r in part])
            measured = {name: column.tolist() for name, column in photometry.measure(images.float() / 255).items()}
            pictures.append(images)
            for k, request in enumerate(part):
                row: dict[str, Any] = {"file": f"galaxy_{start + k:0{digits}d}", "seed": request.seed}
                row["morphology"] = MORPHOLOGIES[request.class_index].name
                for column, attribute in enumerate(sampler.attributes):
                    row[f"requested_{attribute.name}"] = float(values[k, column])
                    if attribute.name in measured:
                        found = not measured["flag"][k] & photometry.NO_SOURCE
                        row[f"measured_{attribute.name}"] = measured[attribute.name][k] if found else math.nan
                row["set_by_user"] = " ".join(request.values)
                row["flag"] = measured["flag"][k]
                row["supported"] = not sampler.unsupported(request.class_index, wanted[k])
                rows.append(row)
            bar.update(len(part))
    return torch.cat(pictures), pd.DataFrame(rows)


def write_output(out: Path, formats: set[str], images: Tensor, catalogue: pd.DataFrame, sampler: GalaxySampler) -> None:
    """Write the grid, the catalogue and the images in the chosen formats."""
    import numpy as np

    from durable_files import whole_file
    from pictures import plain_grid, save_picture, to_picture

    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        # What an earlier call left here would be mistaken for part of this catalogue.
        for old in (*(out / "images").glob("galaxy_[0-9]*.*"), out / "images.npz"):
            old.unlink(missing_ok=True)
        save_picture(plain_grid(images[:_GRID_LIMIT]), out / "grid.png")
        for k, name in enumerate(catalogue["file"]):
            if "png" in formats:
                save_picture(to_picture(images[k]), out / "images" / f"{name}.png")
            if "fits" in formats:
                _write_fits(out / "images" / f"{name}.fits", images[k].numpy(), catalogue.iloc[k], sampler)
        if "npz" in formats:
            columns = {name: catalogue[name].to_numpy() for name in catalogue if catalogue[name].dtype.kind in "fib"}
            classes = catalogue["morphology"].to_numpy(dtype=np.str_)
            with whole_file(out / "images.npz") as file:
                np.savez_compressed(file, images=images.numpy(), morphology=classes, **columns)
        with whole_file(out / "catalogue.csv") as file:
            file.write(catalogue.to_csv(index=False).encode())
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error}") from None


def _write_fits(path: Path, image: Any, row: pd.Series, sampler: GalaxySampler) -> None:
    """Write one image as a cube (R, G, B planes) with its condition in the header."""
    from astropy.io import fits

    from durable_files import whole_file

    header = fits.Header()
    header["BUNIT"] = ("display", "asinh-stretched display value, 0 to 255")
    header["MORPHOL"] = (row["morphology"], "requested morphology")
    header["SEED"] = (str(row["seed"]), "seed of this image")
    for number, attribute in enumerate(sampler.attributes, 1):
        header[f"ATTR{number}"] = (attribute.name, attribute.unit or "dimensionless")
        for key, prefix in (("REQ", "requested"), ("MEAS", "measured")):
            value = row.get(f"{prefix}_{attribute.name}", math.nan)
            if math.isfinite(value):
                header[f"{key}{number}"] = (float(value), f"{prefix} {attribute.name}")
    header["FLAG"] = (int(row["flag"]), "0: sound measurement; see photometry.py")
    header["SUPPORT"] = (bool(row["supported"]), "request within the training data")
    # FITS counts rows from the bottom.
    with whole_file(path) as file:
        fits.PrimaryHDU(image[:, ::-1], header).writeto(file, checksum=True)


if __name__ == "__main__":
    run_script(main)
