"""What photometric guidance costs and does: the same galaxies drawn with it and without."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.validation.agreement import agreement, generate_all
from galaxies.validation.judge import Judge
from galaxies.validation.report.cells import Instrument, LeftOut
from galaxies.validation.report.control import Agreement, Guidance, Guided
from galaxies.validation.subject import judged
from galaxies.validation.viewing import DISPLAY_VIEWER, Viewer

_IMAGES = 128  # drawn twice


def guidance_effect(
    sampler: GalaxySampler,
    requests: Requests,
    judge: Judge | LeftOut,
    seed: int,
    viewer: Viewer = DISPLAY_VIEWER,
) -> Guidance:
    """Draw the first requests with the sampler's photometric guidance and without, from the same noise.

    Parameters
    ----------
    sampler : GalaxySampler
        Of a diffusion model, with a solver whose `photometry` is above 0.
    requests : Requests
    judge : Judge or LeftOut
    seed : int
        Of the bootstrap.
    viewer : Viewer
        Measures the images.
    """
    first = requests.part(0, _IMAGES)
    plain = GalaxySampler(
        sampler.network, sampler.config, sampler.population, sampler.engine, replace(sampler.solver, photometry=0.0)
    )
    plain_seconds, plain_readings = _draw_and_read(plain, first, judge, viewer, "plain")
    seconds, readings = _draw_and_read(sampler, first, judge, viewer, "guided")
    attributes: dict[str, dict[Instrument, Guided[Agreement | LeftOut]]] = {}
    for column, attribute in enumerate(sampler.config.attributes):
        if attribute not in readings["photometry"]:  # the guidance does not know of it
            continue
        requested = first.values[:, column].double().numpy()
        attributes[attribute] = {
            instrument: Guided(
                agreement(requested, plain_readings[instrument][attribute], seed),
                agreement(requested, values[attribute], seed),
            )
            for instrument, values in readings.items()
            if attribute in values
        }
    return Guidance(len(first), sampler.solver.photometry, Guided(plain_seconds, seconds), attributes)


def _draw_and_read(
    sampler: GalaxySampler, requests: Requests, judge: Judge | LeftOut, viewer: Viewer, title: str
) -> tuple[float, dict[Instrument, dict[str, np.ndarray]]]:
    """Return the seconds that an image took, and what each instrument reads on the images."""
    start = time.perf_counter()
    images = generate_all(sampler, requests, f"generating, {title}")
    seconds = (time.perf_counter() - start) / len(requests)
    readings: dict[Instrument, dict[str, np.ndarray]] = {
        "photometry": viewer.measure(images, sampler.engine.device).values
    }
    if not isinstance(judge, LeftOut):
        readings["judge"] = judged(judge, images)
    return seconds, readings
