"""The update of a step of the diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from config_physics import Config
from diffusion_model import DiffusionGenerator, ObservedDenoiser, denoising_loss
from galaxies.compute.device import Engine
from galaxies.compute.forward_pass import ForwardPass
from galaxies.compute.ranks import Ranks
from galaxies.datasets.batches import Batch
from galaxies.generation.build import build_generator
from galaxies.telescope.exposure import Exposure
from galaxies.training.learner import PHYSICS_TERMS, Drawn, Learner, StepResult, Variant
from galaxies.training.loss_terms import DENOISING, LossTerm
from galaxies.training.weight_average import WeightAverage


@dataclass
class Denoised(Drawn):
    """What the denoiser's loss is computed from; `images` are those that its output amounts to."""

    output: Tensor  # (N, B, S, S), of the U-Net, or what its light amounts to
    target: Tensor  # the right one
    weight: Tensor  # (N,), of each image


DENOISER_TERMS = (
    LossTerm(
        "denoising",
        1.0,
        lambda _, seen: denoising_loss(seen.output, seen.target, seen.weight),
        chart=DENOISING,
        on_bar=False,
    ),
    *PHYSICS_TERMS,
)


class DiffusionLearner(Learner):
    """A U-Net that learns to take noise off galaxies, held to their physics where the image can be seen; see `Learner`.

    The two parts of the physics loss look at the predicted image. At high noise that is a blurred mean over all that
    may be hidden there, so each image's part weighs as much as there is signal in it, alpha bar = SNR / (1 + SNR)
    (unless min_snr_gamma is 0).

    Where the U-Net paints light, the denoising loss compares what the light makes likely with the real, noisy picture
    (see `ObservedDenoiser`), and physics looks at the light as the telescope of that picture records it, with noise.
    """

    table: ClassVar[tuple[LossTerm, ...]] = DENOISER_TERMS
    generator: DiffusionGenerator
    average: WeightAverage[DiffusionGenerator] | None

    def __init__(self, config: Config, engine: Engine, ranks: Ranks | None = None) -> None:
        super().__init__({"generator": build_generator(config)}, config, engine, ranks or Ranks())
        self._denoise = ForwardPass(self.generator, engine, "output", self.compiler)
        batch = self.ranks.size * config.batch_size
        place = torch.arange(batch, device=engine.device)[self.ranks.rows(config.batch_size)]
        # Where an image's noise levels begin, and how far they go: evenly spread ones (Kingma et al. 2021,
        # arXiv:2107.00630, appendix I.1) make the loss of a batch less of a lottery.
        self._levels = (place / batch, 1 / batch) if config.stratified else (0.0, 1.0)

    def slowed(self, name: str) -> tuple[Sequence[nn.Parameter], float]:
        """Return the U-Net's hidden weights, and what is left of their step size at its width; see `hidden_weights`."""
        width, base = self.config.width, self.config.learning_rate_width
        if name != "generator" or not 0 < base < width:
            return (), 1.0
        return self.generator.unet.hidden_weights(), base / width

    def learn_statistics(
        self, attribute_variance: Tensor, images: Tensor, conditions: Tensor, exposures: Exposure | None = None
    ) -> None:
        """Take over what a new run should know of its data; see `Learner.learn_statistics`."""
        super().learn_statistics(attribute_variance, images, conditions, exposures)
        if self.config.normalize:
            mean = images.mean((0, 2, 3))[:, None, None]
            deviation = (images - mean).square().mean().sqrt()
            for network in (self.generator, *([self.average.module] if self.average else [])):
                network.mean.copy_(mean)
                network.deviation.fill_(float(deviation))

    def _generator_step(self, batch: Batch, variant: Variant) -> StepResult:
        config, model = self.config, self.generator
        process = model.process
        x0 = model.normalise(batch.images)
        start, length = self._levels
        level = start + length * self._draw(uniform=True)
        t = process.draw_times(level, config.low_noise_share)
        told = (self._draw(uniform=True) >= config.condition_dropout).float()
        noise = self._draw(*model.shape)
        x_t = process.q_sample(x0, t, noise)
        condition = batch.condition * told[:, None]
        if isinstance(model, ObservedDenoiser):
            output, images = self._observed(model, batch, x_t, t, condition)
        else:
            output = self._denoise(x_t, t, condition)
            images = model.to_images(process.predict_x0(x_t, t, output))
        images = images.clamp(*model.limits)
        target, weight = process.target(x0, t, noise), process.loss_weight(t, config.min_snr_gamma)

        signal = told * process.alphas_cumprod[t] if config.min_snr_gamma else told
        known = batch.known * signal[:, None]  # a part of a value counts as that part of one
        reliability, physics = self._physics_of(images, batch, known)
        seen = Denoised(images, batch, known, reliability, physics, output, target, weight)
        total, terms = self._loss("generator", seen, variant)
        terms["grad_norm"] = self._update("generator", total)
        return [terms[name] for name in self.terms["generator"]], *physics[1:]

    def _observed(
        self, model: ObservedDenoiser, batch: Batch, x_t: Tensor, t: Tensor, condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the output that painted light amounts to, and the light as the batch's telescopes record it."""
        if batch.exposure is None:
            raise ValueError("light is observed as the images of its batch were, of which nothing is said")
        telescope, exposure = model.telescope, batch.exposure
        light = telescope.light_of(self._denoise(x_t, t, condition, model.told(exposure)))
        seen = telescope.observed(light, exposure, None)
        output = model.process.output_for(x_t, t, model.expected(x_t, t, seen, exposure))
        return output, telescope.stretch(telescope.with_noise(seen, exposure, self._draw(*model.shape)))
