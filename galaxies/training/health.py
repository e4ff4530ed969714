"""How a run should look: warnings when it does not, the predictor on galaxies it has not seen, samples measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from config_physics import Attribute, Config
from galaxies.common.attributes import LEAST_R2
from galaxies.common.errors import UserError
from galaxies.datasets.attribute_support import Limits, believed
from galaxies.datasets.batches import Pixels
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.composites import pictures_of_run
from galaxies.measure.photometry import NO_SOURCE
from galaxies.measure.statistics_table import ATTRIBUTE_STATISTICS, diversity, measure_images
from physics_model import FluxScale, PhysicsPredictor, is_measured

_COLLAPSED = 0.5  # a class whose diversity is below this fraction of the real one is reported
# Below it, and below `LEAST_R2` of the predictor on test galaxies, an attribute has no claim on the generator's loss.
_LEAST_KNOWN = 0.1  # part of the training galaxies that know it
_FAR_ABOVE = 10.0  # times its running level: a gradient's norm that is reported
_LEAST_INTERVALS = 5  # of the log, before a level is known
_NEWEST = 0.1  # weight of the newest interval in the level


def health_warnings(
    metrics: dict[str, float],
    limits: tuple[float, float] | None,
    attribute_variance: dict[str, float],
    reasons: dict[str, str],
) -> dict[str, str]:
    """Judge the mean metrics of one epoch of the generator's phase.

    A constant prediction has a squared error equal to the attribute's variance, so a larger one is worse than ignoring
    the request.

    Parameters
    ----------
    metrics : dict of str to float
    limits : tuple of float, or None
        The discriminator's least loss, and what it pays when it cannot tell; see `Learner.limits`.
    attribute_variance : dict of str to float
        Of the requests, by attribute, scaled; only of those that are to be judged.
    reasons : dict of str to str
        By attribute: why it may be hard to control; see `what_is_known`.

    Returns
    -------
    dict
        {kind of warning: sentence}, empty for a healthy epoch.
    """
    warnings = {}
    floor, guessing = limits or (math.nan, math.nan)  # a diffusion model has no discriminator
    d_loss = metrics.get("d_loss", math.nan)
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
                f"the requests ({reasons[name]}); a larger --physics-weight or more epochs may help"
            )
    return warnings


def what_is_known(share: float, r2: float | None) -> str:
    """Say how much of the training galaxies know an attribute, and how well the predictor read it off test galaxies."""
    read = "" if r2 is None else f", and the predictor reads it with an R2 of {r2:.2f}"
    return f"it is known for {100 * share:.0f} % of the training galaxies{read}"


def without_claim(shares: dict[str, float], report: dict[str, float]) -> dict[str, str]:
    """Name the attributes that the generator should not be held to by what a network reads, and why.

    A few galaxies teach a predictor little, and what it cannot read on galaxies that it has not seen it would ask for
    at random: what it says itself of its reliability comes from the galaxies that it learned from.

    Parameters
    ----------
    shares : dict of str to float
        By attribute: part of the training galaxies that know it.
    report : dict of str to float
        Of `evaluate_predictor`.

    Returns
    -------
    dict
        {attribute: reason}.
    """
    reasons = {}
    for name, share in shares.items():
        r2 = report.get(f"r2_{name}")
        if share < _LEAST_KNOWN:
            reasons[name] = f"known for {100 * share:.0f} % of the training galaxies"
        elif r2 is None and f"mae_{name}" in report:
            reasons[name] = "the same for all test galaxies, which cannot test the predictor"
        elif r2 is None:
            reasons[name] = "known for too few test galaxies to test the predictor"
        elif not r2 >= LEAST_R2:
            reasons[name] = f"the predictor cannot read it off pictures, R2 {r2:.2f}"
    return reasons


def norm_warnings(metrics: dict[str, float], levels: dict[str, list[float]], phase: str) -> dict[str, str]:
    """Compare the gradients' norms of one interval of the log with the level that they had in those before it.

    Parameters
    ----------
    metrics : dict of str to float
        Means over the interval; the norms are those named ``grad_norm``, with or without a prefix.
    levels : dict of str to list
        By norm, what earlier calls have learned: the running mean of its logarithm, in which the last ten or so
        intervals count, and how many there were. Is changed in place.
    phase : str
        For the warning's name.

    Returns
    -------
    dict
        {kind of warning: sentence}, empty while no norm is more than ten times its level.
    """
    warnings = {}
    for name, norm in metrics.items():
        if not name.endswith("grad_norm") or norm <= 0:
            continue
        level, seen = levels.get(name, (0.0, 0))
        usual = math.exp(level)
        if seen >= _LEAST_INTERVALS and norm > _FAR_ABOVE * usual:
            warnings[f"high_{phase}_{name}"] = (
                f"the gradient's norm {name} is {norm:.3g}, {norm / usual:.0f} times what it was: training is about to "
                "become unstable; a lower --learning-rate, a longer --warmup or --precision fp32 may help"
            )
        weight = max(1 / (seen + 1), _NEWEST)
        levels[name] = [level + weight * (math.log(norm) - level), seen + 1]
    return warnings


@torch.no_grad()
def evaluate_predictor(
    predictor: PhysicsPredictor,
    data: PreparedDataset,
    config: Config,
    device: torch.device,
    limits: Limits | None = None,
) -> dict[str, float]:
    """Compare a run's predictor with the test split, galaxies that it has not seen; `limits` as in `believed`.

    Returns
    -------
    dict
        ``mae_<attribute>``, mean absolute error in the attribute's unit, and ``r2_<attribute>``, one minus the
        error's share of the variance on the attribute's scale; only attributes with at least two known values, and the
        latter only where they differ.

    Raises
    ------
    UserError
        If the dataset's images are no longer those that were opened.
    """
    # Its pages are read from the disk only now, and a file that became shorter would end the process.
    if PreparedDataset.open(data.path).manifest["sha256"] != data.manifest["sha256"]:
        raise UserError(f"{data.path} was replaced by another dataset while it was in use: put the first one back")
    rows, attributes, pixels = data.rows("test"), config.attributes, Pixels(config, device)
    truth = torch.from_numpy(believed(data.attributes(attributes, rows), attributes, limits or {}))
    predictor.eval()
    batches = (torch.from_numpy(data.images[rows[k : k + 256]]) for k in range(0, len(rows), 256))
    predictions = [predictor(pixels.for_networks(images.to(device))).float().cpu() for images in batches]
    report = {}
    for column, attribute in enumerate(config.attribute_rows):
        known = torch.isfinite(truth[:, column])
        if known.sum() < 2:
            continue
        predicted, actual = attribute.from_unit(torch.cat(predictions)[known, column]), truth[known, column]
        report[f"mae_{attribute.name}"] = float((predicted - actual).abs().mean())
        # Of what a logarithm or an asinh is learned of, its share is told of that too.
        error = attribute.steps_of(predicted) - attribute.steps_of(actual)
        if (variance := attribute.steps_of(actual).var(correction=0)) > 0:
            report[f"r2_{attribute.name}"] = 1 - float(error.square().mean() / variance)
    return report


def predictor_lines(report: dict[str, float], attributes: Sequence[Attribute]) -> list[str]:
    """Say what `evaluate_predictor` found, a line for each attribute."""
    lines = []
    for attribute in attributes:
        if f"mae_{attribute.name}" in report:
            unit = f" {attribute.unit}" if attribute.unit else ""
            r2 = report.get(f"r2_{attribute.name}")
            lines.append(
                f"predictor on test galaxies: {attribute.name} mean absolute error "
                f"{report[f'mae_{attribute.name}']:.4g}{unit}, "
                + ("R2 not available, since they are all the same" if r2 is None else f"R2 {r2:.2f}")
            )
    return lines


def check_samples(sampler: GalaxySampler, real: dict[int, Tensor], per_class: int = 32) -> dict[str, float]:
    """Compare requested with measured attributes, and the variety of each class with real galaxies.

    Parameters
    ----------
    sampler : GalaxySampler
    real : dict of {class index: Tensor (N, B, S, S)}
        As datasets have them.
    per_class : int
        Images generated for each class, for requests taken from real galaxies.

    Returns
    -------
    dict
        ``measured_mae_<attribute>`` in the attribute's unit, for those that photometry measures, over images
        with a sound measurement; ``unmeasurable``, the fraction of the others; ``diversity_<class>``, relative
        to the real galaxies, both as people see them. Empty without a class of which there are two real galaxies.
    """
    if not real:
        return {}
    report = {}
    picture = pictures_of_run(sampler.config)
    images, requests = [], []
    for index in sorted(real):
        classes = torch.full((per_class,), index)
        unset = torch.full((len(sampler.attributes),), math.nan)
        values = torch.stack([sampler.complete(index, unset, seed) for seed in range(per_class)])
        generated = sampler.generate(classes, values, list(range(per_class)))
        images.append(generated)
        requests.append(values)
        if (real_diversity := diversity(picture(real[index][:per_class]))) > 0:
            report[f"diversity_{sampler.config.classes[index]}"] = diversity(picture(generated)) / real_diversity
    found, flags = _measured(torch.cat(images), sampler.config)
    sound = (flags & NO_SOURCE) == 0
    report["unmeasurable"] = float((~sound).mean())
    for column, attribute in enumerate(sampler.attributes):
        if attribute.name in found:
            error = np.abs(found[attribute.name] - torch.cat(requests)[:, column].numpy())
            usable = sound & np.isfinite(error)
            if usable.any():
                report[f"measured_mae_{attribute.name}"] = float(error[usable].mean())
    return report


def _measured(images: Tensor, config: Config) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return what photometry measures of a run's attributes on images as datasets have them, and its flags (N,)."""
    wanted = [attribute.name for attribute in config.attribute_rows if is_measured(attribute)]
    scale = FluxScale.of(config, images.device)
    if scale is None:
        measured = measure_images(images, statistics=ATTRIBUTE_STATISTICS)
        return {name: measured.values[name] for name in wanted}, measured.flags
    found = scale.measure(images)
    known = {name: found.known(name, config.bands) for name in wanted}
    values = {name: found.attribute(name, config.bands).where(known[name], math.nan).numpy() for name in wanted}
    return values, found.flag.numpy()


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
