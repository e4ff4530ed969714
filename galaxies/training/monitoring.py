"""Watch a run: the metrics file, health warnings, instrument checks, sample grids and loss curves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from config_physics import MORPHOLOGIES, Config, attribute_table
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset, to_float
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.grids import labelled_grid, plot_curves
from galaxies.measure import photometry
from galaxies.measure.image_statistics import diversity
from galaxies.storage.metrics_log import read_metrics
from physics_model import PhysicsPredictor

_GRID_COLUMNS = 8
_COLLAPSED = 0.5  # a class whose diversity is below this fraction of the real one is reported


def label_entropy(label: float) -> float:
    """Return the floor of the binary cross-entropy against a smoothed label: 0.325 for 0.9 or 0.1."""
    return -sum(p * math.log(p) for p in (label, 1 - label) if p > 0)


def discriminator_limits(config: Config) -> tuple[float, float]:
    """Return the least loss of a discriminator, and that of one which cannot tell.

    With the labels 0.9 and 0.1 an unbeatable one reaches D(x) = 0.9, D(G(z)) = 0.1 and the floor 0.650; one that cannot
    tell pays at least 2 ln 2 = 1.386. With pairs an unbeatable one pays 0, and one that finds no difference ln 2.
    """
    if config.adversarial == "relativistic":
        return 0.0, math.log(2)
    return label_entropy(config.real_label) + label_entropy(config.fake_label), 2 * math.log(2)


def health_warnings(metrics: dict[str, float], config: Config, attribute_variance: dict[str, float]) -> dict[str, str]:
    """Judge the mean metrics of one epoch of the generator's phase.

    The limits follow from the loss formulas; see `discriminator_limits`. A constant prediction has a squared error
    equal to the attribute's variance, so a larger one is worse than ignoring the request.

    Returns
    -------
    dict
        {kind of warning: sentence}, empty for a healthy epoch.
    """
    warnings = {}
    floor, guessing = discriminator_limits(config)
    d_loss = metrics.get("d_loss", math.nan)  # a diffusion model has no discriminator
    if d_loss < floor + 0.02 * (guessing - floor):
        warnings["discriminator_wins"] = (
            f"the discriminator hardly errs (loss {d_loss:.3f}, floor {floor:.3f}): the generator gets little to learn"
            " from; a lower --learning-rate or more data may help"
        )
    if d_loss > guessing:
        warnings["discriminator_loses"] = (
            f"the discriminator does worse than guessing (loss {d_loss:.3f}, guessing costs {guessing:.3f}): "
            "a lower --learning-rate may help"
        )
    for name, variance in attribute_variance.items():
        error = metrics.get(f"physics_{name}", math.nan)
        if variance > 0 and error > variance:
            warnings[f"no_control_{name}"] = (
                f"the generator ignores {name}: its squared error {error:.4f} is above the variance {variance:.4f} of "
                "the requests; a larger --physics-weight or more epochs may help"
            )
    return warnings


@torch.no_grad()
def evaluate_predictor(
    predictor: PhysicsPredictor, data: PreparedDataset, attributes: tuple[str, ...], device: torch.device
) -> dict[str, float]:
    """Compare the predictor with the test split, galaxies that it has not seen.

    Returns
    -------
    dict
        ``mae_<attribute>``, mean absolute error in the attribute's unit, and ``r2_<attribute>``, one minus the
        error's share of the variance; only attributes with at least two known values.

    Raises
    ------
    UserError
        If the dataset's images are no longer those that were opened.
    """
    # Its pages are read from the disk only now, and a file that became shorter would end the process.
    if PreparedDataset.open(data.path).manifest["sha256"] != data.manifest["sha256"]:
        raise UserError(f"{data.path} was replaced by another dataset while it was in use: put the first one back")
    rows = data.rows("test")
    truth = torch.from_numpy(data.attributes(attributes, rows))
    predictor.eval()
    batches = (torch.from_numpy(data.images[rows[k : k + 256]]) for k in range(0, len(rows), 256))
    predictions = [predictor(to_float(images.to(device))).float().cpu() for images in batches]
    report = {}
    for column, attribute in enumerate(attribute_table(attributes)):
        known = torch.isfinite(truth[:, column])
        if known.sum() < 2:
            continue
        predicted, actual = attribute.from_unit(torch.cat(predictions)[known, column]), truth[known, column]
        report[f"mae_{attribute.name}"] = float((predicted - actual).abs().mean())
        report[f"r2_{attribute.name}"] = 1 - float((predicted - actual).square().mean() / actual.var(correction=0))
    return report


def predictor_lines(report: dict[str, float], attributes: tuple[str, ...]) -> list[str]:
    """Say what `evaluate_predictor` found, a line for each attribute."""
    lines = []
    for attribute in attribute_table(attributes):
        if f"mae_{attribute.name}" in report:
            unit = f" {attribute.unit}" if attribute.unit else ""
            lines.append(
                f"predictor on test galaxies: {attribute.name} mean absolute error "
                f"{report[f'mae_{attribute.name}']:.4g}{unit}, R2 {report[f'r2_{attribute.name}']:.2f}"
            )
    return lines


def check_samples(sampler: GalaxySampler, real: dict[int, Tensor], per_class: int = 32) -> dict[str, float]:
    """Compare requested with measured attributes, and the variety of each class with real galaxies.

    Parameters
    ----------
    sampler : GalaxySampler
    real : dict of {class index: Tensor (N, 3, S, S) uint8}
    per_class : int
        Images generated for each class, for requests taken from real galaxies.

    Returns
    -------
    dict
        ``measured_mae_<attribute>`` in the attribute's unit, for those that photometry measures, over images
        with a sound measurement; ``unmeasurable``, the fraction of the others; ``diversity_<class>``, relative
        to the real galaxies.
    """
    report = {}
    images, requests = [], []
    for index in sorted(real):
        classes = torch.full((per_class,), index)
        unset = torch.full((len(sampler.attributes),), math.nan)
        values = torch.stack([sampler.complete(index, unset, seed) for seed in range(per_class)])
        generated = sampler.generate(classes, values, list(range(per_class)))
        images.append(generated)
        requests.append(values)
        if (real_diversity := diversity(real[index][:per_class])) > 0:
            report[f"diversity_{MORPHOLOGIES[index].name}"] = diversity(generated) / real_diversity
    measured = photometry.measure(torch.cat(images).float() / 255)
    sound = (measured.flag & photometry.NO_SOURCE) == 0
    report["unmeasurable"] = float((~sound).float().mean())
    for column, attribute in enumerate(sampler.attributes):
        if attribute.source == "photometry":
            error = (measured.attribute(attribute.name) - torch.cat(requests)[:, column]).abs()
            usable = sound & torch.isfinite(error)
            if usable.any():
                report[f"measured_mae_{attribute.name}"] = float(error[usable].mean())
    return report


def collapse_warnings(report: dict[str, float]) -> dict[str, str]:
    """Name the classes of a `check_samples` report whose galaxies resemble each other too much."""
    return {
        f"collapse_{key.removeprefix('diversity_')}": (
            f"the {key.removeprefix('diversity_')} galaxies vary {ratio:.2f} times as much as real ones: "
            "a mode may have collapsed"
        )
        for key, ratio in report.items()
        if key.startswith("diversity_") and ratio < _COLLAPSED
    }


def sample_grid(sampler: GalaxySampler, title: str) -> Image.Image:
    """Draw a grid from fixed noise: a row for each class, then a row sweeping each attribute.

    Class rows show requests taken from real galaxies. A sweep changes one attribute of one spiral (or of the
    first class there is) over its supported range, with the noise and everything else held.
    """
    population = sampler.population
    present = [i for i in range(len(MORPHOLOGIES)) if len(population.members(i))]
    seeds = list(range(_GRID_COLUMNS))
    unset = torch.full((len(sampler.attributes),), math.nan)
    rows, labels, captions = [], [], []
    for index in present:
        values = torch.stack([sampler.complete(index, unset, seed) for seed in seeds])
        rows.append(sampler.generate(torch.full((len(seeds),), index), values, seeds))
        labels.append(MORPHOLOGIES[index].label)
        captions.append(())
    swept_class = present[0]
    typical = population.members(swept_class).nanmedian(0).values
    for column, attribute in enumerate(sampler.attributes):
        limits = sampler.supported[swept_class][column]
        if limits is None:
            continue
        values = typical.repeat(len(seeds), 1)
        values[:, column] = torch.linspace(*limits, len(seeds))
        rows.append(sampler.generate(torch.full((len(seeds),), swept_class), values, [0] * len(seeds)))
        labels.append(f"{attribute.label}\n{attribute.unit or MORPHOLOGIES[swept_class].name}")
        captions.append([f"{value:.3g}" for value in values[:, column].tolist()])
    return labelled_grid(rows, labels, captions, title)


def curves_picture(path: Path, attributes: Iterable[str], title: str) -> Image.Image:
    """Draw the losses in a metrics file."""
    records = read_metrics(path)
    predictor = [r for r in records if r["phase"] == "predictor" and r["kind"] == "train"]
    generator = [r for r in records if r["phase"] == "generator" and r["kind"] == "train"]
    physics = [f"physics_{name}" for name in attributes]

    def curves(chosen: list[dict[str, Any]], names: dict[str, str]) -> dict[str, tuple[list[float], list[float]]]:
        return {
            label: (
                [r["step"] for r in chosen if r.get(key) is not None],
                [r[key] for r in chosen if r.get(key) is not None],
            )
            for key, label in names.items()
            if any(r.get(key) is not None for r in chosen)
        }

    short = {key: key.removeprefix("physics_") for key in physics}
    panels = [
        ("Phase 1: predictor, squared error (scaled)", curves(predictor, {"physics": "mean", **short})),
        ("Phase 2: adversarial losses", curves(generator, {"d_loss": "D", "g_adversarial": "G"})),
        (
            "Phase 2: discriminator's mean probability of real",
            curves(generator, {"d_real": "D(x)", "d_fake": "D(G(z))", "d_pairs": "the real one of a pair"}),
        ),
        (
            "Phase 2: physics, squared error (scaled)",
            curves(
                generator,
                {"physics": "in the loss", "photometry": "photometry", "g_regression": "read by D", **short},
            ),
        ),
    ]
    return plot_curves(panels, title)


def bar_line(record: dict[str, Any], attributes: Iterable[str]) -> str:
    """Say the newest metrics in one line for the progress bar."""
    parts = []
    for key, label in (
        ("d_loss", "D"),
        ("g_loss", "G"),
        ("d_real", "D(x)"),
        ("d_fake", "D(G(z))"),
        ("d_pairs", "D(x | G(z))"),
        ("g_regression", "read by D"),
        ("physics", "physics"),
        ("photometry", "photometry"),
    ):
        if record.get(key):
            parts.append(f"{label} {record[key]:.3f}")
    known = [(name, record.get(f"physics_{name}")) for name in attributes]
    parts += [f"{name} {error:.4f}" for name, error in known if error is not None]
    return " ".join(parts)
