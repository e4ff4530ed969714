"""Measure how nearly template spectra have the magnitudes that they are made for, by synthetic photometry of their own.

    python prepare_data.py simulated --kind flux --survey LSST --count 200 --out data/lsst
    python studies/spectra.py --data data/lsst
    python studies/spectra.py --data data/lsst --checkpoint checkpoints/first/latest.pt

Spectra are those of `generate_from_checkpoint.py --spectrum`: of a dataset of flux by the magnitudes of its catalogue,
and with a checkpoint also of galaxies that it draws like the test split's. Each spectrum is integrated here over each
band by the trapezoidal rule on a fine grid of the logarithm of wavelength, apart from the code that fits it. Printed is
one JSON object: of the largest residual of each galaxy, in magnitudes, the median, the 90th percentile and the largest;
how many galaxies needed a smooth correction, how large that is, and how many have no spectrum.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import AB_ZERO_POINT
from galaxies.command_line import Parser, run_script
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.parsing import whole_number
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.catalogue import generate_blocks
from galaxies.generation.requests import requests_like_test
from galaxies.generation.sampler import GalaxySampler
from galaxies.generation.spectrum_files import SpectrumOf, check_spectra, spectrum_of
from galaxies.telescope.surveys import edges_between

_POINTS = 20_000  # of the grid within a band


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="spectra.py", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared dataset of flux")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="of a run of flux (default: none)")
    parser.add_argument(
        "--count",
        type=whole_number(1, 10**6),
        default=200,
        metavar="N",
        help="galaxies of each, at most (default: 200)",
    )
    options = parser.parse_args(argv)
    data = PreparedDataset.open(options.data)
    wavelengths = [band.wavelength_nm for band in data.layout.bands]
    if not data.layout.is_flux or not all(math.isfinite(each) for each in wavelengths):
        raise UserError(f"{options.data} is no dataset of flux that knows where its bands lie: give one")
    report: dict[str, Any] = {}
    rows = data.catalogue.iloc[: options.count]
    renamed = rows.rename(columns=lambda name: f"{'requested' if name == 'redshift' else 'measured'}_{name}")
    report["catalogue"] = residuals_of(renamed, data.layout.band_names, edges_between(wavelengths))
    if options.checkpoint is not None:
        sampler = GalaxySampler.from_checkpoint(options.checkpoint)
        edges = check_spectra(sampler.config)
        requests = requests_like_test(data, sampler.config.attributes, options.count, 0)
        table = pd.concat([table for _, table in generate_blocks(sampler, requests)], ignore_index=True)
        report["generated"] = residuals_of(table, sampler.config.bands, edges)
    print(json_text(report, indent=1))


def residuals_of(table: pd.DataFrame, bands: Sequence[str], edges: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return what the module says of galaxies by their rows of a catalogue of generated galaxies."""
    spectra = [spectrum_of(row, bands, edges) for _, row in table.iterrows()]
    there = [found for found in spectra if found.fitted is not None]
    result: dict[str, Any] = {
        "galaxies": len(spectra),
        "without": dict(Counter(found.reason for found in spectra if found.fitted is None)),
    }
    if there:
        largest = np.array([np.nanmax(np.abs(missed(found, edges))) for found in there])
        changes = np.array([found.fitted.correction for found in there if found.fitted is not None])
        result |= {
            "median": float(np.median(largest)),
            "percentile_90": float(np.percentile(largest, 90)),
            "largest": float(largest.max()),
            "corrected": int((changes > 0).sum()),
            "changed_by": {"percentile_90": float(np.percentile(changes, 90)), "largest": float(changes.max())},
            "origins": dict(Counter(origin for found in there for origin in found.origins)),
        }
    return result


def missed(found: SpectrumOf, edges: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return the magnitudes of a spectrum less those that it was made for, (B,), NaN where one of them is unknown."""
    assert found.fitted is not None, "it has a spectrum"
    result = np.full(len(edges), np.nan)
    wavelength, flux = found.fitted.wavelength_nm, found.fitted.flux_njy
    for place, (low, high) in enumerate(edges):
        if wavelength[0] <= low and high <= wavelength[-1]:
            grid = np.linspace(math.log(low), math.log(high), _POINTS)
            light = np.interp(np.exp(grid), wavelength, flux)
            mean = ((light[1:] + light[:-1]) / 2).mean()
            result[place] = AB_ZERO_POINT - 2.5 * math.log10(mean) - found.magnitudes[place]
    return result


if __name__ == "__main__":
    run_script(main)
