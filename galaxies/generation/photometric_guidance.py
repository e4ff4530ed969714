"""Guidance by photometry while a diffusion model draws: make the galaxy brighter, larger or flatter, as was asked.

The gradient of a measurement in the pixels is no guide to a better galaxy: a half-light radius depends most on the few
pixels at its edge, and moving those changes what is measured and not the galaxy. So the gradient is taken along changes
that galaxies can undergo: more light, of flux in each band by itself, and the three linear deformations of the frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from config_physics import Attribute
from galaxies.images.stretch import inverse_sine, stretched
from galaxies.measure.sky import sky_level
from galaxies.networks.galaxy_frame import frame_axes
from physics_model import FluxScale, is_measured, photometric_residuals

_LARGEST_CHANGE = 0.1  # of light or of a length, at a step of the solver
_DAMPING = 1e-3  # of the squared derivatives, below which a change is not worth making


def push_to_photometry(
    images: Tensor,
    strength: float,
    requested: Tensor,
    known: Tensor,
    attributes: tuple[Attribute, ...],
    scale: FluxScale | None = None,
) -> Tensor:
    """Move images one damped Gauss-Newton step towards the photometry that is asked for, each on its own.

    Parameters
    ----------
    images : Tensor, (N, B, S, S)
        As networks have them: in [-1, 1], or stretched flux.
    strength : float
        1 for the whole step.
    requested, known : Tensor, (N, A)
        As in `physics_model.photometric_errors`.
    attributes : tuple of Attribute, A of them
    scale : FluxScale, optional
        Of flux.

    Returns
    -------
    Tensor, (N, B, S, S)
        Not clipped.

    References
    ----------
    Guidance by the gradient of a measure of the predicted image: Bansal et al. 2023, arXiv:2302.07121, algorithm 1;
    without passing the network: He et al. 2024, arXiv:2311.16424.
    """
    changes = galaxy_changes(images, scale)  # (N, K, B, S, S)
    measured = [is_measured(attribute) for attribute in attributes]
    with torch.enable_grad():
        amount = torch.zeros(changes.shape[:2], device=images.device, requires_grad=True)
        moved = _changed(images, changes, amount)
        residuals, compared = photometric_residuals(moved, requested, known, attributes, scale)
        derivatives = [
            torch.autograd.grad(residuals[:, a].sum(), amount, retain_graph=True)[0]
            for a, chosen in enumerate(measured)
            if chosen
        ]
    jacobian = torch.stack(derivatives, 1).nan_to_num() * compared[:, measured, None]  # (N, measured, K)
    residuals = (residuals.detach() * compared)[:, measured, None]
    curvature = jacobian @ jacobian.mT + _DAMPING * torch.eye(jacobian.shape[1], device=images.device)
    step = -(jacobian.mT @ torch.linalg.solve(curvature, residuals))[..., 0]
    return _changed(images, changes, (strength * step).clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE))


def galaxy_changes(images: Tensor, scale: FluxScale | None = None) -> Tensor:
    """Return what small changes of a galaxy do to its image, per unit of change: (N, K, B, S, S).

    More light, by e per unit; a larger galaxy; one that is longer along x and shorter along y; and the same at 45
    degrees. The light of a display changes in all planes at once, that of flux in each by itself, for colors are asked
    for: K is 4, or of flux B + 3.

    Parameters
    ----------
    images : Tensor, (N, B, S, S)
    scale : FluxScale, optional
        Of flux.
    """
    light = _light_changes(images, scale)  # (N, 1 or B, B, S, S)
    # Of the smooth part alone: stretching single pixels again and again would turn grain into ripples.
    weights = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16
    kernel = (weights[:, None] * weights).expand(images.shape[1], 1, 5, 5).to(images.dtype)
    padded = F.conv2d(F.pad(images, (3, 3, 3, 3), mode="replicate"), kernel, groups=images.shape[1])
    x, y = frame_axes(images.shape[-1], images.device)
    pixel = 2 / images.shape[-1]
    along_x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / (2 * pixel)
    along_y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / (2 * pixel)
    # Far out there is sky, whose grain must not be stretched.
    window = torch.exp(-((torch.hypot(x, y) / 0.8) ** 4))
    larger = -(x * along_x + y * along_y)
    stretched, turned = -(x * along_x - y * along_y), -(y * along_x + x * along_y)
    return window * torch.cat([light, torch.stack([larger, stretched, turned], 1)], 1)


def _light_changes(images: Tensor, scale: FluxScale | None) -> Tensor:
    """Return what more light does to images, in all planes at once, or of flux in each: (N, 1 or B, B, S, S)."""
    if scale is None:
        return (images - sky_level(images)[:, :, None, None])[:, None]
    # What is stretched is asinh(f / s), whose slope in log f is tanh of itself.
    turned_back = inverse_sine(images.float())
    slope = stretched(torch.tanh(turned_back)) - stretched(torch.zeros_like(turned_back))
    bands = torch.eye(images.shape[1], device=images.device)
    return bands[:, :, None, None] * slope[:, None]


def _changed(images: Tensor, changes: Tensor, amount: Tensor) -> Tensor:
    return images + (amount[:, :, None, None, None] * changes).sum(1)
