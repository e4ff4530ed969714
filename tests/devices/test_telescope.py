"""Telescopes see the same on a GPU as on a CPU, and mock galaxies look the same but for their noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.compute.device import Engine
from galaxies.mock_survey.band_observation import BandSurvey
from galaxies.mock_survey.band_population import Frame, draw_blocks
from galaxies.telescope.observing import Noise, observe, resampled
from galaxies.telescope.profiles import kolmogorov
from galaxies.telescope.psf import Psf, PsfImages
from galaxies.telescope.surveys import Survey, SurveyBand

SHAPES = ("kolmogorov", "airy:0.3", "moffat:3.5", "gaussian", "double_gaussian:0.1,2")
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
    for blur in (*(Psf.named(width, text) for text in SHAPES), PsfImages(Psf(width, kolmogorov).image(9, 0.2))):
        seen = observe(light, blur, 0.2, oversampling=2, noise=noise, normal=normal[..., ::2, ::2])
        assert seen.device.type == device
        results += [seen, *torch.autograd.grad(seen.square().sum(), (light, width), retain_graph=True)]
        elsewhere = resampled(light, torch.tensor([0.1, 0.15]).to(device), 0.27, 9, blur, coarsest=2.7)
        results += [elsewhere, *torch.autograd.grad(elsewhere.square().sum(), (light, width))]
    return [result.detach().cpu() for result in results]


def test_a_telescope_on_a_gpu(gpu):
    for found, right in zip(seen_on("cuda"), seen_on("cpu"), strict=True):
        torch.testing.assert_close(found, right, **ROUNDING)


@pytest.mark.parametrize("text", [*SHAPES, "images"])
def test_a_recorded_telescope_observes_what_comes_later(gpu, text):
    light = torch.zeros(2, 1, 16, 16, device="cuda", requires_grad=True)
    width = torch.full((2, 1), 0.7, device="cuda")
    scale = torch.full((2,), 0.2, device="cuda")
    noise = Noise(width.clone(), width.clone())
    normal = torch.zeros(2, 1, 8, 8, device="cuda")
    images = torch.full((2, 1, 5, 5), 0.04, device="cuda")

    def step() -> tuple[torch.Tensor, ...]:
        blur = PsfImages(images) if text == "images" else Psf.named(width, text)
        seen = observe(light, blur, scale, oversampling=2, noise=noise, normal=normal)
        seen = seen + resampled(light, 0.1, 0.2, 8, blur) + resampled(light, 0.1, scale, 8, blur, coarsest=2.0)
        return seen.detach(), *torch.autograd.grad(seen.square().sum(), light)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # a GPU chooses its ways of multiplying before it is recorded
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    with torch.no_grad():
        light[:, :, 6:9, 7:12] = 5.0
        width[1] = 0.9
        scale[0] = 0.25
        normal[..., 2, 3] = 1.0
    graph.replay()
    for found, right in zip(recorded, step(), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
        assert found.abs().max() > 0.1


def test_light_is_multiplied_in_whole_precision_within_networks(gpu):
    light = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    width = torch.tensor([[0.5]])
    right = observe(light, Psf(width, kolmogorov), 0.2, oversampling=2)
    engine = Engine(torch.device("cuda"), bf16=True, tf32=True)
    with engine.kernels(), engine.autocast():  # as steps of training do
        seen = observe(light.to("cuda"), Psf(width.to("cuda"), kolmogorov), 0.2, oversampling=2)
        assert torch.backends.cuda.matmul.allow_tf32
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.cpu(), right, rtol=1e-5, atol=1e-5)


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
