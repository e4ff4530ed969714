"""What photometric guidance costs and does: the same galaxies drawn with it and without."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from config_physics import ATTRIBUTES
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.measure.statistics_table import measure_images
from galaxies.validation.agreement import agreement, generate_all
from galaxies.validation.judge import Judge

_IMAGES = 128  # drawn twice


def guidance_effect(sampler: GalaxySampler, requests: Requests, judge: Judge | None, seed: int) -> dict[str, Any]:
    """Draw the first requests with the sampler's photometric guidance and without, from the same noise.

    Parameters
    ----------
    sampler : GalaxySampler
        Of a diffusion model, with a solver whose `photometry` is above 0.
    requests : Requests
    judge : Judge, optional
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``images``, ``strength``, ``seconds_per_image`` {"plain", "guided"}, and ``attributes``: {attribute:
        {instrument: {"plain", "guided"}}} as `control.agreement` gives them.
    """
    first = requests.part(0, _IMAGES)
    plain = GalaxySampler(
        sampler.network, sampler.config, sampler.population, sampler.engine, replace(sampler.solver, photometry=0.0)
    )
    report: dict[str, Any] = {
        "images": len(first),
        "strength": sampler.solver.photometry,
        "seconds_per_image": {},
        "attributes": {},
    }
    for name, draws in {"plain": plain, "guided": sampler}.items():
        start = time.perf_counter()
        images = generate_all(draws, first, f"generating, {name}")
        report["seconds_per_image"][name] = (time.perf_counter() - start) / len(first)
        readings = {"photometry": measure_images(images, sampler.engine.device).values}
        if judge is not None:
            readings["judge"] = dict(zip(judge.attributes, judge.read(images).double().numpy().T, strict=True))
        for column, attribute in enumerate(sampler.config.attributes):
            if ATTRIBUTES[attribute].source != "photometry":  # the guidance does not know of it
                continue
            for instrument, values in readings.items():
                if attribute in values:
                    cell = agreement(first.values[:, column].double().numpy(), np.asarray(values[attribute]), seed)
                    report["attributes"].setdefault(attribute, {}).setdefault(instrument, {})[name] = cell
    return report
