"""The stretch of flux: its known values, its inverse, and what float16 keeps of it."""

from __future__ import annotations

import math

import numpy as np
import torch

from galaxies.images.stretch import FULL, AsinhStretch


def test_sky_is_minus_one_and_a_thousand_softenings_are_one():
    softening = torch.tensor([0.5, 20.0], dtype=torch.float64)
    flux = torch.stack([torch.zeros(2), softening, FULL * softening], 1)[:, :, None].double()  # (B, 3, 1)
    wanted = [-1.0, 2 * math.log(1 + math.sqrt(2)) / math.log(1000 + math.sqrt(1e6 + 1)) - 1, 1.0]
    np.testing.assert_allclose(AsinhStretch(softening)(flux)[:, :, 0], [wanted] * 2, rtol=0, atol=1e-12)


def test_it_is_undone_without_clipping():
    softening = torch.tensor([2.0, 300.0])
    flux = torch.cat([-torch.logspace(-3, 7, 40), torch.logspace(-3, 7, 40)]).view(1, 80, 1).expand(2, -1, -1)
    stretch = AsinhStretch(softening)
    back = stretch.flux(stretch(flux))
    # A step of float32 at -1 is 6e-8 of 3.8 softenings; above, of the exponent.
    assert ((back - flux).abs() <= 1e-6 * softening[:, None, None] + 1e-5 * flux.abs()).all()


def test_gradients_pass_both_ways():
    stretch = AsinhStretch(torch.tensor([3.0], dtype=torch.float64))
    flux = torch.linspace(-20, 900, 12, dtype=torch.float64).view(1, 12, 1).requires_grad_()
    assert torch.autograd.gradcheck(stretch, flux)
    assert torch.autograd.gradcheck(stretch.flux, stretch(flux).detach().requires_grad_())
