"""Telescopes see the same on a GPU as on a CPU, and mock galaxies look the same but for their noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.mock_survey.band_observation import BandSurvey
from galaxies.mock_survey.band_population import Frame, draw_blocks
from galaxies.telescope.observing import Noise, observe
from galaxies.telescope.profiles import airy, kolmogorov
from galaxies.telescope.psf import Psf, PsfImages
from galaxies.telescope.surveys import Survey, SurveyBand

ROUNDING = {"rtol": 1e-4, "atol": 1e-4}
BANDS = (
    SurveyBand("r", 622.0, (552.0, 691.0), 0.8, 21.0, 28.0, 3000.0),
    SurveyBand("i", 755.0, (691.0, 818.0), 0.7, 20.0, 27.8, 3000.0),
)


def seen_on(device: str) -> list[torch.Tensor]:
    """Return light seen through two telescopes, and the slopes of light and width, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    light, normal = (torch.rand(2, 2, 24, 24, generator=generator).to(device) for _ in range(2))
    light.requires_grad_()
    width = torch.tensor([[0.7, 0.8], [0.9, 1.0]]).to(device).requires_grad_()
    noise = Noise(torch.tensor([0.1, 0.2]).to(device), torch.tensor([0.01, 0.02]).to(device))
    results = []
    for blur in (Psf(width, kolmogorov), Psf(width, airy(0.3)), PsfImages(Psf(width, kolmogorov).image(9, 0.2))):
        seen = observe(light, blur, 0.2, oversampling=2, noise=noise, normal=normal[..., ::2, ::2])
        assert seen.device.type == device
        results += [seen, *torch.autograd.grad(seen.square().sum(), (light, width))]
    return [result.detach().cpu() for result in results]


def test_a_telescope_on_a_gpu(gpu):
    for found, right in zip(seen_on("cuda"), seen_on("cpu"), strict=True):
        torch.testing.assert_close(found, right, **ROUNDING)


def test_a_telescope_on_mps(pretended_mps):
    for found, right in zip(seen_on("mps"), seen_on("cpu"), strict=True):
        torch.testing.assert_close(found, right, **ROUNDING)


@pytest.mark.parametrize("kind", ["spiral", "edge-on"])
def test_galaxies_drawn_on_a_gpu_differ_in_their_noise_alone(gpu, kind):
    frame = Frame(Survey("x", 0.2, "kolmogorov", 0.0, BANDS), 64, 0.2)
    table, rows = draw_blocks(kind, [2], [np.random.default_rng(0)], frame), np.arange(2)
    (seen, light, truth), (seen_there, light_there, truth_there) = (
        BandSurvey(1, frame, device)._render(kind, table, rows, rows, rows >= 0) for device in ("cpu", "cuda")
    )
    assert seen_there.device.type == light_there.device.type == "cuda"
    for name, values in truth.items():
        torch.testing.assert_close(truth_there[name].cpu(), values, rtol=1e-4, atol=0)
    torch.testing.assert_close(light_there.cpu(), light, rtol=1e-3, atol=1e-4 * float(light.max()))
    difference = (seen_there.cpu() - seen)[..., :8, :8] / torch.from_numpy(table.exposure.sky_noise)[..., None, None]
    assert float(difference.std()) == pytest.approx(2**0.5, rel=0.15)  # of two that do not know of each other
    again = BandSurvey(1, frame, "cuda")._render(kind, table, rows[1:], rows[1:], rows[1:] < 0)[0]
    torch.testing.assert_close(again.cpu()[0], seen_there.cpu()[1], rtol=1e-4, atol=1e-2)
