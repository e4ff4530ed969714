"""Galaxies out of noise: solvers of the diffusion process, guidance towards a condition and towards photometry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from config_physics import Attribute
from diffusion_model import DiffusionGenerator, GaussianDiffusion, ObservedDenoiser
from galaxies.compute.recorded_functions import Run, plainly
from galaxies.generation.photometric_guidance import push_to_photometry
from physics_model import FluxScale

_RHO = 7  # in the spacing of a solver's steps


@dataclass(frozen=True)
class Solver:
    """How a diffusion model is sampled.

    Attributes
    ----------
    name : {"sde", "dpm", "ddim", "ddpm"}
        SDE-DPM-Solver++ and DPM-Solver++ of second order (Lu et al. 2022, arXiv:2211.01095, "2M"), the first with fresh
        noise at every step; DDIM without noise (Song et al. 2021, arXiv:2010.02502); ancestral sampling with fresh
        noise at every step (Ho et al. 2020).
    num_steps : int
        Evaluations of the network; guidance doubles them.
    guidance : float
        Weight w of output(nothing) + w (output(condition) - output(nothing)) (Ho & Salimans 2022, arXiv:2207.12598).
        1 is none.
    photometry : float
        How far each step moves the predicted image towards the requested photometry, times alpha bar: 0 not at all, 1
        until the errors vanish to first order, if a tenth of the light and of each length is enough for that.
    """

    name: str = "sde"
    num_steps: int = 20
    guidance: float = 1.0
    photometry: float = 0.0


StepNoise = Callable[[int], Tensor]


def draw_images(
    model: DiffusionGenerator,
    noise: Tensor,
    condition: Tensor,
    solver: Solver,
    step_noise: StepNoise | None = None,
    attributes: tuple[Attribute, ...] = (),
    requested: Tensor | None = None,
    known: Tensor | None = None,
    run: Run = plainly,
    scale: FluxScale | None = None,
    light: bool = False,
) -> Tensor:
    """Draw images, or the light behind them.

    Parameters
    ----------
    model : DiffusionGenerator
    noise : Tensor, (N, B, S, S)
        Standard normal.
    condition : Tensor, (N, C)
    solver : Solver
    step_noise : callable, for the solvers "sde" and "ddpm"
        Gives the standard normal noise (N, 3, S, S) of step k.
    attributes, requested, known, scale : for photometric guidance
        As in `physics_model.photometric_errors`.
    run : Run
        Runs the network. What a step does besides is a dozen operations, which differ from step to step.
    light : bool
        Of an `ObservedDenoiser`: return what the network paints at the step that is nearest to its `light_time`.

    Returns
    -------
    Tensor, (N, B, S, S), within the model's limits
        Or light (N, B, k S, k S), nJy a fine pixel.
    """
    process, number = model.process, len(noise)
    predict = partial(model.predict_x0, guidance=solver.guidance)
    times = solver_times(process, solver.num_steps, even=solver.name == "ddpm")
    painted_at = None
    if light:
        assert isinstance(model, ObservedDenoiser), "others paint none"
        wanted = math.log(process.noise_ratios[model.light_time])
        painted_at = min(times[:-1], key=lambda t: abs(math.log(process.noise_ratios[t]) - wanted))
    x_t, previous = noise, None
    for k, (now, then) in enumerate(pairwise(times)):
        t = torch.full((number,), now, device=noise.device)
        if isinstance(model, ObservedDenoiser) and now == painted_at:
            paint = partial(model.predict_light, guidance=solver.guidance)
            return run(("light", solver.guidance), paint, x_t, t, condition)
        x0 = run(("x0", solver.guidance), predict, x_t, t, condition)
        if solver.photometry > 0:
            strength = solver.photometry * process.alpha_bars[now]  # an early guess is blurred
            assert requested is not None and known is not None, "photometric guidance needs to know what was asked"
            pushed = push_to_photometry(model.to_images(x0), strength, requested, known, attributes, scale)
            x0 = model.clip(model.normalise(pushed))
        if then == 0:
            return model.to_images(x0).clamp(*model.limits)
        fresh = None
        if solver.name in ("sde", "ddpm"):
            assert step_noise is not None, "these solvers draw fresh noise"
            fresh = step_noise(k)
        if solver.name in ("sde", "dpm"):
            x_t, previous = dpm_step(process, x_t, x0, now, then, previous, fresh), (x0, now)
        else:
            eta = 1.0 if solver.name == "ddpm" else 0.0
            x_t = ddim_step(process, x_t, x0, now, then, eta, fresh)
    raise AssertionError("the last time is 0")


def solver_times(process: GaussianDiffusion, num_steps: int, even: bool = False) -> list[int]:
    """Return the times T = t_0 > t_1 > ... > 0 of a solver, all different, and at most T of them before the 0.

    The last step takes off all noise that is left, and with it whatever in the image is fainter: the grain of the sky.
    So from t_1 = T (1 - 1 / N) to t = 1 the noise falls evenly in the seventh root of its ratio to the signal (Karras
    et al. 2022, arXiv:2206.00364, eq. 5). Ancestral sampling has `even` times, from the end (Lin et al. 2024, table 2).
    """
    last = process.num_steps
    num_steps = min(num_steps, last)
    wanted = [round(last * (1 - k / num_steps)) for k in range(num_steps + 1)]
    if not even and num_steps > 2:
        start, end = (process.noise_ratios[t] ** (1 / _RHO) for t in (wanted[1], 1))
        for k in range(2, num_steps):
            wanted[k] = process.time_of((start + (k - 1) / (num_steps - 2) * (end - start)) ** _RHO)
    times = [last]
    for k in range(1, num_steps):  # each later step needs a time of its own
        times.append(min(max(wanted[k], num_steps - k), times[-1] - 1))
    return [*times, 0]


def ddim_step(
    process: GaussianDiffusion, x_t: Tensor, x0: Tensor, now: int, then: int, eta: float, noise: Tensor | None
) -> Tensor:
    """Go to an earlier time (Song et al. 2021, eqs. 12 and 16): `eta` 1 is DDPM's posterior, 0 takes no noise."""
    alpha_now, alpha_then = process.alpha_bars[now], process.alpha_bars[then]
    t = torch.full((len(x_t),), now, device=x_t.device)
    implied = process.predict_noise(x_t, t, x0)
    sigma = eta * posterior_deviation(alpha_now, alpha_then)
    mean = math.sqrt(alpha_then) * x0 + math.sqrt(max(0.0, 1 - alpha_then - sigma**2)) * implied
    return mean if noise is None else mean + sigma * noise


def posterior_deviation(alpha_now: float, alpha_then: float) -> float:
    """Return the standard deviation of q(x_then | x_now, x_0) (Ho et al. 2020, eq. 7, for any two times)."""
    return math.sqrt((1 - alpha_then) / (1 - alpha_now) * (1 - alpha_now / alpha_then))


def dpm_step(
    process: GaussianDiffusion,
    x_t: Tensor,
    x0: Tensor,
    now: int,
    then: int,
    previous: tuple[Tensor, int] | None,
    noise: Tensor | None = None,
) -> Tensor:
    """Go from one time to an earlier one by DPM-Solver++(2M) (Lu et al. 2022, algorithm 2).

    With standard normal `noise` it is SDE-DPM-Solver++(2M) (their section 6): that much of x_t is forgotten and drawn
    anew, and with it the network's errors at the steps before.
    """

    def log_snr(t: int) -> float:  # lambda, half the logarithm of the signal-to-noise ratio
        alpha = process.alpha_bars[t]
        return 0.5 * math.log(alpha / (1 - alpha)) if alpha > 0 else -math.inf

    target = x0
    if previous is not None:
        earlier, before = previous
        ratio = (log_snr(now) - log_snr(before)) / (log_snr(then) - log_snr(now))  # infinite after pure noise
        target = x0 + (x0 - earlier) / (2 * ratio)
    alpha_now, alpha = process.alpha_bars[now], process.alpha_bars[then]
    sigma_ratio = math.sqrt((1 - alpha) / (1 - alpha_now))
    # exp(-h) = (alpha_now / sigma_now) (sigma / alpha), 0 at the first step, where nothing is left of the image.
    decay = math.sqrt(alpha_now / alpha) * sigma_ratio
    if noise is None:
        return sigma_ratio * x_t + math.sqrt(alpha) * (1 - decay) * target
    fresh = math.sqrt((1 - alpha) * (1 - decay**2))
    return sigma_ratio * decay * x_t + math.sqrt(alpha) * (1 - decay**2) * target + fresh * noise
